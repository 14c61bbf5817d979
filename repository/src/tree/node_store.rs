//! Reads nodes of one tree through a bounded cache.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    error::Error,
    fetch::Fetcher,
    secret::ContentHash,
    tree::node::{Node, TreeKind},
};

/// Nodes of one generation of the cache; there are two. At 12 KiB a node: 12 MiB.
const CACHE_NODES: usize = 512;
/// Nodes asked for at one time.
const FETCH_NODES: usize = 256;

pub(crate) struct NodeStore {
    pub(crate) kind: TreeKind,
    fetcher: Fetcher,
    cache: Mutex<Generations>,
}

/// Least recently used, roughly: what was not used during a whole generation is dropped with it.
#[derive(Default)]
struct Generations {
    young: HashMap<ContentHash, Arc<Node>>,
    old: HashMap<ContentHash, Arc<Node>>,
}

impl Generations {
    fn get(&mut self, h: ContentHash) -> Option<Arc<Node>> {
        if let Some(node) = self.young.get(&h) {
            return Some(node.clone());
        }
        let node = self.old.remove(&h)?;
        self.insert(h, node.clone());
        Some(node)
    }

    fn insert(&mut self, h: ContentHash, node: Arc<Node>) {
        if self.young.len() >= CACHE_NODES {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(h, node);
    }
}

impl NodeStore {
    pub(crate) fn new(kind: TreeKind, fetcher: Fetcher) -> Self {
        Self { kind, fetcher, cache: Mutex::default() }
    }

    pub(crate) async fn load(&self, h: ContentHash) -> Result<Arc<Node>, Error> {
        match self.cached(h) {
            Some(node) => Ok(node),
            None => {
                let bytes = self.fetcher.fetch_one(h).await?;
                let node = Arc::new(Node::decode(&bytes, self.kind)?);
                self.insert(h, node.clone());
                Ok(node)
            }
        }
    }

    /// Loads many at one time into the cache, at most half of what it holds.
    pub(crate) async fn warm(&self, hashes: impl IntoIterator<Item = ContentHash>) -> Result<(), Error> {
        let missing: Vec<_> =
            hashes.into_iter().take(FETCH_NODES).filter(|h| self.cached(*h).is_none()).collect();
        for (bytes, h) in self.fetcher.fetch(&missing).await?.into_iter().zip(&missing) {
            self.insert(*h, Arc::new(Node::decode(&bytes, self.kind)?));
        }
        Ok(())
    }

    /// Loads the leaves that these ascending keys lead to, one round trip per level.
    pub(crate) async fn warm_paths(&self, root: ContentHash, keys: &[&[u8]]) -> Result<(), Error> {
        let mut frontier = vec![(root, keys)];
        while !frontier.is_empty() {
            self.warm(frontier.iter().map(|(h, _)| *h)).await?;
            let mut below = Vec::new();
            for (h, mut keys) in frontier {
                let Some(node) = self.cached(h).filter(|node| node.level > 0) else { continue };
                while let Some(first) = keys.first() {
                    let child = node.route(first);
                    let (here, rest) = keys.split_at(keys.partition_point(|key| node.route(key) == child));
                    below.push((node.child(child), here));
                    keys = rest;
                }
            }
            frontier = below;
        }
        Ok(())
    }

    pub(crate) fn cached(&self, h: ContentHash) -> Option<Arc<Node>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(h)
    }

    pub(crate) fn insert(&self, h: ContentHash, node: Arc<Node>) {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).insert(h, node);
    }
}
