use holdfast_model::{Layout, LayoutVersion, PoolId};
use holdfast_runtime::ByteSize;

use super::*;
use crate::config::{ConfiguredDuty, NodeOptions};

fn pool(nodes: &[(u64, &str)]) -> PoolOptions {
    let node = |(id, site): &(u64, &str)| NodeOptions {
        id: *id,
        site: (*site).to_owned(),
        address: format!("n:{id}"),
        capacity: ByteSize(10),
        duty: ConfiguredDuty::Data,
    };
    PoolOptions { name: "p".to_owned(), copies: 2, ack_sites: 2, nodes: nodes.iter().map(node).collect() }
}

fn in_use(pool: &PoolOptions) -> Layout {
    let name = PoolId(pool.name.clone());
    Layout::compute(LayoutVersion(1), name, pool.replication(), pool.layout_nodes()).unwrap()
}

fn wish(drain: &[u64], undrain: &[u64]) -> Wish {
    let ids = |ids: &[u64]| ids.iter().map(|id| NodeId(*id)).collect();
    Wish { drain: ids(drain), undrain: ids(undrain), ..Wish::default() }
}

#[test]
fn a_drained_node_stays_drained_until_that_is_undone() {
    let pool = pool(&[(1, "a"), (2, "b"), (3, "b")]);
    let mut layout = in_use(&pool);
    layout.nodes = target(&pool, &layout, &wish(&[3], &[]));
    assert_eq!(layout.nodes[2].duty, NodeDuty::Drained);
    assert!(!configuration_differs(&pool, &layout), "a drain is no difference");
    let by_configuration = Wish { from_configuration: true, ..Wish::default() };
    assert_eq!(target(&pool, &layout, &by_configuration)[2].duty, NodeDuty::Drained);
    assert_eq!(target(&pool, &layout, &wish(&[], &[3]))[2].duty, NodeDuty::Data);
}

#[test]
fn a_node_more_or_less_in_the_configuration_is_a_difference_and_an_address_is_none() {
    let two = pool(&[(1, "a"), (2, "b")]);
    let layout = in_use(&two);
    assert!(!configuration_differs(&two, &layout));
    assert!(configuration_differs(&pool(&[(1, "a"), (2, "b"), (3, "b")]), &layout));
    assert!(configuration_differs(&pool(&[(1, "a"), (4, "b")]), &layout));
    let mut moved_house = two.clone();
    moved_house.nodes[1].address = "elsewhere:1".to_owned();
    assert!(!configuration_differs(&moved_house, &layout));
    let mut three_copies = two;
    three_copies.copies = 1;
    three_copies.ack_sites = 1;
    assert!(configuration_differs(&three_copies, &layout));
}

#[test]
fn what_a_lost_node_is_given_again_counts_as_moved() {
    let pool = pool(&[(1, "a"), (2, "b")]);
    let layout = in_use(&pool);
    let lost: BTreeSet<NodeId> = [NodeId(2)].into();
    let moves = LayoutPlan::between(&without(&layout, &lost), &layout, |_| 3);
    assert_eq!((moves.bytes_to_move, moves.nodes[&NodeId(2)].partitions_in), (3 * 4096, 4096));
}
