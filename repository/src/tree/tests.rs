//! The trees on their own: shape, cost and difference.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use holdfast_model::{Random, ResourceId, TenantId};
use proptest::prelude::*;

use super::{Cursor, Diff, Edit, Merge, NodeStore, TreeKind};
use crate::{
    fetch::Fetcher,
    keys::{JobKeys, ResourceKey, TenantKeys},
    memory_store::MemoryStore,
    seal::Sealer,
    secret::ContentHash,
    snapshot_writer::WriterOptions,
    upload::Uploader,
};

struct Fixed;

impl Random for Fixed {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.fill(7);
    }
}

struct Tree {
    store: Arc<MemoryStore>,
    nodes: Arc<NodeStore>,
    uploader: Uploader,
    root: Option<ContentHash>,
}

impl Tree {
    fn new() -> Self {
        let keys = JobKeys {
            tenant: TenantId([1; 16]),
            resource: ResourceId([2; 16]),
            tenant_keys: TenantKeys::generate(&Fixed),
            resource_key: ResourceKey::generate(&Fixed),
        };
        let (store, sealer) = (Arc::new(MemoryStore::new()), Arc::new(Sealer::new(&keys)));
        let fetcher = Fetcher::new(store.clone(), sealer.clone());
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap());
        let uploader = Uploader::start(store.clone(), sealer, pool, WriterOptions::default());
        let nodes = Arc::new(NodeStore::new(TreeKind::Children, fetcher));
        Self { store, nodes, uploader, root: None }
    }

    async fn merge(&mut self, edits: BTreeMap<Vec<u8>, Option<Vec<u8>>>) -> usize {
        let edits: Vec<Edit> =
            edits.into_iter().map(|(key, value)| (key.into(), value.map(Bytes::from))).collect();
        let mut changed = 0;
        let mut count = |_: &Bytes, before: Option<&Bytes>, after: Option<&Bytes>| {
            assert_ne!(before, after);
            changed += 1;
            Ok(())
        };
        let merge = Merge { nodes: &self.nodes, uploader: &self.uploader };
        self.root = merge.apply(self.root, edits, &mut count).await.unwrap();
        self.uploader.flush().await.unwrap();
        changed
    }

    async fn entries(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut all = BTreeMap::new();
        let Some(root) = self.root else { return all };
        let mut cursor = Cursor::seek(&self.nodes, root, 0, &[], 4).await.unwrap().unwrap();
        loop {
            all.extend(cursor.current.entries.iter().map(|(key, value)| (key.to_vec(), value.to_vec())));
            if !cursor.next().await.unwrap() {
                return all;
            }
        }
    }
}

fn key(n: u32) -> Vec<u8> {
    // Spread, so that edits fall everywhere.
    n.wrapping_mul(0x9E37_79B1).to_be_bytes().to_vec()
}

async fn rebuilt(entries: &BTreeMap<Vec<u8>, Vec<u8>>) -> Option<ContentHash> {
    let mut tree = Tree::new();
    tree.merge(entries.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect()).await;
    tree.root
}

fn with_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(work)
}

