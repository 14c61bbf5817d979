//! What segments promise, wherever they are: each runs on a disk, on a bucket in memory and on a real S3 server.

use std::{fs, sync::atomic::Ordering};

use holdfast_runtime::Step;

use super::place::{Opened, Place, Records};
use crate::{
    Pace,
    testing::{SESSION, caller, record},
};

/// So many records are put that at least this many segments are sealed.
const SEALED_MIN: usize = 5;

pub async fn what_is_written_is_read_back(place: &Place) {
    let opened = place.open().await;
    let records = opened.put(0..20).await;
    let sealed = opened.sealed(place);
    assert!(sealed.len() >= SEALED_MIN);
    let before: Vec<Vec<u8>> =
        sealed.iter().map(|segment| opened.disk.read(&segment.path()).unwrap()).collect();
    // Open from before its file moves.
    let file = opened.disk.open_read(&sealed[0].path()).unwrap();
    opened.settle().await;
    opened.assert_has(&records).await;
    for (segment, bytes) in sealed.iter().zip(&before) {
        let again = opened.disk.open_read(&segment.path()).unwrap();
        assert_eq!(again.size().unwrap(), bytes.len() as u64);
        for (from, len) in
            [(0, 4_096), (4_090, 20_000), (1, 1), (bytes.len() - 7, 7), (0, bytes.len()), (9, 0)]
        {
            let mut found = vec![0; len];
            again.read_exact_at(&mut found, from as u64).unwrap();
            assert_eq!(found, bytes[from..from + len], "{from}+{len}");
        }
        let beyond = again.read_exact_at(&mut [0; 8], bytes.len() as u64 - 7).unwrap_err();
        assert_eq!(beyond.kind(), std::io::ErrorKind::UnexpectedEof);
    }
    let mut head = [0; 4_096];
    file.read_exact_at(&mut head, 0).unwrap();
    assert_eq!(head, before[0][..4_096]);
    drop(file);
    opened.close().await;
    place.open().await.assert_has(&records).await;
}

pub async fn the_listing_is_complete(place: &Place) {
    let opened = place.open().await;
    let records = opened.put(0..30).await;
    let before = opened.segments(place);
    assert!(before.len() > SEALED_MIN);
    opened.settle().await;
    assert_eq!(opened.segments(place), before);
    for segment in &before {
        assert!(opened.disk.exists(&segment.path()).unwrap());
    }
    opened.close().await;
    let opened = place.open().await;
    assert_eq!(opened.segments(place), before);
    opened.assert_has(&records).await;
}

pub async fn a_start_after_a_kill_has_everything(place: &Place) {
    let opened = place.open().await;
    let mut records = opened.put(0..10).await;
    opened.settle().await;
    records.extend(opened.put(10..20).await);
    let killed = place.after_a_kill();
    drop(opened);
    let opened = killed.open().await;
    opened.assert_has(&records).await;
    opened.settle().await;
    opened.assert_has(&records).await;
    records.extend(opened.put(20..25).await);
    opened.assert_has(&records).await;
}

pub async fn a_lost_index_is_made_from_the_segments(place: &Place) {
    let opened = place.open().await;
    let records = opened.put(0..20).await;
    opened.settle().await;
    opened.close().await;
    fs::remove_file(place.rig.options.data.join("index.redb")).unwrap();
    let opened = place.open().await;
    assert_eq!(opened.node.store().n_records().unwrap(), 20);
    opened.assert_has(&records).await;
}

/// Flipped in a record, cut short, gone.
pub async fn damage_is_found_and_never_served(place: &Place) {
    let opened = place.open().await;
    let records = opened.put(0..20).await;
    let sealed = opened.sealed(place);
    opened.settle().await;
    place
        .damage(&sealed[0], |mut bytes| {
            bytes[4_096 + 500] ^= 1;
            Some(bytes)
        })
        .await;
    let cut = |mut bytes: Vec<u8>| {
        bytes.truncate(4_096 + 25_000);
        Some(bytes)
    };
    place.damage(&sealed[1], cut).await;
    place.damage(&sealed[2], |_| None).await;
    scrub(&opened).await;
    assert!(opened.node.store().n_damaged() >= 2, "the scrub found {}", opened.node.store().n_damaged());
    let (right, lost) = served(&opened, &records).await;
    assert!(lost >= 2 && right >= 10, "{right} served, {lost} lost");
    opened.close().await;
    // And after a start, which sees the segment that is gone.
    let opened = place.open().await;
    let (right, lost) = served(&opened, &records).await;
    assert!(lost >= 6 && right >= 10, "{right} served, {lost} lost");
}

async fn scrub(opened: &Opened) {
    while opened.node.scrub_step(1, Pace::AtOnce).await.unwrap() == Step::More {}
}

/// How many are right and how many are not there: none is ever wrong.
async fn served(opened: &Opened, records: &Records) -> (usize, usize) {
    let (mut served, mut lost) = (0, 0);
    for (id, bytes) in records {
        match opened.get(*id).await.unwrap() {
            Some(found) => {
                assert_eq!(&found, bytes, "wrong bytes are served");
                served += 1;
            }
            None => lost += 1,
        }
    }
    (served, lost)
}

pub async fn a_full_disk_stops_and_goes_on(place: &Place) {
    let opened = place.open().await;
    let mut records = opened.put(0..10).await;
    opened.settle().await;
    place.rig.faults.disk_full.store(true, Ordering::Relaxed);
    let more = record(50, 20_000);
    let put = opened.node.replicate(&caller(1), SESSION, vec![more.encode()]).await.unwrap();
    assert!(put.reason.contains("full"), "{}", put.reason);
    opened.assert_has(&records).await;
    place.rig.faults.disk_full.store(false, Ordering::Relaxed);
    opened.node.housekeeping().await.unwrap();
    records.extend(opened.put(50..55).await);
    opened.settle().await;
    opened.assert_has(&records).await;
}

/// Runs every promise on a fresh place.
macro_rules! on {
    ($place:expr, $($promise:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                super::$promise(&$place).await;
            }
        )*
    };
}

mod on_disk {
    use super::super::place::Place;

    on!(
        Place::on_disk(),
        what_is_written_is_read_back,
        the_listing_is_complete,
        a_start_after_a_kill_has_everything,
        a_lost_index_is_made_from_the_segments,
        damage_is_found_and_never_served,
        a_full_disk_stops_and_goes_on,
    );
}

mod in_memory {
    use super::super::place::Place;

    on!(
        Place::in_memory().0,
        what_is_written_is_read_back,
        the_listing_is_complete,
        a_start_after_a_kill_has_everything,
        a_lost_index_is_made_from_the_segments,
        damage_is_found_and_never_served,
        a_full_disk_stops_and_goes_on,
    );
}
