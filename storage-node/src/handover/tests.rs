//! Pages, and who gets them.

use holdfast_model::{PARTITION_COUNT, ResourceId};

use super::*;
use crate::{
    state::CheckpointId,
    testing::{Rig, TENANT, authority, caller, fence, layout, pin},
};

fn space(n: u8) -> PinSpace {
    PinSpace { tenant: TENANT, resource: ResourceId([n; 16]), ..caller(1).space() }
}

fn every_partition() -> BTreeSet<PartitionId> {
    (0..PARTITION_COUNT).map(PartitionId).collect()
}

fn question(after: SpacePlace) -> HandoverQuestion {
    HandoverQuestion { partitions: every_partition(), moved_in: LayoutVersion(1), after }
}

fn pins_of(space: PinSpace, sequences: std::ops::Range<u64>) -> Vec<(Sequence, Bytes)> {
    let pins = sequences.map(|sequence| {
        let mut pin = pin(sequence, 1, 5, 0);
        pin.resource = space.resource;
        (pin.sequence, pin.encode())
    });
    pins.collect()
}

fn put(node: &Node, space: PinSpace, pins: &[(Sequence, Bytes)]) {
    let pins: Vec<_> = pins.iter().map(|(sequence, pin)| (space, *sequence, fence(1), pin.clone())).collect();
    node.state.put_pins(&pins).unwrap();
}

fn checkpoint(node: &Node, space: PinSpace, len: usize) -> (Checkpoint, Bytes) {
    let id = CheckpointId { fence: fence(1), revision: 3, put_ms: 7 };
    let checkpoint = Checkpoint { id, body: vec![5; len].into() };
    let session =
        Session { space, fence: fence(1), base: None, epoch: holdfast_model::Epoch(5), lease_end_ms: 0 };
    let roots = Bytes::from(vec![6; 64]);
    node.state.put_checkpoint(&checkpoint, &roots, (SessionId(space.resource.0[0].into()), session)).unwrap();
    (checkpoint, roots)
}

/// All pages of a node, put together as who asks does, and how many there were.
async fn all_pages(node: &Node) -> (Known, usize) {
    let mut known = Known::new();
    let mut question = question(None);
    for n in 1.. {
        let page = node.hand_over(NodeId(1), question.clone()).await.unwrap();
        let page = page_from_wire(page_to_wire(page)).unwrap();
        assert!(page.len() < crate::service::MESSAGE_BYTES_MAX - (1 << 20), "too long for a message");
        let more = page.more;
        let place = add_page(&mut known, &question, page).expect("a page that fits the question");
        if !more {
            return (known, n);
        }
        assert!(place > question.after, "no progress behind {place:?}");
        let sent = question_to_wire(&HandoverQuestion { after: place, ..question.clone() });
        question = question_from_wire(sent).unwrap();
    }
    unreachable!()
}

#[tokio::test]
async fn pages_are_cut_anywhere_and_nothing_is_lost_or_told_twice() {
    let rig = Rig::new();
    let node = rig.open();
    // A job checkpoint that leaves no room for a pin, also before a pin of sequence 0, and at the last space.
    let mut expected = Known::new();
    for (n, pins, checkpoint_bytes) in [
        (1, 0..3, 9 << 20),
        (2, 1..9_000, 0),
        (3, 0..0, 16 << 20),
        (4, 1..4_097, 0),
        (5, 7..8, 100),
        (6, 1..3, 9 << 20),
    ] {
        let pins = pins_of(space(n), pins);
        put(&node, space(n), &pins);
        let checkpoint = (checkpoint_bytes > 0).then(|| checkpoint(&node, space(n), checkpoint_bytes));
        let fence = fence(1);
        expected.insert(space(n), SpaceState { fence, pins, checkpoint, sessions: Vec::new() });
    }
    let (known, n_pages) = all_pages(&node).await;
    assert!(n_pages >= 6, "only {n_pages} pages");
    assert!(known == expected, "what was handed over is not what is there");
}