async fn difference(
    tree: &Tree,
    from: Option<ContentHash>,
    to: Option<ContentHash>,
) -> Vec<super::diff::Difference> {
    let mut diff = Diff::start((tree.nodes.clone(), from), (tree.nodes.clone(), to)).await.unwrap();
    let mut all = Vec::new();
    while let Some(difference) = diff.next().await.unwrap() {
        all.push(difference);
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Batches of edits: (key, value or removal), over a small key space so that they meet.
    #[test]
    fn edits_in_any_batches_make_the_tree_that_a_rebuild_makes(
        first in 0..3000u32,
        batches in prop::collection::vec(
            prop::collection::vec((0..4000u32, prop::option::weighted(0.6, any::<u8>())), 0..300), 0..6),
        clear: bool,
    ) {
        with_runtime(async {
            let mut tree = Tree::new();
            let mut model: BTreeMap<Vec<u8>, Vec<u8>> = (0..first).map(|n| (key(n), vec![1])).collect();
            tree.merge(model.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect()).await;
            for batch in batches {
                let edits: BTreeMap<_, _> =
                    batch.into_iter().map(|(n, value)| (key(n), value.map(|value| vec![value; 9]))).collect();
                let before = (model.clone(), tree.root);
                let mut expected = BTreeMap::new();
                for (key, value) in &edits {
                    let old = model.get(key).cloned();
                    match value {
                        Some(value) => model.insert(key.clone(), value.clone()),
                        None => model.remove(key),
                    };
                    if old != *value {
                        expected.insert(key.clone(), (old, value.clone()));
                    }
                }
                let changed = tree.merge(edits).await;
                prop_assert_eq!(changed, expected.len());
                prop_assert_eq!(tree.root, rebuilt(&model).await);
                let found: BTreeMap<_, _> = difference(&tree, before.1, tree.root).await.into_iter()
                    .map(|(key, a, b)| (key.to_vec(), (a.map(|a| a.to_vec()), b.map(|b| b.to_vec())))).collect();
                prop_assert_eq!(found, expected);
            }
            prop_assert_eq!(tree.entries().await, model.clone());
            if clear {
                tree.merge(model.into_keys().map(|key| (key, None)).collect()).await;
                prop_assert_eq!(tree.root, None);
            }
            Ok(())
        })?;
    }
}

#[test]
fn a_hundred_changes_of_twenty_thousand_write_and_compare_a_few_percent() {
    with_runtime(async {
        let mut tree = Tree::new();
        tree.merge((0..20_000).map(|n| (key(n), Some(vec![1; 100]))).collect()).await;
        let (before, whole, all) = (tree.root, tree.store.stored_bytes(), tree.store.n_records());

        // Near each other, as new mail is.
        let sorted: Vec<_> = tree.entries().await.into_keys().skip(9_000).take(100).collect();
        tree.merge(sorted.into_iter().map(|key| (key, Some(vec![2; 100]))).collect()).await;
        let local = tree.store.stored_bytes() - whole;
        assert!(local * 25 < whole, "{local} of {whole} bytes written for 100 neighbours");

        let spread = tree.store.n_records();
        tree.merge((0..100).map(|n| (key(n * 200), Some(vec![3; 100]))).collect()).await;
        let spread = tree.store.n_records() - spread;
        assert!(spread * 3 < all, "{spread} of {all} nodes written for 100 changes everywhere");

        tree.nodes = Arc::new(NodeStore::new(TreeKind::Children, Tree::new_fetcher(&tree)));
        let gets = tree.store.n_gets();
        assert_eq!(difference(&tree, before, before).await.len(), 0);
        assert!(tree.store.n_gets() - gets <= 2, "equal trees are equal at the root");
        let found = difference(&tree, before, tree.root).await.len();
        assert!((190..=200).contains(&found), "{found}");
        let gets = tree.store.n_gets() - gets;
        assert!(gets < all as u64, "{gets} of {all} nodes read");
    });
}

#[test]
fn nodes_are_near_their_target_and_never_above_their_limit() {
    with_runtime(async {
        let mut tree = Tree::new();
        tree.merge((0..50_000).map(|n| (key(n), Some(vec![1]))).collect()).await;
        let mut cursor = Cursor::seek(&tree.nodes, tree.root.unwrap(), 0, &[], 16).await.unwrap().unwrap();
        let (mut n_nodes, mut largest) = (1, cursor.current.entries.len());
        while cursor.next().await.unwrap() {
            n_nodes += 1;
            largest = largest.max(cursor.current.entries.len());
        }
        let mean = 50_000 / n_nodes;
        assert!((36..=48).contains(&mean), "mean {mean}");
        assert!(largest as u64 <= super::boundary::MAX_ENTRIES);
    });
}

impl Tree {
    fn new_fetcher(tree: &Self) -> Fetcher {
        Fetcher::new(tree.store.clone(), tree.uploader.sealer().clone())
    }
}
