//! Pin segments against the state: what one lacks the other gives back, and what contradicts is told.

use super::*;
use crate::{
    pin::PinOutcome,
    testing::{pin, put_pin},
};

const LATE: u64 = 9_000_000_000;

fn one_pool(n_pins: u64) -> Pool {
    let pool = Pool::start(1, 1);
    for n in 1..=n_pins {
        assert_eq!(put_pin(&pool.node(1), n, 1).unwrap().0, PinOutcome::Stored);
    }
    pool
}

/// The pins that the pin segments alone tell.
async fn told_by_segments(pool: &mut Pool) -> Vec<Bytes> {
    pool.stop(1).await;
    pool.rigs[0].lose_state();
    pool.open(1).read_pins(&caller(9), 0).unwrap().pins
}

fn pins(range: std::ops::RangeInclusive<u64>) -> Vec<Bytes> {
    range.map(|n| pin(n, 1, 5, LATE).encode()).collect()
}

fn len_of_one() -> usize {
    pin(1, 1, 5, LATE).encode().len().next_multiple_of(8)
}

#[tokio::test]
async fn a_damaged_pin_is_written_again_from_the_state_and_its_segment_set_aside() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [Damage; 5] = [
        |bytes| bytes[4_096 + len_of_one() + 50] ^= 1,
        |bytes| bytes[4_096 + 7 * len_of_one() + 8] ^= 1,
        |bytes| bytes[100] ^= 1,
        |bytes| bytes.truncate(4_096 + 3 * len_of_one() + 9),
        |bytes| bytes[4_096..4_096 + 4 * len_of_one()].fill(0xa5),
    ];
    for damage in damages {
        let mut pool = one_pool(8);
        let path = pool.rigs[0].segment("pin");
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        pool.scrub(1).await;
        assert!(!path.exists(), "a damaged pin segment is still in use");
        assert!(pool.rigs[0].options.data.join("quarantine").join(path.file_name().unwrap()).exists());
        assert!(pool.node(1).status().unwrap().quarantined_records > 0, "not reported");
        assert_eq!(put_pin(&pool.node(1), 9, 1).unwrap().0, PinOutcome::Stored);
        // Once more: all is well, and nothing is told twice.
        let told = pool.node(1).store.n_damaged();
        pool.scrub(1).await;
        assert_eq!(pool.node(1).store.n_damaged(), told);
        assert_eq!(told_by_segments(&mut pool).await, pins(1..=9));
    }
}

#[tokio::test]
async fn a_pin_segment_that_is_gone_is_written_again_and_nothing_is_written_to_the_old_one() {
    let mut pool = one_pool(3);
    let path = pool.rigs[0].segment("pin");
    fs::remove_file(&path).unwrap();
    assert_eq!(put_pin(&pool.node(1), 4, 1).unwrap().0, PinOutcome::Stored);
    pool.scrub(1).await;
    assert_eq!(put_pin(&pool.node(1), 5, 1).unwrap().0, PinOutcome::Stored);
    assert_eq!(told_by_segments(&mut pool).await, pins(1..=5));
}

#[tokio::test]
async fn pin_segments_are_checked_once_a_day() {
    let mut pool = one_pool(3);
    pool.now_ms += 24 * 3_600_000;
    while pool.node(1).scrub_step(pool.now_ms, Pace::Scheduled).await.unwrap() == Step::More {}
    let path = pool.rigs[0].segment("pin");
    let mut bytes = fs::read(&path).unwrap();
    bytes[4_100] ^= 1;
    fs::write(&path, bytes).unwrap();
    while pool.node(1).scrub_step(pool.now_ms, Pace::Scheduled).await.unwrap() == Step::More {}
    assert!(path.exists());
    pool.now_ms += 24 * 3_600_000;
    while pool.node(1).scrub_step(pool.now_ms, Pace::Scheduled).await.unwrap() == Step::More {}
    assert!(!path.exists());
    assert_eq!(told_by_segments(&mut pool).await, pins(1..=3));
}

#[tokio::test]
async fn a_pin_that_the_state_lacks_is_told_and_its_segment_kept_whatever_else_is_in_it() {
    let other = one_pool(4);
    let mut pool = one_pool(3);
    let foreign = pool.segments(1, "pin").remove(0).with_file_name(format!("pin-{}.seg", "ab".repeat(16)));
    let mut bytes = fs::read(other.rigs[0].segment("pin")).unwrap();
    bytes[4_100] ^= 1;
    fs::write(&foreign, bytes).unwrap();
    let node = pool.node(1);
    let checked = loop {
        let checked = crate::pin_log::check_step(&node.pin_log, &node.state).unwrap();
        if checked.is_over {
            break checked;
        }
    };
    assert_eq!((checked.n_unknown, checked.n_rewritten), (1, 0));
    pool.scrub(1).await;
    assert!(foreign.exists());
    assert_eq!(
        node.read_pins(&caller(9), 0).unwrap().pins,
        pins(1..=3),
        "a pin was adopted from a damaged file"
    );
    drop(node);
    // A start takes it from there, as it does from every pin segment.
    pool.restart(1).await;
    assert_eq!(pool.node(1).read_pins(&caller(9), 0).unwrap().pins, pins(1..=4));
}

#[tokio::test]
async fn a_pin_that_is_torn_off_is_put_right_and_is_no_damage() {
    let mut pool = one_pool(3);
    pool.stop(1).await;
    let path = pool.rigs[0].segment("pin");
    let mut bytes = fs::read(&path).unwrap();
    let end = 4_096 + 3 * len_of_one();
    bytes[end..end + 20].copy_from_slice(&pin(4, 1, 5, LATE).encode()[..20]);
    fs::write(&path, bytes).unwrap();
    pool.open(1);
    pool.scrub(1).await;
    assert!(!path.exists());
    assert_eq!(pool.node(1).store.n_damaged(), 0);
    assert_eq!(told_by_segments(&mut pool).await, pins(1..=3));
}
