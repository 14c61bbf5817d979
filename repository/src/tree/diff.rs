//! Compares two trees, walking only what differs.
//!
//! Two walks go side by side. Equal subtrees are skipped whole; otherwise the higher node is opened, and of two on the same
//! level the one that ends first. A shared subtree that the walks reach at different moments costs one node to find again.

use std::{cmp::Ordering, sync::Arc};

use bytes::Bytes;

use crate::{
    error::Error,
    secret::ContentHash,
    tree::{
        node::{Node, hash_of},
        node_store::NodeStore,
    },
};

/// A key whose value differs: before and after.
pub(crate) type Difference = (Bytes, Option<Bytes>, Option<Bytes>);

pub(crate) struct Diff {
    before: Walk,
    after: Walk,
}

struct Walk {
    nodes: Arc<NodeStore>,
    path: Vec<(Arc<Node>, usize)>,
}

/// What a walk stands before: an entry at level 0, a node above.
struct Front {
    level: u8,
    key: Bytes,
    value: Bytes,
}

impl Diff {
    pub(crate) async fn start(
        before: (Arc<NodeStore>, Option<ContentHash>),
        after: (Arc<NodeStore>, Option<ContentHash>),
    ) -> Result<Self, Error> {
        Ok(Self {
            before: Walk::start(before.0, before.1).await?,
            after: Walk::start(after.0, after.1).await?,
        })
    }

    /// The next difference, in key order.
    pub(crate) async fn next(&mut self) -> Result<Option<Difference>, Error> {
        loop {
            let (before, after) = (self.before.front(), self.after.front());
            let (before, after) = match (before, after) {
                (None, None) => return Ok(None),
                (Some(front), None) if front.level > 0 => {
                    self.before.open(&front).await?;
                    continue;
                }
                (None, Some(front)) if front.level > 0 => {
                    self.after.open(&front).await?;
                    continue;
                }
                (Some(front), None) => {
                    self.before.skip();
                    return Ok(Some((front.key, Some(front.value), None)));
                }
                (None, Some(front)) => {
                    self.after.skip();
                    return Ok(Some((front.key, None, Some(front.value))));
                }
                (Some(before), Some(after)) => (before, after),
            };
            if before.level == after.level && before.key == after.key && before.value == after.value {
                self.before.skip();
                self.after.skip();
            } else if before.level == 0 && after.level == 0 {
                return Ok(Some(self.differing_entries(before, after)));
            } else {
                let order = before.level.cmp(&after.level).reverse().then_with(|| before.key.cmp(&after.key));
                if order != Ordering::Greater {
                    self.before.open(&before).await?;
                }
                if order != Ordering::Less {
                    self.after.open(&after).await?;
                }
            }
        }
    }

    fn differing_entries(&mut self, before: Front, after: Front) -> Difference {
        match before.key.cmp(&after.key) {
            Ordering::Less => {
                self.before.skip();
                (before.key, Some(before.value), None)
            }
            Ordering::Greater => {
                self.after.skip();
                (after.key, None, Some(after.value))
            }
            Ordering::Equal => {
                self.before.skip();
                self.after.skip();
                (before.key, Some(before.value), Some(after.value))
            }
        }
    }
}

impl Walk {
    /// Stands before the root, as before the only child of a node above it.
    async fn start(nodes: Arc<NodeStore>, root: Option<ContentHash>) -> Result<Self, Error> {
        let mut path = Vec::new();
        if let Some(h) = root {
            let node = nodes.load(h).await?;
            let entries = vec![(node.last_key().clone(), Bytes::copy_from_slice(h.as_bytes()))];
            path.push((Arc::new(Node { level: node.level.saturating_add(1), entries }), 0));
        }
        Ok(Self { nodes, path })
    }

    fn front(&self) -> Option<Front> {
        let (node, index) = self.path.last()?;
        let (key, value) = node.entries.get(*index)?;
        Some(Front { level: node.level, key: key.clone(), value: value.clone() })
    }

    fn skip(&mut self) {
        while let Some((node, index)) = self.path.last_mut() {
            *index += 1;
            if *index < node.entries.len() {
                return;
            }
            self.path.pop();
        }
    }

    /// Goes down into the node it stands before.
    async fn open(&mut self, front: &Front) -> Result<(), Error> {
        let node = self.nodes.load(hash_of(&front.value)).await?;
        if node.level.checked_add(1) != Some(front.level) {
            return Err(Error::Malformed {
                what: "manifest node",
                reason: "its level is not below its parent's",
            });
        }
        self.path.push((node, 0));
        Ok(())
    }
}