#[tokio::test]
async fn spaces_without_pins_fill_pages_too() {
    let rig = Rig::new();
    let node = rig.open();
    let n_spaces = 5_000_u32;
    let spaces = (0..n_spaces).map(|n| {
        let mut resource = ResourceId([9; 16]);
        resource.0[..4].copy_from_slice(&n.to_be_bytes());
        let space = PinSpace { tenant: TENANT, resource, ..caller(1).space() };
        (space, crate::state::TakenSpace { fence: fence(2), ..Default::default() })
    });
    node.state.take_over(&spaces.collect::<Vec<_>>()).unwrap();
    let (known, n_pages) = all_pages(&node).await;
    assert_eq!((known.len(), n_pages), (5_000, 2));
    assert!(known.values().all(|state| state.fence == fence(2)));
}

#[tokio::test]
async fn only_who_keeps_the_pins_of_a_partition_gets_them_and_only_once_they_are_frozen() {
    let rig = Rig::new();
    let node = rig.try_open().unwrap();
    let ask = |asker, moved_in: u64, partition| {
        let partitions = BTreeSet::from([PartitionId(partition)]);
        let moved_in = LayoutVersion(moved_in);
        node.hand_over(NodeId(asker), HandoverQuestion { partitions, moved_in, after: None })
    };
    assert!(matches!(ask(1, 1, 0).await, Err(Error::NoLayout)));
    let nodes = [(1, "a"), (2, "b"), (3, "c")];
    let layout = layout(3, &nodes, 1);
    let owner = layout.pin_owners_of(PartitionId(0)).next().unwrap().id.0;
    let other = (1..=3).find(|id| *id != owner).unwrap();
    node.apply(authority(1, 5, Some(layout))).unwrap();
    assert!(ask(owner, 3, 0).await.is_ok());
    assert!(matches!(ask(owner, 4, 0).await, Err(Error::NotReady(_))), "it would still store pins");
    assert!(matches!(ask(other, 3, 0).await, Err(Error::NotHanded { .. })));
    assert!(matches!(ask(9, 3, 0).await, Err(Error::NotHanded { .. })), "no node of the layout");
    // One partition that is not the asker's spoils the question.
    let question = HandoverQuestion { partitions: every_partition(), ..question(None) };
    assert!(matches!(node.hand_over(NodeId(owner), question).await, Err(Error::NotHanded { .. })));
}

#[test]
fn a_page_that_does_not_fit_the_question_is_refused() {
    let one = pins_of(space(1), 1..4);
    let page = |spaces: Vec<(PinSpace, Vec<(Sequence, Bytes)>)>| SpacePage {
        spaces: spaces
            .into_iter()
            .map(|(space, pins)| (space, SpaceState { pins, ..SpaceState::default() }))
            .collect(),
        more: false,
    };
    let fits = |question: &HandoverQuestion, spaces| add_page(&mut Known::new(), question, page(spaces));
    let asked = question(None);
    assert_eq!(fits(&asked, vec![(space(1), one.clone())]), Some(Some((space(1), Some(Sequence(3))))));
    // A pin twice, which would count as two owners; of another space; behind the place asked for.
    assert_eq!(fits(&asked, vec![(space(1), vec![one[0].clone(), one[0].clone()])]), None);
    assert_eq!(fits(&asked, vec![(space(2), one.clone())]), None);
    let behind = question(Some((space(1), Some(Sequence(2)))));
    assert_eq!(fits(&behind, vec![(space(1), one.clone())]), None);
    assert!(fits(&behind, vec![(space(1), one[2..].to_vec())]).is_some());
    assert_eq!(fits(&question(Some((space(2), None))), vec![(space(1), one.clone())]), None);
    // A partition that was not asked for.
    let other = HandoverQuestion { partitions: BTreeSet::new(), ..question(None) };
    assert_eq!(fits(&other, vec![(space(1), one)]), None);
}

#[tokio::test]
async fn more_than_one_try_may_take_is_noticed_before_it_is_all_in_memory() {
    let rig = Rig::new();
    let node = rig.open();
    put(&node, space(1), &pins_of(space(1), 1..9_000));
    put(&node, space(2), &pins_of(space(2), 1..3));
    let layout = node.layout().unwrap();
    let mut asked = question(None);
    let most = 1 << 20;
    assert_eq!(node.known_to(&layout.nodes[0], &mut asked, most).await.unwrap(), Ok(None));
    assert_eq!(asked.after.map(|(space, _)| space), None, "it was asked for more than the first page");
    let known = node.known_to(&layout.nodes[0], &mut asked, usize::MAX).await.unwrap().unwrap().unwrap();
    assert_eq!(known.values().map(|state| state.pins.len()).collect::<Vec<_>>(), [8_999, 2]);
}
