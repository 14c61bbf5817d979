//! Manifest trees: copy-on-write, content-addressed, their shape a function of the keys alone.
//!
//! Invariant: the same set of (key, value) pairs has the same root, whatever the order and number of merges that made it.

mod boundary;
mod cursor;
mod diff;
mod merge;
mod node;
mod node_store;

pub(crate) use cursor::Cursor;
pub(crate) use diff::Diff;
pub(crate) use merge::{Edit, Merge};
#[cfg(test)]
pub(crate) use node::Node;
pub(crate) use node::TreeKind;
pub(crate) use node_store::NodeStore;

#[cfg(test)]
mod tests;
