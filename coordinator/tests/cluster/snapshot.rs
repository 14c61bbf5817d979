//! A small snapshot, made as a worker makes it and copied to the fake nodes.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use holdfast_coordinator::folder_key;
use holdfast_model::{Account, Epoch, Fence, ResourceId, Sequence, SnapshotId, TenantId, Workload};
use holdfast_proto::coordinator::{Lease, lease};
use holdfast_record::Pin;
use holdfast_repository::{
    ContentSource, EntryFlags, EntryKind, FolderKey, ItemFields, ItemKey, JobKeys, MemoryStore,
    SnapshotHeader, SnapshotWriter, TreeRoots, WriterOptions,
};
use serde_json::{Value, json};

use crate::fake_node::FakeNode;

pub struct MadeSnapshot {
    pub pin: Pin,
    store: Arc<MemoryStore>,
}

impl MadeSnapshot {
    /// Of mail, round 0 has Inbox {m1, m2, Projects {m3}}; in round 1 m1 is in Projects, m2 is gone and m9 is new. Of contacts
    /// there are two, one of them in a folder.
    pub async fn of(lease: &Lease, round: u32) -> Self {
        let Some(lease::Spec::Backup(spec)) = &lease.spec else { panic!("not a backup") };
        let keys = Arc::new(JobKeys::from_bytes(&lease.keys.as_ref().unwrap().job_keys).unwrap());
        let store = Arc::new(MemoryStore::new());
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap());
        let writer = SnapshotWriter::create(store.clone(), keys, pool, WriterOptions::default(), None);
        let workload: Workload = lease.workload.parse().unwrap();
        let items = match workload {
            Workload::Contacts => put_contacts(&writer).await,
            _ => put_mail(&writer, round).await,
        };
        let (tenant, resource) =
            (TenantId::from_slice(&lease.tenant).unwrap(), ResourceId::from_slice(&lease.resource).unwrap());
        let previous = (!spec.base_pin.is_empty()).then(|| Pin::decode(&spec.base_pin).unwrap().hash());
        let sequence = Sequence(spec.sequence);
        let header = SnapshotHeader {
            tenant,
            resource,
            workload,
            sequence,
            parent: previous,
            roots: TreeRoots::default(),
            state: vec![],
            account: Account::default(),
            failed: vec![],
            started_ms: 0,
            finished_ms: 1,
            worker: "w1".to_owned(),
            format: 0,
        };
        let finished = writer.finish(header).await.unwrap();
        let pin = Pin {
            tenant,
            resource,
            workload,
            sequence,
            fence: Fence::from(lease.fence.unwrap()),
            epoch: Epoch(spec.epoch),
            snapshot: SnapshotId::derive(tenant, resource, workload, sequence),
            root: finished.root,
            sealed_root: finished.sealed_root,
            previous,
            created_ms: 1_700_000_000_000 + spec.sequence,
            retain_until_ms: 0,
            items,
            items_missing: 0,
        };
        Self { pin, store }
    }

    /// The ids of its records.
    pub fn record_ids(&self) -> HashSet<Vec<u8>> {
        self.store.records().iter().map(|record| record.header.id.0.to_vec()).collect()
    }

    pub fn copy_to(&self, nodes: &[FakeNode]) {
        for record in self.store.records() {
            for node in nodes {
                let mut state = node.state.lock().unwrap();
                state.records.insert(record.header.id.0.to_vec(), record.encode());
            }
        }
    }
}

async fn put_mail(writer: &SnapshotWriter, round: u32) -> u64 {
    put_folder(writer, "root", None, "Top of Information Store").await;
    put_folder(writer, "inbox", Some("root"), "Inbox").await;
    put_folder(writer, "projects", Some("inbox"), "Projects").await;
    let messages: &[(u64, &str)] = match round {
        0 => &[(1, "inbox"), (2, "inbox"), (3, "projects")],
        _ => &[(1, "projects"), (9, "inbox"), (3, "projects")],
    };
    for (n, folder) in messages {
        put_message(writer, *n, folder).await;
    }
    messages.len() as u64
}

async fn put_contacts(writer: &SnapshotWriter) -> u64 {
    put_folder(writer, "root", None, "").await;
    put_folder(writer, "book", Some("root"), "Contacts").await;
    put_folder(writer, "friends", Some("book"), "Friends").await;
    for (id, folder) in [("c1", "book"), ("c2", "friends")] {
        let meta = json!({
            "displayName": format!("Contact {id}"),
            "emailAddresses": [{ "name": "x", "address": format!("{id}@x.test") }],
            "lastModifiedDateTime": "2023-11-14T22:13:20Z",
        });
        put(writer, id, EntryKind::Contact, FolderKey(folder_key(folder)), (1, 10), meta).await;
    }
    2
}

async fn put_folder(writer: &SnapshotWriter, id: &str, parent: Option<&str>, name: &str) {
    let parent = parent.map_or([0; 16], folder_key);
    put(writer, id, EntryKind::Folder, FolderKey(parent), (0, 0), json!({ "displayName": name })).await;
}

async fn put_message(writer: &SnapshotWriter, n: u64, folder: &str) {
    let meta = json!({
        "subject": format!("subject {n}"),
        "from": { "emailAddress": { "name": "From", "address": "from@x.test" } },
        "receivedDateTime": "2023-11-14T22:13:20Z",
        "hasAttachments": false,
    });
    let sort = 1_700_000_000_000 + n;
    put(writer, &format!("m{n}"), EntryKind::MailMessage, FolderKey(folder_key(folder)), (sort, 101), meta)
        .await;
}

async fn put(
    writer: &SnapshotWriter,
    id: &str,
    kind: EntryKind,
    parent: FolderKey,
    (sort, size): (u64, u64),
    meta: Value,
) {
    let fields = ItemFields { kind, flags: EntryFlags::default(), change: [0; 16], size, parent, sort };
    let meta = Bytes::from(meta.to_string());
    writer.put_item(ItemKey(id.as_bytes().to_vec()), fields, meta, ContentSource::None).await.unwrap();
}
