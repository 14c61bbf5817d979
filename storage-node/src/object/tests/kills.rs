//! A kill between any two steps of an upload, and what the disk may forget.

use std::{fs, io::ErrorKind, sync::Arc};

use bytes::Bytes;
use holdfast_runtime::Step;

use super::place::{Opened, Place, Records};
use crate::{
    disk::Disk,
    object::{MemoryFaults, ObjectStore, load::Loaded},
    segment::SegmentFile,
};

async fn sealed_one(place: &Place) -> (Opened, Records, SegmentFile) {
    let opened = place.open().await;
    let records = opened.put(0..10).await;
    let segment = opened.sealed(place).remove(0);
    (opened, records, segment)
}

/// Opens what a kill left, reads all, uploads the rest, reads all again.
async fn goes_on(place: &Place, records: &Records) {
    let opened = place.open().await;
    opened.assert_has(records).await;
    opened.settle().await;
    opened.assert_has(records).await;
    opened.close().await;
    place.open().await.assert_has(records).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_between_any_two_steps_of_an_upload_loses_nothing() {
    let (place, store) = Place::in_memory();
    let (opened, records, segment) = sealed_one(&place).await;
    let path = segment.path();
    let before_the_object = place.after_a_kill();
    let Loaded { bytes, note } = opened.uploader().load(&segment).await.unwrap();
    opened.uploader().put(&segment, bytes, &note).await.unwrap();
    assert!(store.keys().contains(&place.key(&segment)));
    let before_the_note = place.after_a_kill();
    opened.object_disk().0.keep(&segment.name(), &note).unwrap();
    let before_the_removal = place.after_a_kill();
    assert!(path.exists());
    opened.object_disk().0.free(&segment.name()).unwrap();
    assert!(!path.exists());
    let after_the_removal = place.after_a_kill();
    opened.assert_has(&records).await;
    drop(opened);
    for killed in [before_the_object, before_the_note, before_the_removal, after_the_removal] {
        goes_on(&killed, &records).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_folder_comes_back_from_the_bucket() {
    let (place, store) = Place::in_memory();
    let opened = place.open().await;
    let mut records = opened.put(0..20).await;
    let mut journal = Records::new();
    opened.settle().await;
    // What was never uploaded is lost with its disk, and is not promised.
    for (id, bytes) in records.clone() {
        let left = opened.segments(&place).into_iter().filter(|segment| segment.path().exists());
        let is_local = left.into_iter().any(|segment| {
            let file = fs::read(segment.path()).unwrap();
            file.windows(64).any(|window| window == &bytes[..64])
        });
        if is_local {
            journal.insert(id, bytes);
            records.remove(&id);
        }
    }
    assert!(!records.is_empty() && !journal.is_empty());
    drop(opened);
    let fresh = place.without_its_folder();
    let opened = fresh.open().await;
    opened.assert_has(&records).await;
    for id in journal.keys() {
        assert_eq!(opened.get(*id).await.unwrap(), None);
    }
    // From now on it knows them.
    opened.close().await;
    let reads = store.reads();
    let opened = fresh.open().await;
    assert_eq!(store.reads(), reads);
    opened.assert_has(&records).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_asks_for_no_object_it_has_a_note_of() {
    let (place, store) = Place::in_memory();
    let opened = place.open().await;
    let records = opened.put(0..20).await;
    opened.settle().await;
    opened.close().await;
    let reads = store.reads();
    let opened = place.open().await;
    assert_eq!(store.reads(), reads);
    opened.assert_has(&records).await;
    assert!(store.reads() > reads);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_of_an_uploaded_segment_takes_no_room() {
    let (place, _) = Place::in_memory();
    let opened = place.open().await;
    let records = opened.put(0..20).await;
    // Every segment is open to read.
    opened.assert_has(&records).await;
    let sealed = opened.sealed(&place);
    opened.settle().await;
    let held =
        fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let deleted = format!("{}", place.segments_dir().display());
    let held: Vec<_> = held
        .filter(|path| {
            let path = path.display().to_string();
            path.starts_with(&deleted) && path.ends_with("(deleted)")
        })
        .filter(|path| path.display().to_string().contains(".seg"))
        .collect();
    assert!(held.is_empty(), "{held:?}");
    let bytes = |opened: &Opened| opened.disk.elsewhere_bytes().unwrap();
    let uploaded = bytes(&opened);
    assert!(uploaded > 60_000 * sealed.len() as u64 - 60_000);
    opened.close().await;
    assert_eq!(bytes(&place.open().await), uploaded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_is_never_written_again() {
    let (place, _) = Place::in_memory();
    let (opened, _, segment) = sealed_one(&place).await;
    opened.settle().await;
    let (path, new) = (segment.path(), segment.path().with_extension("seg.new"));
    let other = place.segments_dir().join("other");
    fs::write(&other, b"x").unwrap();
    let refused =
        |result: std::io::Result<()>| assert_eq!(result.unwrap_err().kind(), ErrorKind::Unsupported);
    refused(opened.disk.create(&path).map(drop));
    refused(opened.disk.create(&new).map(drop));
    refused(opened.disk.rename(&other, &path));
    refused(opened.disk.remove(&path));
    refused(opened.disk.open_read(&path).unwrap().write_all_at(b"x", 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_segment_is_not_uploaded_and_does_not_hold_up_others() {
    let (place, store) = Place::in_memory();
    let opened = place.open().await;
    opened.put(0..20).await;
    let sealed = opened.sealed(&place);
    place
        .damage(&sealed[0], |mut bytes| {
            bytes[4_096 + 700] ^= 1;
            Some(bytes)
        })
        .await;
    while opened.uploader().step().await.unwrap() == Step::More {}
    assert!(!store.keys().contains(&place.key(&sealed[0])));
    for segment in &sealed[1..] {
        assert!(store.keys().contains(&place.key(segment)));
    }
    let status = opened.uploader().status();
    assert_eq!((status.waiting_segments, status.held_segments), (1, 1));
    assert!(sealed[0].path().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_with_other_bytes_is_never_taken_for_the_segment() {
    let (place, store) = Place::in_memory();
    let (opened, records, segment) = sealed_one(&place).await;
    let len = fs::metadata(segment.path()).unwrap().len();
    let foreign = Bytes::from(vec![7; usize::try_from(len).unwrap()]);
    store.put_new(&place.key(&segment), foreign, None).await.unwrap();
    while opened.uploader().step().await.unwrap() == Step::More {}
    let status = opened.uploader().status();
    assert_eq!(status.held_segments, 1);
    assert_eq!(status.last_error.unwrap().class, "other-bytes");
    assert!(segment.path().exists());
    opened.assert_has(&records).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrives_otherwise_than_it_was_sent_is_found_by_reading_it_back() {
    let (place, store) = Place::in_memory();
    let (opened, records, segment) = sealed_one(&place).await;
    store.set_faults(MemoryFaults { flips_a_bit: true, ..MemoryFaults::default() });
    while opened.uploader().step().await.unwrap() == Step::More {}
    assert!(segment.path().exists());
    assert_eq!(opened.disk.elsewhere_bytes(), Some(0));
    opened.assert_has(&records).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_locked_for_as_long_as_the_options_say() {
    let (place, store) = Place::in_memory();
    let (opened, _, segment) = sealed_one(&place).await;
    opened.settle().await;
    let until = store.head(&place.key(&segment)).await.unwrap().locked_until_ms.unwrap();
    assert_eq!(until, 1_000_000 + 30 * 24 * 60 * 60 * 1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_is_sealed_and_uploaded_by_its_age() {
    let (place, store) = Place::in_memory();
    let opened = place.open().await;
    let records = opened.put(0..1).await;
    assert!(opened.sealed(&place).is_empty());
    // The committer looks at the time about once a second, first to see that there are records.
    let mut was_sealed = false;
    for _ in 0..200 {
        place.rig.clock.advance(60_000);
        was_sealed = !opened.sealed(&place).is_empty();
        if was_sealed {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(was_sealed);
    opened.settle().await;
    assert_eq!(store.keys().iter().filter(|key| key.ends_with(".seg")).count(), 1);
    opened.assert_has(&records).await;
    // The next one is a new segment.
    opened.put(1..2).await;
    assert_eq!(opened.segments(&place).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_from_before_the_bucket_are_uploaded_too() {
    let before = Place::on_disk();
    let opened = before.open().await;
    let records = opened.put(0..10).await;
    opened.close().await;
    let (mut place, store) = Place::in_memory();
    let s3 = place.rig.options.s3.take();
    let mut rig = before.rig;
    rig.options.s3 = s3;
    let place = Place { rig, store: Some(store.clone()), s3: place.s3 };
    let opened = place.open().await;
    opened.settle().await;
    assert!(store.keys().len() > 2);
    opened.assert_has(&records).await;
    let disk: Arc<dyn Disk> = opened.disk.clone();
    assert!(disk.elsewhere_bytes().unwrap() > 0);
}
