//! The gRPC edge: requests to typed ids, one domain call, its answer. Nothing is decided here.

pub mod operator;
mod shards;
pub mod worker_api;

use holdfast_model::Role;
use holdfast_proto::status::ErrorCode;
use holdfast_runtime::{PeerIdentity, RoleTable};
use tonic::{Request, Status};

use crate::catalog::audit::Actor;

const WORKER: &[Role] = &[Role::Worker];
const OPERATOR: &[Role] = &[Role::Operator];

/// Which role may call which RPC. What is not listed is refused.
pub static ROLE_TABLE: RoleTable = RoleTable(&[
    ("/holdfast.coordinator.v1.WorkerApi/Claim", WORKER),
    ("/holdfast.coordinator.v1.WorkerApi/Heartbeat", WORKER),
    ("/holdfast.coordinator.v1.WorkerApi/PrepareCommit", WORKER),
    ("/holdfast.coordinator.v1.WorkerApi/RecordCommit", WORKER),
    ("/holdfast.coordinator.v1.WorkerApi/FinishJob", WORKER),
    ("/holdfast.coordinator.v1.WorkerApi/ReleaseJob", WORKER),
    ("/holdfast.coordinator.v1.WorkerApi/SyncShards", WORKER),
    ("/holdfast.coordinator.v1.OperatorApi/ConnectTenant", OPERATOR),
    ("/holdfast.coordinator.v1.OperatorApi/ListTenants", OPERATOR),
    ("/holdfast.coordinator.v1.OperatorApi/ListResources", OPERATOR),
    ("/holdfast.coordinator.v1.OperatorApi/StartBackup", OPERATOR),
    ("/holdfast.coordinator.v1.OperatorApi/StartRestore", OPERATOR),
    ("/holdfast.coordinator.v1.OperatorApi/StartExport", OPERATOR),
    ("/holdfast.coordinator.v1.OperatorApi/StartVerify", OPERATOR),
    ("/holdfast.coordinator.v1.OperatorApi/ListJobs", OPERATOR),
    ("/holdfast.coordinator.v1.OperatorApi/GetJob", OPERATOR),
    ("/holdfast.coordinator.v1.OperatorApi/GetRun", OPERATOR),
    ("/holdfast.coordinator.v1.OperatorApi/RetryJob", OPERATOR),
    ("/holdfast.coordinator.v1.OperatorApi/GetStatus", OPERATOR),
    ("/holdfast.coordinator.v1.OperatorApi/ListSnapshots", OPERATOR),
    ("/holdfast.coordinator.v1.OperatorApi/Browse", OPERATOR),
    ("/holdfast.coordinator.v1.OperatorApi/Diff", OPERATOR),
    ("/holdfast.coordinator.v1.OperatorApi/Search", OPERATOR),
    ("/holdfast.coordinator.v1.OperatorApi/ListAudit", OPERATOR),
    ("/holdfast.coordinator.v1.OperatorApi/ListNodes", OPERATOR),
    ("/holdfast.coordinator.v1.OperatorApi/GetLayout", OPERATOR),
    ("/holdfast.coordinator.v1.OperatorApi/ChangeLayout", OPERATOR),
]);

/// Who asks: the role check in front of the services put it there.
fn actor<T>(request: &Request<T>) -> Result<Actor, Status> {
    let peer = request.extensions().get::<PeerIdentity>();
    peer.map(Actor::of).ok_or_else(|| ErrorCode::Forbidden.status("the caller has not been identified"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SERVICES: [(&str, &str); 2] = [
        ("WorkerApi", include_str!("../../../proto/proto/holdfast/coordinator/v1/worker.proto")),
        ("OperatorApi", include_str!("../../../proto/proto/holdfast/coordinator/v1/operator.proto")),
    ];

    #[test]
    fn the_role_table_lists_every_rpc_and_nothing_else() {
        let mut declared = BTreeSet::new();
        for (service, proto) in SERVICES {
            for line in proto.lines().filter_map(|line| line.trim().strip_prefix("rpc ")) {
                let name = line.split('(').next().unwrap();
                declared.insert(format!("/holdfast.coordinator.v1.{service}/{name}"));
            }
        }
        let listed: BTreeSet<String> = ROLE_TABLE.rpcs().map(str::to_owned).collect();
        assert_eq!(declared, listed);
    }

    #[test]
    fn a_worker_cannot_do_what_an_operator_does() {
        for rpc in ROLE_TABLE.rpcs() {
            let expected = if rpc.contains("WorkerApi") { [Role::Worker] } else { [Role::Operator] };
            assert_eq!(ROLE_TABLE.roles(rpc).unwrap(), expected);
        }
    }
}
