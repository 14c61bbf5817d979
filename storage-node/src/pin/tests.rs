//! The promises about pins, sessions and job checkpoints on one owner.

use std::sync::atomic::Ordering;

use holdfast_model::{ChunkId, Epoch, PinHash, TenantId, Workload};

use super::*;
use crate::testing::{
    RESOURCE, Rig, SESSION, TENANT, authority, caller, fence, pin, put_pin, put_this_pin, ticket_for,
};

const LATE: u64 = 9_000_000_000;

#[test]
fn a_sequence_has_one_pin_and_the_same_pin_may_come_again() {
    let rig = Rig::new();
    let node = rig.open();
    assert_eq!(put_pin(&node, 1, 1).unwrap(), (PinOutcome::Stored, fence(1)));
    assert_eq!(put_pin(&node, 1, 1).unwrap(), (PinOutcome::Stored, fence(1)));
    assert_eq!(put_pin(&node, 1, 2).unwrap().0, PinOutcome::Conflict);
    assert_eq!(put_pin(&node, 2, 3).unwrap(), (PinOutcome::Stored, fence(3)));
    assert_eq!(put_pin(&node, 3, 2).unwrap(), (PinOutcome::Fenced, fence(3)));
    // What was stored stays stored, whatever fences came since.
    assert_eq!(put_pin(&node, 1, 1).unwrap().0, PinOutcome::Stored);
    drop(node);
    let node = rig.try_open().unwrap();
    let read = node.read_pins(&caller(3), 0).unwrap();
    assert_eq!(read.pins, vec![pin(1, 1, 5, LATE).encode(), pin(2, 3, 5, LATE).encode()]);
    assert_eq!(read.highest_fence, fence(3));
    assert_eq!(node.read_pins(&caller(3), 1).unwrap().pins, vec![pin(2, 3, 5, LATE).encode()]);
}

#[test]
fn a_raised_fence_commits_nothing_more_also_after_a_kill() {
    let rig = Rig::new();
    let node = rig.open();
    put_pin(&node, 7, 1).unwrap();
    let space = PinSpace { tenant: TENANT, resource: RESOURCE, workload: Workload::Mail };
    assert_eq!(node.raise_fence(&space, fence(5)).unwrap(), (fence(5), Sequence(7)));
    assert_eq!(node.raise_fence(&space, fence(2)).unwrap(), (fence(5), Sequence(7)));
    let (_rig, killed) = rig.after_a_kill();
    assert_eq!(put_pin(&killed, 8, 4).unwrap(), (PinOutcome::Fenced, fence(5)));
    assert_eq!(put_pin(&killed, 8, 5).unwrap().0, PinOutcome::Stored);
}

#[test]
fn an_attempt_of_an_older_generation_commits_nothing() {
    let rig = Rig::new();
    let node = rig.open();
    node.open_session(&caller(1), SESSION, None).unwrap();
    node.apply(authority(2, 5, None)).unwrap();
    let floor = Fence { generation: holdfast_model::Generation(2), attempt: 0 };
    assert_eq!(put_pin(&node, 1, 1).unwrap(), (PinOutcome::Fenced, floor));
    let space = PinSpace { tenant: TENANT, resource: RESOURCE, workload: Workload::Mail };
    assert_eq!(node.raise_fence(&space, fence(9)).unwrap().0, floor);
    let checkpoint = node.put_checkpoint(&caller(1), SESSION, 1, (Bytes::new(), &[]));
    assert!(!checkpoint.unwrap());
    // What nobody fenced is not shown as fenced.
    assert_eq!(node.read_pins(&caller(1), 0).unwrap().highest_fence, fence(1));
}

#[test]
fn a_pin_must_be_the_one_the_ticket_names_and_of_a_living_epoch() {
    let rig = Rig::new();
    let node = rig.open();
    let good = pin(1, 1, 5, LATE);
    for (wrong, field) in [
        (Ticket { pin_hash: PinHash([0; 32]), ..ticket_for(&good) }, "hash"),
        (Ticket { tenant: TenantId([8; 16]), ..ticket_for(&good) }, "resource"),
        (Ticket { sequence: Sequence(2), ..ticket_for(&good) }, "sequence"),
        (Ticket { fence: fence(9), ..ticket_for(&good) }, "fence"),
    ] {
        let refused = node.put_pin(&wrong, &good.encode());
        assert!(matches!(refused, Err(Error::TicketMismatch(found)) if found == field));
    }
    let refused = put_this_pin(&node, &pin(1, 1, 3, LATE));
    assert!(matches!(refused, Err(Error::StaleEpoch { .. })));
    assert_eq!(node.status().unwrap().pins, 0);
}

