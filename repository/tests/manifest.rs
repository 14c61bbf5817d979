//! What the two trees of a snapshot cost: what is written for some changes, what is read to find them, and memory.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use common::{Seeded, job_keys, noise, pool};
use futures::TryStreamExt as _;
use holdfast_model::Random as _;
use holdfast_record::{SealedRecord, short_ref};
use holdfast_repository::{
    ContentSource, EntryFlags, EntryKind, FolderKey, ItemEntry, ItemFields, ItemKey, JobKeys, MemoryStore,
    Sealer, SnapshotWriter, TreeReader, TreeRoots, WriterOptions, diff,
};

const ITEMS: u64 = 200_000;
const CHANGES: u64 = 100;
const META_BYTES: usize = 300;

/// How ids follow the time at which items came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// Later ids are larger, as Exchange gives them.
    TimeLocal,
    /// None.
    Random,
}

impl Keys {
    /// The id of the `n`th item.
    fn key(self, n: u64) -> ItemKey {
        let id = match self {
            Self::TimeLocal => format!("AAMkAGI2TG93AAA-{n:016x}"),
            Self::Random => {
                let mut spread = [0; 8];
                Seeded::new(n).fill(&mut spread);
                format!("AAMkAGI2TG93AAA-{:016x}", u64::from_be_bytes(spread))
            }
        };
        ItemKey(id.into_bytes())
    }
}

/// A message of one of twenty folders, newest first in its folder.
fn fields(n: u64, folder: u64, change: u64) -> ItemFields {
    ItemFields {
        kind: EntryKind::MailMessage,
        flags: EntryFlags::IS_READ,
        // A hash: it does not compress.
        change: *noise(n * 10 + change, 16).first_chunk().unwrap(),
        size: n,
        parent: FolderKey([u8::try_from(folder % 20).unwrap(); 16]),
        sort: u64::MAX - n,
    }
}

struct Bench {
    store: Arc<MemoryStore>,
    keys: Arc<JobKeys>,
}

impl Bench {
    fn new() -> Self {
        Self { store: Arc::new(MemoryStore::new()), keys: Arc::new(job_keys(1)) }
    }

    fn writer(&self, base: Option<TreeRoots>) -> SnapshotWriter {
        let options = WriterOptions { zstd_level: 1, ..WriterOptions::default() };
        SnapshotWriter::create(self.store.clone(), self.keys.clone(), pool(), options, base)
    }

    fn reader(&self, roots: TreeRoots) -> TreeReader {
        TreeReader::new(self.store.clone(), &self.keys, roots)
    }

    async fn first(&self, keys: Keys) -> TreeRoots {
        let writer = self.writer(None);
        for n in 0..ITEMS {
            put(&writer, keys, n, (n, 1)).await;
            if n % 50_000 == 49_999 {
                writer.merge().await.unwrap();
            }
        }
        writer.merge().await.unwrap()
    }

    fn nodes(&self) -> Nodes {
        self.store.records().iter().filter(|record| record.header.kind.is_tree()).collect()
    }

    /// Those that both trees of these roots consist of: merges on the way leave others behind.
    async fn nodes_of(&self, roots: TreeRoots) -> Nodes {
        let by_ref: HashMap<[u8; 16], SealedRecord> =
            self.store.records().into_iter().map(|record| (short_ref(&record.header.id), record)).collect();
        let sealer = Sealer::new(&self.keys);
        let roots = [roots.items, roots.children].into_iter().flatten();
        let mut open: Vec<[u8; 16]> = roots.map(|h| short_ref(&sealer.id(h))).collect();
        let mut reached = BTreeSet::new();
        while let Some(short) = open.pop() {
            if by_ref[&short].header.kind.is_tree() && reached.insert(short) {
                open.extend(&by_ref[&short].refs);
            }
        }
        reached.iter().map(|short| &by_ref[short]).collect()
    }
}

/// What nodes take: sealed with header and references, and before they are compressed and sealed.
#[derive(Debug, Clone, Copy, Default)]
struct Nodes {
    count: u64,
    sealed: u64,
    plain: u64,
}

