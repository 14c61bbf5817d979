//! What recipes save: in mailboxes alone, and beside drives that hold some of the same files.
//!
//! Everything is generated from fixed seeds, so the figures are the same in every run: `cargo nextest run … --no-capture`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{Seeded, job_keys, mime, noise, pool, prose};
use holdfast_model::{Random as _, ResourceId};
use holdfast_repository::{
    ContentSource, EntryFlags, EntryKind, FolderKey, ItemFields, ItemKey, MemoryStore, ResourceKey,
    SnapshotWriter, WriterOptions,
};

const MAILBOXES: u64 = 8;
/// Messages of a mailbox.
const MESSAGES: u64 = 60;
/// Files in drives.
const FILES: u64 = 90;
/// Of every ten messages, so many have an attachment.
const WITH_ATTACHMENT: u64 = 4;
/// Of every ten attachments, so many are files of the drives, sent around.
const OF_DRIVES: u64 = 4;
/// Every message was sent within the tenant: it is in the mailbox of its sender and of one recipient, with other headers.
const COPIES: u64 = 2;

/// A document: pictures and office files do not compress, tables and text do.
fn file(n: u64) -> Vec<u8> {
    let len = [12_000, 35_000, 90_000, 250_000, 700_000, 2_500_000][usize::try_from(n % 6).unwrap()];
    let len = len + usize::try_from(n * 7_919 % 9_000).unwrap();
    if n % 5 == 4 { prose(n, len) } else { noise(n, len) }
}

fn message(mailbox: u64, n: u64) -> Vec<u8> {
    // The mailboxes in pairs have the same messages, as whoever writes to each other has.
    let (number, copy) = (mailbox / COPIES * MESSAGES + n, mailbox % COPIES);
    let mut draw = [0; 24];
    Seeded::new(1_000_000 + number).fill(&mut draw);
    let draw = |at: usize| u64::from_le_bytes(*draw[at * 8..].first_chunk().unwrap());
    let head = format!(
        "Message-ID: <{number:08}@contoso.com>\r\nX-Copy: {copy} {:x}\r\nDate: Tue, 1 Sep 2026 10:00:{:02} +0000\r\n",
        number * 7_919 + copy,
        number % 60
    );
    let text = prose(2_000_000 + number, 3_000 + usize::try_from(draw(0) % 12_000).unwrap());
    let body = [head.as_bytes(), &text].concat();
    if draw(1) % 10 >= WITH_ATTACHMENT {
        return body;
    }
    let is_of_drives = draw(2) % 10 < OF_DRIVES;
    let attachment = file(if is_of_drives { draw(2) / 10 % FILES } else { 5_000_000 + number });
    [&body[..], &mime(&attachment)].concat()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    Raw,
    Recipes,
}

struct Tenant {
    store: Arc<MemoryStore>,
    pool: Arc<rayon::ThreadPool>,
}

impl Tenant {
    fn new() -> Self {
        Self { store: Arc::new(MemoryStore::new()), pool: pool() }
    }

    fn writer(&self, resource: u8) -> SnapshotWriter {
        let mut keys = job_keys(1);
        keys.resource = ResourceId([resource; 16]);
        keys.resource_key = ResourceKey::generate(&Seeded::new(u64::from(resource)));
        let options = WriterOptions::default();
        SnapshotWriter::create(self.store.clone(), Arc::new(keys), self.pool.clone(), options, None)
    }

    async fn drives(&self) -> u64 {
        let writer = self.writer(200);
        let mut bytes = 0;
        for n in 0..FILES {
            let content = file(n);
            bytes += content.len() as u64;
            let mut out = writer.file();
            out.push(content.into()).await.unwrap();
            put(&writer, n, ContentSource::New(vec![out.finish().await.unwrap()])).await;
        }
        writer.merge().await.unwrap();
        bytes
    }

    async fn mailboxes(&self, how: Store) -> u64 {
        let mut bytes = 0;
        for mailbox in 0..MAILBOXES {
            let writer = self.writer(u8::try_from(mailbox).unwrap());
            for n in 0..MESSAGES {
                let message = Bytes::from(message(mailbox, n));
                bytes += message.len() as u64;
                let draft = if how == Store::Raw {
                    let mut out = writer.content();
                    out.push(message).await.unwrap();
                    out.finish().await.unwrap()
                } else {
                    let mut out = writer.mime();
                    out.push(message).await.unwrap();
                    out.finish().await.unwrap().expect("a recipe makes its message")
                };
                put(&writer, n, ContentSource::New(vec![draft])).await;
            }
            writer.merge().await.unwrap();
        }
        bytes
    }
}

async fn put(writer: &SnapshotWriter, n: u64, contents: ContentSource) {
    let fields = ItemFields {
        kind: EntryKind::MailMessage,
        flags: EntryFlags::default(),
        change: [0; 16],
        size: n,
        parent: FolderKey([1; 16]),
        sort: n,
    };
    writer.put_item(ItemKey(n.to_be_bytes().to_vec()), fields, "meta".into(), contents).await.unwrap();
}

/// Percent of `before` that is not in `after`.
fn saved(before: u64, after: u64) -> u64 {
    100 - after * 100 / before
}

#[tokio::test(flavor = "multi_thread")]
async fn recipes_save_a_large_part_of_a_tenants_mail_and_more_beside_its_files() {
    let (raw, recipes) = (Tenant::new(), Tenant::new());
    let start = tokio::time::Instant::now();
    let mail = raw.mailboxes(Store::Raw).await;
    let raw_took = start.elapsed();
    assert_eq!(recipes.mailboxes(Store::Recipes).await, mail);
    let recipes_took = start.elapsed() - raw_took;
    let alone = (raw.store.stored_bytes(), recipes.store.stored_bytes());

    let (raw_beside, recipes_beside) = (Tenant::new(), Tenant::new());
    let files = raw_beside.drives().await;
    recipes_beside.drives().await;
    let drives = raw_beside.store.stored_bytes();
    raw_beside.mailboxes(Store::Raw).await;
    recipes_beside.mailboxes(Store::Recipes).await;
    let beside = (raw_beside.store.stored_bytes() - drives, recipes_beside.store.stored_bytes() - drives);

    println!(
        "{} messages, {mail} bytes; {FILES} files, {files} bytes, stored in {drives}",
        MAILBOXES * MESSAGES
    );
    println!("mail alone: raw {}, recipes {}: {} % saved", alone.0, alone.1, saved(alone.0, alone.1));
    println!(
        "mail beside files: raw {}, recipes {}: {} % saved",
        beside.0,
        beside.1,
        saved(beside.0, beside.1)
    );
    println!("time for the mail: raw {raw_took:?}, recipes {recipes_took:?}");
    assert!(saved(alone.0, alone.1) >= 20, "mail alone: {alone:?}");
    assert!(saved(beside.0, beside.1) >= 35, "mail beside files: {beside:?}");
}
