//! Who may call what at a coordinator: the certificate's role decides, in front of every service.

use std::future::poll_fn;

use holdfast_coordinator::ROLE_TABLE;
use holdfast_model::Role;
use holdfast_proto::status::ErrorCode;
use tonic::{Status, body::Body, client::GrpcService, codegen::http::Request, transport::Channel};

use crate::world::World;

const ROLES: [Role; 4] = [Role::Operator, Role::Worker, Role::Coordinator, Role::StorageNode];

/// Calls an RPC with an empty request; the status with which it was refused.
async fn call(channel: &Channel, rpc: &str) -> Option<Status> {
    let mut channel = channel.clone();
    let request = Request::post(format!("http://any{rpc}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::empty())
        .unwrap();
    poll_fn(|context| GrpcService::<Body>::poll_ready(&mut channel, context)).await.unwrap();
    let answer = GrpcService::<Body>::call(&mut channel, request).await.unwrap();
    Status::from_header_map(answer.headers())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_opens_nothing_but_what_its_role_may_call() {
    let world = World::start(|_| ()).await;
    let rpcs: Vec<_> = ROLE_TABLE.rpcs().collect();
    assert!(rpcs.len() > 20);
    for role in ROLES {
        let channel = world.bare_channel(role);
        for rpc in &rpcs {
            let roles = ROLE_TABLE.roles(rpc).unwrap();
            if roles.contains(&role) {
                continue;
            }
            let refused = call(&channel, rpc).await.unwrap_or_else(|| panic!("{role} got into {rpc}"));
            assert_eq!(ErrorCode::of(&refused), ErrorCode::Forbidden, "{role} {rpc}: {refused:?}");
            assert!(refused.message().contains(&format!("needs {}", roles[0])), "{refused:?}");
        }
        // What no table lists is nobody's.
        let refused = call(&channel, "/holdfast.storage.v1.StorageNode/ApplyLayout").await.unwrap();
        assert_eq!(ErrorCode::of(&refused), ErrorCode::Forbidden, "{role}");
    }
    world.stop().await;
}