impl<'a> FromIterator<&'a SealedRecord> for Nodes {
    fn from_iter<T: IntoIterator<Item = &'a SealedRecord>>(records: T) -> Self {
        records.into_iter().fold(Self::default(), |sum, record| Self {
            count: sum.count + 1,
            sealed: sum.sealed + record.encoded_len() as u64,
            plain: sum.plain + u64::from(record.header.pt_len),
        })
    }
}

async fn put(writer: &SnapshotWriter, keys: Keys, n: u64, (folder, change): (u64, u64)) {
    let fields = fields(n, folder, change);
    // Properties as long as those of small messages, so that a bundle holds as many.
    let meta = noise(n, META_BYTES).into();
    writer.put_item(keys.key(n), fields, meta, ContentSource::None).await.unwrap();
}

/// New, edited, moved and deleted in equal parts. Which: any, or where time and id go together, among the newest hundredth.
async fn change(writer: &SnapshotWriter, keys: Keys) {
    let which = |n: u64| match keys {
        Keys::TimeLocal => ITEMS - ITEMS / 100 + n * (ITEMS / 100) / CHANGES,
        Keys::Random => n * ITEMS / CHANGES,
    };
    for n in 0..CHANGES {
        let one = which(n);
        match n % 4 {
            0 => put(writer, keys, ITEMS + n, (n, 1)).await,
            1 => put(writer, keys, one, (one, 2)).await,
            2 => assert!(writer.update_fields(&keys.key(one), fields(one, one + 1, 1)).await.unwrap()),
            _ => writer.remove_item(&keys.key(one)).await.unwrap(),
        }
    }
}

async fn all(reader: &TreeReader) -> BTreeMap<ItemKey, ItemEntry> {
    reader.items().try_collect().await.unwrap()
}

async fn a_hundred_changes(keys: Keys, at_most_percent: u64) {
    let bench = Bench::new();
    let before = bench.first(keys).await;
    let whole = bench.nodes_of(before).await;
    let stored = bench.nodes();

    let writer = bench.writer(Some(before));
    change(&writer, keys).await;
    let after = writer.merge().await.unwrap();
    let now = bench.nodes();
    let written = Nodes {
        count: now.count - stored.count,
        sealed: now.sealed - stored.sealed,
        plain: now.plain - stored.plain,
    };

    let (old, new) = (bench.reader(before), bench.reader(after));
    let gets = bench.store.n_gets();
    let changes: Vec<_> = diff(&old, &new).try_collect().await.unwrap();
    let read = bench.store.n_gets() - gets;
    let hundredths = |part: u64, of: u64| part * 10_000 / of;
    let shares = [(written.count, whole.count), (written.sealed, whole.sealed), (written.plain, whole.plain)]
        .map(|(part, of)| hundredths(part, of));
    println!(
        "{keys:?}: both trees {whole:?}; {CHANGES} changes wrote {written:?}: {shares:?} hundredths of a percent; \
         diff read {read} nodes"
    );
    // Of what the nodes hold; sealed, every node has a header and references beside it, which weigh more in few nodes.
    assert!(shares[2] <= at_most_percent * 100, "{shares:?}");
    assert!(shares[1] <= at_most_percent * 125, "{shares:?}");
    assert_eq!(changes.len() as u64, CHANGES);
    // The items trees: what was written of the new one, as much of the old one, and where the walks part.
    assert!(read <= 2 * written.count, "{read} nodes read, {written:?} written");

    // What the difference says, applied to the old snapshot, is the new one.
    let mut applied = all(&old).await;
    for change in changes {
        assert_eq!(applied.get(&change.key).copied(), change.before);
        match change.after {
            Some(entry) => _ = applied.insert(change.key, entry),
            None => _ = applied.remove(&change.key),
        }
    }
    assert!(applied == all(&new).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_changes_with_time_local_keys_write_at_most_a_percent_of_both_trees() {
    a_hundred_changes(Keys::TimeLocal, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_changes_with_random_keys_write_at_most_four_percent_of_both_trees() {
    a_hundred_changes(Keys::Random, 4).await;
}