#[test]
fn a_session_needs_a_living_base_and_ends_with_its_lease() {
    let rig = Rig::new();
    let node = rig.open();
    let base = pin(1, 1, 5, 5_000_000);
    let open = |base: &Pin| node.open_session(&caller(1), SESSION, Some(base.hash()));
    assert!(matches!(open(&base), Err(Error::BasePinUnknown)));
    put_this_pin(&node, &base).unwrap();
    let (epoch, lease) = open(&base).unwrap();
    assert_eq!((epoch, open(&base).unwrap().0), (Epoch(5), Epoch(5)));
    let mut stranger = caller(1);
    stranger.claims.tenant = TenantId([9; 16]);
    assert!(matches!(node.renew_session(&stranger, SESSION), Err(Error::SessionTaken)));
    let lease_ms = u64::try_from(lease.as_millis()).unwrap();
    rig.clock.advance(lease_ms - 60_000);
    node.renew_session(&caller(1), SESSION).unwrap();
    rig.clock.advance(lease_ms);
    assert!(matches!(node.renew_session(&caller(1), SESSION), Err(Error::SessionUnknown)));
    node.end_lapsed_sessions().unwrap();
    assert_eq!(node.status().unwrap().sessions, 0);
    rig.clock.now_ms.store(5_000_000, Ordering::Relaxed);
    assert!(matches!(open(&base), Err(Error::BasePinExpired)));
}

#[test]
fn a_clock_that_jumps_ends_no_session_and_keeps_none() {
    let rig = Rig::new();
    let node = rig.open();
    let (_, lease) = node.open_session(&caller(1), SESSION, None).unwrap();
    let lease_ms = u64::try_from(lease.as_millis()).unwrap();
    rig.clock.now_ms.fetch_add(10 * lease_ms, Ordering::Relaxed);
    node.end_lapsed_sessions().unwrap();
    node.renew_session(&caller(1), SESSION).unwrap();
    rig.clock.now_ms.store(1, Ordering::Relaxed);
    rig.clock.advance(lease_ms);
    assert!(matches!(node.renew_session(&caller(1), SESSION), Err(Error::SessionUnknown)));
}

#[test]
fn sessions_survive_a_kill_and_end_when_closed() {
    let rig = Rig::new();
    let node = rig.open();
    node.open_session(&caller(1), SESSION, None).unwrap();
    let (_rig, killed) = rig.after_a_kill();
    assert!(killed.renew_session(&caller(1), SESSION).is_ok());
    killed.close_session(&caller(1), SESSION).unwrap();
    killed.close_session(&caller(1), SESSION).unwrap();
    assert!(matches!(killed.renew_session(&caller(1), SESSION), Err(Error::SessionUnknown)));
}

#[test]
fn the_newest_job_checkpoint_wins_and_rolls_its_session_on() {
    let rig = Rig::new();
    let node = rig.open();
    let put = |attempt, revision, body: &'static [u8]| {
        node.put_checkpoint(
            &caller(attempt),
            SESSION,
            revision,
            (Bytes::from_static(body), &[ChunkId([4; 32])]),
        )
    };
    assert!(matches!(put(1, 1, b"none"), Err(Error::SessionUnknown)));
    node.open_session(&caller(1), SESSION, None).unwrap();
    assert!(put(1, 2, b"two").unwrap());
    assert!(put(1, 1, b"late").unwrap());
    let newest = || node.read_pins(&caller(1), 0).unwrap().checkpoint.unwrap();
    assert_eq!((newest().id.revision, &newest().body[..]), (2, &b"two"[..]));
    node.apply(authority(1, 6, None)).unwrap();
    assert!(put(1, 3, b"three").unwrap());
    assert_eq!(node.state.session(SESSION).unwrap().epoch, Epoch(6));
    let space = PinSpace { tenant: TENANT, resource: RESOURCE, workload: Workload::Mail };
    node.raise_fence(&space, fence(2)).unwrap();
    assert!(!put(1, 4, b"fenced").unwrap());
    assert_eq!(&newest().body[..], b"three");
}
