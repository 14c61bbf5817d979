//! Walks the nodes of one level of a tree in key order.

use std::sync::Arc;

use crate::{
    error::Error,
    secret::ContentHash,
    tree::{node::Node, node_store::NodeStore},
};

pub(crate) struct Cursor {
    nodes: Arc<NodeStore>,
    level: u8,
    /// Siblings loaded at one time.
    read_ahead: usize,
    /// From the root down to the parent of the current node, with the index taken.
    path: Vec<(Arc<Node>, usize)>,
    pub(crate) current: Arc<Node>,
    pub(crate) current_hash: ContentHash,
}

impl Cursor {
    /// The node of a level in which a key is or would be. Nothing where the tree is not that high.
    pub(crate) async fn seek(
        nodes: &Arc<NodeStore>,
        root: ContentHash,
        level: u8,
        key: &[u8],
        read_ahead: usize,
    ) -> Result<Option<Self>, Error> {
        let current = nodes.load(root).await?;
        if current.level < level {
            return Ok(None);
        }
        let nodes = nodes.clone();
        let mut cursor = Self { nodes, level, read_ahead, path: Vec::new(), current, current_hash: root };
        while cursor.current.level > level {
            let index = cursor.current.route(key);
            cursor.descend(index).await?;
        }
        Ok(Some(cursor))
    }

    /// Goes to the next node of the level; `false` at the end.
    pub(crate) async fn next(&mut self) -> Result<bool, Error> {
        while let Some((parent, index)) = self.path.pop() {
            if index + 1 < parent.entries.len() {
                self.current = parent;
                self.descend(index + 1).await?;
                while self.current.level > self.level {
                    self.descend(0).await?;
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether no node follows.
    pub(crate) fn is_last(&self) -> bool {
        self.path.iter().all(|(parent, index)| index + 1 == parent.entries.len())
    }

    async fn descend(&mut self, index: usize) -> Result<(), Error> {
        let parent = self.current.clone();
        let h = parent.child(index);
        if self.read_ahead > 1 && self.nodes.cached(h).is_none() {
            let until = (index + self.read_ahead).min(parent.entries.len());
            self.nodes.warm((index..until).map(|sibling| parent.child(sibling))).await?;
        }
        let child = self.nodes.load(h).await?;
        if child.level.checked_add(1) != Some(parent.level) {
            return Err(Error::Malformed {
                what: "manifest node",
                reason: "its level is not below its parent's",
            });
        }
        self.path.push((parent, index));
        self.current = child;
        self.current_hash = h;
        Ok(())
    }
}
