//! What the golden repository of format 1 holds, and how it was made. It is never made again: a later format gets its own.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use holdfast_model::{Account, ChunkId, PinHash, ResourceId, Sequence, SnapshotId, TenantId, Workload};
use holdfast_record::Pin;
use holdfast_repository::{
    ContentDraft, ContentSource, EntryFlags, EntryKind, FolderKey, ItemFields, ItemKey, JobKeys, Key,
    KeyFile, KeyFileProvider, KeyProvider as _, MemoryStore, ResourceKey, SnapshotHeader, SnapshotWriter,
    TenantKeys, TreeRoots, WriterOptions,
};
use holdfast_storage_node::Node;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::node::{EPOCH, FENCE, Seeded, commit, open};

/// `expected.json`: what every snapshot gives back.
#[derive(Debug, Serialize, Deserialize)]
pub struct Expected {
    pub snapshots: Vec<ExpectedSnapshot>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ExpectedSnapshot {
    pub tenant: String,
    pub resource: String,
    pub sequence: u64,
    pub pin: String,
    /// By key, in hexadecimal.
    pub items: BTreeMap<String, ExpectedItem>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedItem {
    pub kind: u8,
    pub flags: u16,
    pub change: String,
    pub size: u64,
    pub parent: String,
    pub sort: u64,
    pub meta: Content,
    pub parts: Vec<Content>,
}

/// Bytes by their length and BLAKE3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub len: u64,
    pub blake3: String,
}

impl Content {
    pub fn of(bytes: &[u8]) -> Self {
        Self { len: bytes.len() as u64, blake3: blake3::hash(bytes).to_hex().to_string() }
    }
}

/// Base64 as mail has it, or not quite.
fn base64_lines(bytes: &[u8], line: usize, eol: &str) -> Vec<u8> {
    let text = STANDARD.encode(bytes);
    let mut out = Vec::with_capacity(text.len() * 79 / 76);
    for chars in text.as_bytes().chunks(line) {
        out.extend_from_slice(chars);
        out.extend_from_slice(eol.as_bytes());
    }
    out
}

fn message(subject: &str, attachment: &[u8]) -> Vec<u8> {
    let head = format!(
        "From: alex@contoso.example\r\nSubject: {subject}\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\
         Content-Type: text/plain\r\n\r\nSee {subject}.\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    );
    [head.as_bytes(), &base64_lines(attachment, 76, "\r\n"), b"--b--\r\n"].concat()
}

/// Cut into several chunks, and small when compressed.
fn large_file() -> Vec<u8> {
    let block: Vec<u8> = b"the quick brown fox jumps over the lazy dog, again and again. ".repeat(133);
    (0..1_150_u32).flat_map(|n| [&n.to_le_bytes()[..], &block].concat()).collect()
}

pub fn folder_key(id: &str) -> [u8; 16] {
    let hash = blake3::Hasher::new().update(b"holdfast mail folder 1").update(id.as_bytes()).finalize();
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// One resource while its snapshots are written.
struct Resource<'a> {
    node: &'a Node,
    keys: JobKeys,
    store: Arc<MemoryStore>,
    pool: Arc<rayon::ThreadPool>,
    stored: std::collections::BTreeSet<ChunkId>,
    roots: Option<TreeRoots>,
    previous: Option<PinHash>,
    sequence: u64,
    items: BTreeMap<String, ExpectedItem>,
}

/// What is put as a part.
enum Part<'a> {
    /// A message: taken apart if it can be.
    Mime(&'a [u8]),
    /// Bytes that stay whole.
    Content(&'a [u8]),
    /// A file, as others may have it too.
    File(&'a [u8]),
}

impl Resource<'_> {
    fn writer(&self) -> SnapshotWriter {
        let options = WriterOptions::default();
        SnapshotWriter::create(
            self.store.clone(),
            Arc::new(self.keys.clone()),
            self.pool.clone(),
            options,
            self.roots,
        )
    }

    async fn folder(&mut self, writer: &SnapshotWriter, id: &str, name: &str, parent: &str) -> Result<()> {
        let parent = if parent.is_empty() { [0; 16] } else { folder_key(parent) };
        let meta = json!({ "id": id, "displayName": name }).to_string();
        let fields = ItemFields {
            kind: EntryKind::Folder,
            flags: EntryFlags::default(),
            change: *blake3::hash(meta.as_bytes()).as_bytes().first_chunk().expect("32 bytes"),
            size: 0,
            parent: FolderKey(parent),
            sort: 0,
        };
        self.put(writer, id, fields, meta.into_bytes(), &[]).await
    }

    async fn mail(
        &mut self,
        writer: &SnapshotWriter,
        (id, parent): (&str, &str),
        flags: EntryFlags,
        parts: &[Part<'_>],
    ) -> Result<()> {
        let meta = json!({ "id": id, "subject": format!("about {id}"), "importance": "normal" }).to_string();
        let number =
            u64::from_le_bytes(*blake3::hash(id.as_bytes()).as_bytes().first_chunk().expect("32 bytes"));
        let fields = ItemFields {
            kind: EntryKind::MailMessage,
            flags,
            change: [u8::try_from(number % 251).expect("below 256"); 16],
            size: number % 100_000,
            parent: FolderKey(folder_key(parent)),
            sort: 1_700_000_000_000 + number % 1_000_000,
        };
        self.put(writer, id, fields, meta.into_bytes(), parts).await
    }

    async fn put(
        &mut self,
        writer: &SnapshotWriter,
        id: &str,
        fields: ItemFields,
        meta: Vec<u8>,
        parts: &[Part<'_>],
    ) -> Result<()> {
        let (mut drafts, mut contents) = (Vec::new(), Vec::new());
        for part in parts {
            let bytes = match part {
                Part::Mime(bytes) | Part::Content(bytes) | Part::File(bytes) => bytes,
            };
            contents.push(Content::of(bytes));
            drafts.push(draft(writer, part).await?);
        }
        self.items.insert(
            hex::encode(id),
            ExpectedItem {
                kind: fields.kind.code(),
                flags: fields.flags.0,
                change: hex::encode(fields.change),
                size: fields.size,
                parent: hex::encode(fields.parent.0),
                sort: fields.sort,
                meta: Content::of(&meta),
                parts: contents,
            },
        );
        let source = if drafts.is_empty() { ContentSource::None } else { ContentSource::New(drafts) };
        Ok(writer.put_item(ItemKey(id.into()), fields, meta.into(), source).await?)
    }

    /// Ends the snapshot and stores what is new of it on the node.
    async fn finish(&mut self, writer: SnapshotWriter, missing: u64) -> Result<ExpectedSnapshot> {
        self.sequence += 1;
        let JobKeys { tenant, resource, .. } = self.keys;
        let (sequence, n_items) = (Sequence(self.sequence), self.items.len() as u64);
        let started_ms = 1_790_000_000_000 + self.sequence * 86_400_000;
        let failed = if missing == 0 { "[]" } else { r#"[{"id":"AAMk-lost","code":"ErrorItemNotFound"}]"# };
        let header = SnapshotHeader {
            tenant,
            resource,
            workload: Workload::Mail,
            sequence,
            parent: self.previous,
            roots: TreeRoots::default(),
            state: Seeded::bytes("state", 40),
            account: Account { listed: n_items, stored: n_items, ..Account::default() },
            failed: failed.into(),
            started_ms,
            finished_ms: started_ms + 60_000,
            worker: "worker-1".to_owned(),
            format: 1,
        };
        let finished = writer.finish(header).await?;
        let pin = Pin {
            tenant,
            resource,
            workload: Workload::Mail,
            sequence,
            fence: FENCE,
            epoch: EPOCH,
            snapshot: SnapshotId(*resource.0.last_chunk().map(|tail: &[u8; 8]| tail).expect("16 bytes")),
            root: finished.root,
            sealed_root: finished.sealed_root,
            previous: self.previous,
            created_ms: started_ms + 61_000,
            retain_until_ms: 0,
            items: n_items,
            items_missing: missing,
        };
        let mut records = self.store.records();
        records.retain(|record| self.stored.insert(record.header.id));
        records.sort_by_key(|record| record.header.id);
        commit(self.node, records, &pin).await?;
        (self.roots, self.previous) = (Some(finished.roots), Some(pin.hash()));
        Ok(ExpectedSnapshot {
            tenant: tenant.to_string(),
            resource: resource.to_string(),
            sequence: self.sequence,
            pin: hex::encode(pin.hash().0),
            items: self.items.clone(),
        })
    }
}

async fn draft(writer: &SnapshotWriter, part: &Part<'_>) -> Result<ContentDraft> {
    const PIECE: usize = 64 << 10;
    let pieces = |bytes: &[u8]| bytes.chunks(PIECE).map(Bytes::copy_from_slice).collect::<Vec<_>>();
    let mut plain = match part {
        Part::Mime(bytes) => {
            let mut mime = writer.mime();
            for piece in pieces(bytes) {
                mime.push(piece).await?;
            }
            return mime.finish().await?.context("the message cannot be taken apart");
        }
        Part::Content(_) => writer.content(),
        Part::File(_) => writer.file(),
    };
    if let Part::Content(bytes) | Part::File(bytes) = part {
        for piece in pieces(bytes) {
            plain.push(piece).await?;
        }
    }
    Ok(plain.finish().await?)
}

/// Two snapshots of a mailbox with everything that mail has.
async fn first_mailbox(resource: &mut Resource<'_>, snapshots: &mut Vec<ExpectedSnapshot>) -> Result<()> {
    let (file, noise) = (large_file(), Seeded::bytes("attachment", 40_000));
    let inner = message("the inner one", &noise[..12_345]);
    let outer = message("the outer one", &inner);
    let unix = [b"Subject: unix\n\n".as_slice(), &base64_lines(&noise[..9_000], 60, "\n")].concat();
    let read = EntryFlags::IS_READ;

    let writer = resource.writer();
    resource.folder(&writer, "root", "Top of Information Store", "").await?;
    resource.folder(&writer, "inbox", "Inbox", "root").await?;
    resource.folder(&writer, "projects", "Projects / 2026", "inbox").await?;
    resource.folder(&writer, "empty", "Nothing here", "root").await?;
    for n in 0..150 {
        let id = format!("AAMkAGI2-{n:04}");
        let body = format!("Subject: note {n}\r\n\r\nnumber {n} says {}", "hello ".repeat(n));
        let flags = if n % 3 == 0 { read } else { EntryFlags::default() };
        resource.mail(&writer, (&id, "inbox"), flags, &[Part::Mime(body.as_bytes())]).await?;
    }
    let with = read.with(EntryFlags::HAS_ATTACHMENTS);
    let place = |id| (id, "projects");
    resource.mail(&writer, place("AAMk-attached"), with, &[Part::Mime(&message("figures", &noise))]).await?;
    resource.mail(&writer, place("AAMk-nested"), with, &[Part::Mime(&outer)]).await?;
    resource.mail(&writer, place("AAMk-unix"), with, &[Part::Mime(&unix)]).await?;
    resource.mail(&writer, place("AAMk-large"), with, &[Part::Mime(&message("large", &file))]).await?;
    // The same file, not in the message; and a raw part of its own, and an empty one.
    let parts =
        [Part::Mime(b"Subject: files\r\n\r\n"), Part::File(&file), Part::Content(&noise), Part::Content(b"")];
    resource.mail(&writer, place("AAMk-parts"), with, &parts).await?;
    resource.mail(&writer, place("AAMk-draft"), EntryFlags::IS_DRAFT, &[]).await?;
    snapshots.push(resource.finish(writer, 0).await?);

    resource.keys.tenant_keys.enc.insert(2, Key::generate(&Seeded::new("second epoch")));
    let writer = resource.writer();
    let gone = "AAMkAGI2-0007";
    writer.remove_item(&ItemKey(gone.into())).await?;
    resource.items.remove(&hex::encode(gone));
    let again = message("the figures again", &[noise.as_slice(), b"and more"].concat());
    resource.mail(&writer, place("AAMk-again"), with, &[Part::Mime(&again)]).await?;
    resource
        .mail(&writer, ("AAMkAGI2-0011", "inbox"), EntryFlags::STALE, &[Part::Mime(b"Subject: x\r\n\r\n")])
        .await?;
    snapshots.push(resource.finish(writer, 1).await?);
    Ok(())
}

/// A small one: a folder and a message with an attachment that another resource has too.
async fn small_mailbox(resource: &mut Resource<'_>, snapshots: &mut Vec<ExpectedSnapshot>) -> Result<()> {
    let writer = resource.writer();
    resource.folder(&writer, "root", "Top of Information Store", "").await?;
    let noise = Seeded::bytes("attachment", 40_000);
    let mime = message("figures", &noise);
    resource
        .mail(&writer, ("AAMk-attached", "root"), EntryFlags::HAS_ATTACHMENTS, &[Part::Mime(&mime)])
        .await?;
    snapshots.push(resource.finish(writer, 0).await?);
    Ok(())
}

/// Writes the repository, its kit and what is expected of it.
pub async fn write(golden: &Path) -> Result<()> {
    let data = golden.join("node-1");
    let node = open(&data)?;
    let key_file = KeyFile::generate(&Seeded::new("key file"));
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build()?);
    let (mut snapshots, mut kit_tenants) = (Vec::new(), Vec::new());
    let provider = KeyFileProvider::new(key_file.clone());
    for (tenant, resources) in [(TenantId([0xa1; 16]), 2_u8), (TenantId([0xb2; 16]), 1)] {
        let mut tenant_keys = TenantKeys::generate(&Seeded::new(&format!("tenant {tenant}")));
        let mut kit_resources = Vec::new();
        for n in 1..=resources {
            let id = ResourceId([n; 16]);
            let resource_key = ResourceKey::generate(&Seeded::new(&format!("resource {tenant} {n}")));
            let wrapped = provider.wrap_resource_key(tenant, id, &resource_key).await?;
            kit_resources.push(json!({ "resource": id.to_string(), "resource-key": hex::encode(wrapped) }));
            let keys = JobKeys { tenant, resource: id, tenant_keys: tenant_keys.clone(), resource_key };
            let mut resource = Resource {
                node: &node,
                keys,
                store: Arc::default(),
                pool: pool.clone(),
                stored: Default::default(),
                roots: None,
                previous: None,
                sequence: 0,
                items: BTreeMap::new(),
            };
            // What two resources of a tenant share is stored once.
            if (tenant.0[0], n) == (0xa1, 1) {
                first_mailbox(&mut resource, &mut snapshots).await?;
            } else {
                small_mailbox(&mut resource, &mut snapshots).await?;
            }
            tenant_keys = resource.keys.tenant_keys.clone();
        }
        let wrapped = provider.wrap_tenant_keys(tenant, &tenant_keys).await?;
        kit_tenants.push(json!({
            "tenant": tenant.to_string(), "tenant-keys": hex::encode(wrapped), "resources": kit_resources,
        }));
    }
    node.close().await?;
    let temporary = tempfile::tempdir()?;
    key_file.save(&temporary.path().join("key"))?;
    let key_file: serde_json::Value = serde_json::from_slice(&fs::read(temporary.path().join("key"))?)?;
    let kit = json!({ "version": 1, "key-file": key_file, "tenants": kit_tenants });
    fs::write(golden.join("kit.json"), serde_json::to_string_pretty(&kit)? + "\n")?;
    fs::write(golden.join("expected.json"), serde_json::to_string(&Expected { snapshots })? + "\n")?;
    // All of it follows from the segments.
    for derived in ["index.redb", "state.redb", "repair.redb"] {
        fs::remove_file(data.join(derived)).with_context(|| format!("remove {derived}"))?;
    }
    for folder in ["touches", "quarantine"] {
        fs::remove_dir_all(data.join(folder))?;
    }
    Ok(())
}
