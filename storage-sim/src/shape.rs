//! How many machines a world has and where they stand, and the layouts of its pool.
//!
//! Layouts take long to compute and there are not many of them: they are kept for all worlds of a process. What is kept depends
//! on nothing but the question, so that it does not matter which world asked first.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use holdfast_model::{
    Layout, LayoutChange, LayoutError, LayoutNode, LayoutVersion, NodeId, PoolId, Replication, SiteName,
};

use crate::{
    SimRandom,
    authority::POOL,
    moves::Operator,
    net::{Place, address_of},
};

/// The site of the machine that may become a witness.
pub const WITNESS_SITE: &str = "w";
/// The capacity of every node.
const CAPACITY_BYTES: u64 = 1 << 30;
/// Changed layouts that are kept; a full cache starts again.
const CHANGED_KEPT: usize = 1_024;

/// The machines of a world.
#[derive(Debug)]
pub struct Shape {
    /// The sites of the nodes of the first layout; their ids count from 1.
    pub sites: &'static [&'static str],
    /// Those of the machines that may join; their ids go on.
    pub spares: &'static [&'static str],
    replication: Replication,
}

const fn shape(
    sites: &'static [&'static str],
    spares: &'static [&'static str],
    (copies, ack_sites): (u8, u8),
) -> Shape {
    Shape { sites, spares, replication: Replication { copies, ack_sites } }
}

/// The last one is of worlds in which owners are replaced amid commits: most owners of every partition have a successor.
const SHAPES: [Shape; 6] = [
    shape(&["a", "a", "b"], &["b", "c", WITNESS_SITE], (2, 2)),
    shape(&["a", "b", "c"], &["a", "d"], (3, 2)),
    shape(&["a", "a", "b", "b"], &["a", "c", WITNESS_SITE], (2, 2)),
    shape(&["a", "a", "b", "b", "c"], &["c", "d"], (3, 2)),
    shape(&["a", "a", "b", "c"], &["b", "d", WITNESS_SITE], (2, 2)),
    shape(&["a", "b", "c"], &["b", "c"], (3, 2)),
];
const AMID_COMMITS: usize = SHAPES.len() - 1;
static FIRST: [OnceLock<Arc<Layout>>; SHAPES.len()] = [const { OnceLock::new() }; SHAPES.len()];

static CHANGED: Mutex<BTreeMap<String, Arc<Layout>>> = Mutex::new(BTreeMap::new());

/// Draws a shape, and the layout it begins with.
pub fn draw(random: &SimRandom, operator: Operator) -> (&'static Shape, Arc<Layout>) {
    let drawn = usize::try_from(random.below(AMID_COMMITS as u64)).expect("a few shapes");
    let index = if operator == Operator::AmidCommits { AMID_COMMITS } else { drawn };
    let shape = &SHAPES[index];
    (shape, FIRST[index].get_or_init(|| Arc::new(first(shape))).clone())
}

fn first(shape: &Shape) -> Layout {
    let nodes = shape.sites.iter().zip(1..).map(|(site, id)| node(NodeId(id), &SiteName::from(*site)));
    let pool = PoolId(POOL.to_owned());
    Layout::compute(LayoutVersion(1), pool, shape.replication, nodes.collect())
        .expect("every shape has a layout")
}

/// A machine as a layout knows it.
pub fn node(id: NodeId, site: &SiteName) -> LayoutNode {
    let place = Place(u32::try_from(id.0).expect("a few nodes"));
    LayoutNode::new(id, site.clone(), address_of(place), CAPACITY_BYTES)
}

/// The layout after a change, as [`Layout::changed`] makes it.
pub fn changed(from: &Layout, change: LayoutChange) -> Result<Layout, LayoutError> {
    let folders: BTreeMap<NodeId, _> =
        from.nodes.iter().chain(&change.nodes).map(|node| (node.id, node.folder)).collect();
    let version = from.version.next();
    // Numbers and folders decide nothing.
    let mut before = from.clone();
    (before.version, before.moved_in) = (LayoutVersion(0), LayoutVersion(0));
    let mut change = change;
    before.nodes.iter_mut().chain(&mut change.nodes).for_each(|node| node.folder = None);
    let question = question(&before, &change);
    let known = CHANGED.lock().unwrap_or_else(PoisonError::into_inner).get(&question).cloned();
    let computed = match known {
        Some(known) => known,
        None => {
            let computed = Arc::new(before.changed(LayoutVersion(1), change)?);
            let mut all = CHANGED.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() >= CHANGED_KEPT {
                all.clear();
            }
            all.insert(question, computed.clone());
            computed
        }
    };
    let mut next = Layout::clone(&computed);
    next.version = version;
    next.moved_in = if next.is_moving() { version } else { from.moved_in };
    for node in &mut next.nodes {
        node.folder = folders.get(&node.id).copied().flatten();
    }
    Ok(next)
}

fn question(before: &Layout, change: &LayoutChange) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |row: &[u16]| {
        hasher.update(&(row.len() as u64).to_le_bytes());
        for index in row {
            hasher.update(&index.to_le_bytes());
        }
    };
    before.owners.iter().for_each(|row| add(row));
    for (partition, row) in &before.previous {
        add(&[partition.0]);
        add(row);
    }
    let rest = format!("{:?} {:?} {:?} {change:?}", before.replication, before.nodes, before.handover);
    hasher.update(rest.as_bytes());
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use holdfast_model::DataFolderId;

    use super::*;

    #[test]
    fn a_kept_layout_is_the_one_that_would_be_computed() {
        let mut from = first(&SHAPES[0]);
        from.version = LayoutVersion(7);
        from.nodes[0].folder = Some(DataFolderId([3; 16]));
        let change = || LayoutChange {
            nodes: from.nodes[..2].iter().cloned().chain([node(NodeId(5), &"c".into())]).collect(),
            replication: from.replication,
            lost: [].into(),
        };
        let computed = from.changed(LayoutVersion(8), change()).unwrap();
        assert!(computed.is_moving());
        assert_eq!(changed(&from, change()), Ok(computed.clone()));
        assert_eq!(changed(&from, change()), Ok(computed));
    }
}
