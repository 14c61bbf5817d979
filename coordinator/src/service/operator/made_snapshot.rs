//! A small snapshot of a mailbox in memory, for tests.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_model::{Account, Epoch, Fence, ResourceId, Sequence, SnapshotId, TenantId, Workload};
use holdfast_record::Pin;
use holdfast_repository::{
    ContentSource, EntryFlags, EntryKind, FolderKey, ItemFields, ItemKey, JobKeys, MemoryStore, ResourceKey,
    SnapshotHeader, SnapshotReader, SnapshotWriter, TenantKeys, TreeRoots, WriterOptions,
};
use holdfast_runtime::SystemRandom;
use serde_json::json;

use crate::folder_key::{ROOT_PARENT, folder_key};

const TENANT: TenantId = TenantId([1; 16]);
const RESOURCE: ResourceId = ResourceId([2; 16]);

/// Something that is in it. Its id is its name.
pub(super) struct Made<'a> {
    pub(super) kind: EntryKind,
    pub(super) id: &'a str,
    pub(super) parent: Option<&'a str>,
    pub(super) well_known: Option<&'a str>,
}

impl<'a> Made<'a> {
    pub(super) fn folder(id: &'a str, parent: Option<&'a str>) -> Self {
        Self { kind: EntryKind::Folder, id, parent, well_known: None }
    }

    pub(super) fn message(id: &'a str, folder: &'a str) -> Self {
        Self { kind: EntryKind::MailMessage, id, parent: Some(folder), well_known: None }
    }
}

/// Writes these and opens what was written.
pub(super) async fn made_snapshot(all: &[Made<'_>]) -> SnapshotReader {
    let keys = Arc::new(JobKeys {
        tenant: TENANT,
        resource: RESOURCE,
        tenant_keys: TenantKeys::generate(&SystemRandom),
        resource_key: ResourceKey::generate(&SystemRandom),
    });
    let store = Arc::new(MemoryStore::new());
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap());
    let writer = SnapshotWriter::create(store.clone(), keys.clone(), pool, WriterOptions::default(), None);
    for made in all {
        let meta = json!({
            "displayName": made.id, "subject": made.id, "_holdfast": { "wellKnown": made.well_known }
        });
        let fields = ItemFields {
            kind: made.kind,
            flags: EntryFlags::default(),
            change: [0; 16],
            size: 1,
            parent: FolderKey(made.parent.map_or(ROOT_PARENT, folder_key)),
            sort: u64::from(!made.kind.is_container()),
        };
        let key = ItemKey(made.id.as_bytes().to_vec());
        writer.put_item(key, fields, Bytes::from(meta.to_string()), ContentSource::None).await.unwrap();
    }
    let finished = writer.finish(header()).await.unwrap();
    let pin = Pin {
        tenant: TENANT,
        resource: RESOURCE,
        workload: Workload::Mail,
        sequence: Sequence(1),
        fence: Fence::default(),
        epoch: Epoch(1),
        snapshot: SnapshotId([0; 8]),
        root: finished.root,
        sealed_root: finished.sealed_root,
        previous: None,
        created_ms: 0,
        retain_until_ms: 0,
        items: 0,
        items_missing: 0,
    };
    SnapshotReader::open(store, keys, &pin).await.unwrap()
}

fn header() -> SnapshotHeader {
    SnapshotHeader {
        tenant: TENANT,
        resource: RESOURCE,
        workload: Workload::Mail,
        sequence: Sequence(1),
        parent: None,
        roots: TreeRoots::default(),
        state: Vec::new(),
        account: Account::default(),
        failed: Vec::new(),
        started_ms: 0,
        finished_ms: 1,
        worker: "w".to_owned(),
        format: 0,
    }
}
