//! What a crash must not take away: found by the simulation, kept here on real files.

use std::{fs, sync::atomic::Ordering};

use crate::{
    Presence,
    testing::{Rig, SESSION, caller, record},
};

#[test]
fn the_name_of_the_state_is_durable_before_anything_is_kept_in_it() {
    let rig = Rig::new();
    let _node = rig.try_open().unwrap();
    assert!(rig.faults.state_name_synced.load(Ordering::Relaxed));
}

#[test]
fn a_first_start_that_failed_in_the_middle_is_made_up_for_by_the_next() {
    let rig = Rig::new();
    rig.faults.fail_state_sync.store(true, Ordering::Relaxed);
    assert!(rig.try_open().is_err());
    rig.faults.fail_state_sync.store(false, Ordering::Relaxed);
    rig.try_open().unwrap();
    let names = fs::read_dir(&rig.options.data).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| name != "state.redb.new"));
}

#[tokio::test]
async fn an_index_older_than_the_known_damage_promises_nothing_of_it() {
    let rig = Rig::new();
    let node = rig.open();
    let (bad, good) = (record(1, 3_000), record(2, 3_000));
    let ids = vec![bad.header.id, good.header.id];
    node.put(&caller(1), SESSION, vec![bad.encode(), good.encode()]).await.unwrap();
    node.close().await.unwrap();
    drop(node);
    let index = rig.options.data.join("index.redb");
    let before = fs::read(&index).unwrap();
    let segment = rig.segment("data");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[4_096 + 500] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    // The damage is found and remembered; the index that learnt of it is lost in a crash.
    drop(rig.open());
    fs::write(&index, before).unwrap();
    let node = rig.open();
    let there = node.have_local(&caller(1), ids).await.unwrap();
    assert_eq!(there, vec![Presence::Absent, Presence::Yes]);
}
