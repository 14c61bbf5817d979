//! What a crash must not take away: found by the simulation, kept here on real files.

use std::{fs, sync::atomic::Ordering};

use crate::{
    Presence,
    testing::{Rig, SESSION, authority, caller, put_pin, record},
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
    assert!(names(&rig).iter().all(|name| name != "state.redb.new"));
}

/// What is in the data folder, in order.
fn names(rig: &Rig) -> Vec<String> {
    let entries = fs::read_dir(&rig.options.data).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_first_start_that_was_cut_off_anywhere_goes_on() {
    let marker = "holdfast-storage-node.json";
    let whole = Rig::new();
    drop(whole.try_open().unwrap());
    let data = &whole.options.data;
    // Before the marker: whatever there is of the state, it is made again.
    for left in [fs::read(data.join("state.redb")).unwrap(), Vec::new(), vec![7; 5_000]] {
        let rig = Rig::new();
        fs::create_dir(&rig.options.data).unwrap();
        fs::write(rig.options.data.join("state.redb.new"), left).unwrap();
        fs::write(rig.options.data.join("holdfast-storage-node.new"), "{").unwrap();
        rig.try_open().unwrap();
        assert_eq!(names(&rig), names(&whole));
    }
    // Behind the marker, before the state has its place.
    let rig = Rig::new();
    fs::create_dir(&rig.options.data).unwrap();
    fs::copy(data.join(marker), rig.options.data.join(marker)).unwrap();
    fs::copy(data.join("state.redb"), rig.options.data.join("state.redb.new")).unwrap();
    rig.try_open().unwrap();
    assert_eq!(names(&rig), names(&whole));
}

#[test]
fn a_folder_without_its_state_is_refused_until_somebody_decides() {
    for is_empty in [false, true] {
        let rig = Rig::new();
        let node = rig.open();
        put_pin(&node, 1, 1).unwrap();
        drop(node);
        let state = rig.options.data.join("state.redb");
        let before = fs::read(&state).unwrap();
        fs::remove_file(&state).unwrap();
        if is_empty {
            fs::write(&state, []).unwrap();
        }
        let left = names(&rig);
        for _ in 0..2 {
            let refused = rig.try_open().err().unwrap().to_string();
            assert!(refused.contains("has a marker and no state.redb: bring that file back"), "{refused}");
            assert_eq!(names(&rig), left, "something was made");
        }
        // Somebody brings it back.
        fs::write(&state, before).unwrap();
        let node = rig.try_open().unwrap();
        assert_eq!(node.authority().epoch.0, 5);
        drop(node);
        // Or decides to go on without: once.
        fs::remove_file(&state).unwrap();
        fs::write(rig.options.data.join("rebuild-state"), []).unwrap();
        let node = rig.open();
        assert_eq!(node.read_pins(&caller(9), 0).unwrap().pins.len(), 1);
        drop(node);
        fs::remove_file(&state).unwrap();
        assert!(rig.try_open().is_err());
    }
}

#[test]
fn a_word_to_go_on_without_the_state_is_void_where_the_state_is_there() {
    let rig = Rig::new();
    drop(rig.open());
    fs::write(rig.options.data.join("rebuild-state"), []).unwrap();
    let node = rig.try_open().unwrap();
    assert_eq!(node.authority().epoch.0, 5);
    drop(node);
    fs::remove_file(rig.options.data.join("state.redb")).unwrap();
    assert!(rig.try_open().is_err());
}

#[tokio::test]
async fn what_a_killed_process_may_not_have_synced_is_synced_before_it_is_relied_on() {
    let rig = Rig::new();
    let node = rig.open();
    node.put(&caller(1), SESSION, vec![record(1, 100).encode()]).await.unwrap();
    node.apply(authority(1, 6, None)).unwrap();
    let ids = vec![record(1, 100).header.id];
    assert_eq!(node.have_local(&caller(1), ids).await.unwrap(), [Presence::Yes]);
    drop(node);
    let (segments, touches) = (rig.options.data.join("segments"), rig.options.data.join("touches"));
    let log = fs::read_dir(&touches).unwrap().next().unwrap().unwrap().path();
    rig.faults.synced.lock().unwrap().clear();
    let node = rig.try_open().unwrap();
    for path in [&segments, &rig.segment("data"), &touches, &log] {
        assert!(rig.faults.synced.lock().unwrap().contains(path), "{}", path.display());
    }
    // What the index has durably learnt of a log is not written once more.
    drop(node);
    rig.faults.synced.lock().unwrap().clear();
    rig.try_open().unwrap();
    assert!(!rig.faults.synced.lock().unwrap().contains(&log));
}

#[tokio::test]
async fn a_superblock_that_was_perhaps_not_synced_is_written_again() {
    let rig = Rig::new();
    let node = rig.open();
    node.put(&caller(1), SESSION, vec![record(1, 100).encode()]).await.unwrap();
    drop(node);
    // As the creation of the segment left it: a mark that never moved.
    let segment = rig.segment("data");
    fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(4_096).unwrap();
    let mark = fs::read_dir(segment.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let mark = mark.into_iter().find(|path| path.extension().is_some_and(|one| one == "mark")).unwrap();
    fs::write(mark, vec![0; 8_192]).unwrap();
    fs::remove_file(rig.options.data.join("index.redb")).unwrap();
    rig.faults.segment_bytes.store(0, Ordering::Relaxed);
    let node = rig.try_open().unwrap();
    assert_eq!((node.store().n_damaged(), node.store().n_records().unwrap()), (0, 0));
    assert_eq!(rig.faults.segment_bytes.load(Ordering::Relaxed), 4_096);
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
