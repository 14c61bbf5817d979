//! A whole node with a bucket, as its configuration starts it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use holdfast_model::Role;
use holdfast_proto::storage::{StatusRequest, UploadStatus, storage_node_client::StorageNodeClient};
use holdfast_record::SealedRecord;
use holdfast_runtime::{Channels, Shutdown, SystemClock, SystemRandom, pki};

use super::{place::Records, server::Server};
use crate::{
    NodeHandle, StorageNodeOptions,
    testing::{Rig, SESSION, authority, caller, layout, record},
};

const UPLOADED_WITHIN: Duration = Duration::from_secs(90);

struct Files {
    pki: pki::Pki,
    public_key: PathBuf,
    rig: Rig,
}

impl Files {
    fn new() -> Self {
        let rig = Rig::new();
        let pki = pki::Pki::create(&rig.dir.path().join("pki"), "test").unwrap();
        let public_key = pki::issue_signing_key(&rig.dir.path().join("signing")).unwrap().public;
        Self { pki, public_key, rig }
    }

    async fn start(&self, server: &Server) -> (NodeHandle, Shutdown) {
        let mut s3 = server.options("locked", "started");
        s3.upload_seconds = 1;
        let options = StorageNodeOptions {
            s3: Some(s3),
            tls: self.pki.issue(Role::StorageNode, "node-1", &[]).unwrap().options(),
            coordinator_public_key_file: self.public_key.clone(),
            ..self.rig.options.clone()
        };
        let shutdown = Shutdown::new();
        let started = crate::start(options, Arc::new(SystemClock), Arc::new(SystemRandom), shutdown.clone());
        (started.await.unwrap(), shutdown)
    }

    /// What a coordinator is told of the uploads.
    async fn uploads(&self, handle: &NodeHandle) -> Option<UploadStatus> {
        let tls = self.pki.issue(Role::Coordinator, "tester", &[]).unwrap().options();
        let channel = Channels::connect(&handle.addr().to_string(), &tls, Role::StorageNode).unwrap();
        let answer = StorageNodeClient::new(channel).status(StatusRequest {}).await;
        answer.unwrap().into_inner().uploads
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_started_node_uploads_by_itself_and_starts_again_on_its_bucket() {
    let server = Server::start().await;
    let files = Files::new();
    let (handle, shutdown) = files.start(&server).await;
    handle.node().apply(authority(1, 5, Some(layout(1, &[(1, "a")], 1)))).unwrap();
    let mut records = Records::new();
    for n in 0..20 {
        let one = record(n, 20_000);
        let put = handle.node().replicate(&caller(1), SESSION, vec![one.encode()]).await.unwrap();
        assert!(put.reason.is_empty(), "{}", put.reason);
        records.insert(one.header.id, one.ciphertext.clone());
    }
    // Full ones at once, the last by its age.
    let all_uploaded = async {
        let segments = files.rig.options.data.join("segments");
        let local = || {
            std::fs::read_dir(&segments).unwrap().any(|entry| {
                entry.unwrap().file_name().to_str().is_some_and(|name| name.starts_with("data-"))
            })
        };
        while local() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let in_time = tokio::time::timeout(UPLOADED_WITHIN, all_uploaded).await;
    assert!(in_time.is_ok(), "{:?}", handle.uploads());
    let objects =
        server.client.list_objects_v2().bucket("locked").prefix("started/test/1/data-").send().await;
    assert!(objects.unwrap().contents().len() >= 7);
    let told = files.uploads(&handle).await.unwrap();
    assert_eq!((told.held_segments, told.failing_ms, told.last_error_class), (0, 0, String::new()));
    assert_eq!(handle.node().store().n_damaged(), 0);
    shutdown.trigger();
    handle.join().await.unwrap();
    let (handle, shutdown) = files.start(&server).await;
    for (id, bytes) in &records {
        let found = handle.node().get(&caller(1), &[*id], 1 << 20).await.unwrap();
        let stored = SealedRecord::decode(found[0].clone().unwrap()).unwrap();
        assert_eq!(&stored.ciphertext, bytes);
    }
    shutdown.trigger();
    handle.join().await.unwrap();
}
