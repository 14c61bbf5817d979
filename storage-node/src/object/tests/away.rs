//! A bucket that cannot be reached, or that lists less than it has: never taken for segments that are gone.

use std::{fs, io::ErrorKind, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_model::Millis;
use holdfast_runtime::Step;

use super::place::Place;
use crate::{
    Error, Pace,
    disk::Disk,
    object::{
        ListPage, Listed, MemoryFaults, ObjectDisk, ObjectError, ObjectInfo, ObjectStore, PutNew,
        UploadStatus,
    },
    space::{Space, StopPercents},
    testing::{FaultyDisk, Rig},
};

const SEVEN_SECONDS: Duration = Duration::from_secs(7);

fn away() -> MemoryFaults {
    MemoryFaults { is_away: true, ..MemoryFaults::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_bucket_is_away_ingest_goes_on_and_uploads_catch_up() {
    let (place, store) = Place::in_memory();
    let opened = place.open().await;
    store.set_faults(away());
    let records = opened.put(0..20).await;
    let waiting = opened.sealed(&place).len() as u64;
    assert_eq!(opened.uploader().step().await.unwrap(), Step::Idle);
    let status = opened.uploader().status();
    assert_eq!(status.waiting_segments, waiting);
    let error = status.last_error.unwrap();
    assert!(error.class == "unreachable" && error.reason.contains("cannot be reached"), "{error:?}");
    place.rig.clock.advance(7_000);
    let status = opened.uploader().status();
    assert!(status.failing_for.unwrap() >= SEVEN_SECONDS && status.oldest_age >= SEVEN_SECONDS, "{status:?}");
    opened.assert_has(&records).await;
    store.set_faults(MemoryFaults::default());
    // Its time has not come: no store is asked again and again.
    let keys = store.keys().len();
    place.rig.clock.advance(300_000);
    opened.settle().await;
    // The open segment may have come of age meanwhile.
    assert!(store.keys().len() as u64 >= keys as u64 + waiting);
    assert_eq!(opened.uploader().status(), UploadStatus::default());
    opened.assert_has(&records).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_bucket_is_asked_less_and_less_often() {
    let (place, store) = Place::in_memory();
    let opened = place.open().await;
    opened.put(0..10).await;
    store.set_faults(MemoryFaults { loses_answers: true, ..MemoryFaults::default() });
    assert_eq!(opened.uploader().step().await.unwrap(), Step::Idle);
    let segment = opened.sealed(&place).remove(0);
    assert!(segment.path().exists(), "its answer was lost: nobody knows that it is there");
    store.set_faults(MemoryFaults::default());
    place.rig.clock.advance(300_000);
    // The object is there already, with the same bytes.
    opened.settle().await;
    assert!(!segment.path().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_now_is_not_damaged() {
    let (place, store) = Place::in_memory();
    let opened = place.open().await;
    let records = opened.put(0..20).await;
    opened.settle().await;
    let sealed = opened.sealed(&place);
    store.set_faults(away());
    let mut failed = 0;
    for id in records.keys() {
        failed += usize::from(opened.get(*id).await.is_err());
    }
    assert!(failed >= 15, "{failed}");
    let mut is_told = false;
    while !is_told {
        match opened.node.scrub_step(1, Pace::AtOnce).await {
            Ok(step) => assert_eq!(step, Step::More, "the scrub came to its end without the objects"),
            Err(_) => is_told = true,
        }
    }
    let error = opened.disk.read(&sealed[0].path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HostUnreachable);
    assert_eq!(opened.node.store().n_damaged(), 0);
    store.set_faults(MemoryFaults::default());
    opened.assert_has(&records).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_its_bucket_fails_and_changes_nothing() {
    let (place, store) = Place::in_memory();
    store.set_faults(away());
    assert!(matches!(place.try_open().await, Err(Error::Objects(ObjectError::Unreachable { .. }))));
    assert!(!place.rig.options.data.exists());
    store.set_faults(MemoryFaults::default());
    let opened = place.open().await;
    let records = opened.put(0..20).await;
    opened.settle().await;
    opened.close().await;
    let index = fs::read(place.rig.options.data.join("index.redb")).unwrap();
    // The listing breaks off in the middle: never a start with the half of it.
    for page in 0..2 {
        store.set_faults(MemoryFaults { fails_page: Some(page), ..MemoryFaults::default() });
        assert!(matches!(place.try_open().await, Err(Error::Objects(ObjectError::Unreachable { .. }))));
    }
    assert!(store.keys().len() > 6);
    assert!(index == fs::read(place.rig.options.data.join("index.redb")).unwrap());
    store.set_faults(MemoryFaults::default());
    place.open().await.assert_has(&records).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_cannot_read_its_objects_takes_none_for_damaged() {
    let (place, store) = Place::in_memory();
    let opened = place.open().await;
    let records = opened.put(0..20).await;
    opened.settle().await;
    opened.close().await;
    // Without its notes it has to read the frame of each, without its index all footers too.
    for lost in ["objects.redb", "index.redb"] {
        fs::remove_file(place.rig.options.data.join(lost)).unwrap();
        store.set_faults(MemoryFaults { fails_reads: true, ..MemoryFaults::default() });
        assert!(matches!(place.try_open().await, Err(Error::Io { .. })), "without {lost}");
        store.set_faults(MemoryFaults::default());
        let opened = place.open().await;
        opened.assert_has(&records).await;
        opened.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_the_bucket_does_not_fill_the_disk() {
    let rig = Rig::new();
    let dir = rig.options.data.join("segments");
    fs::create_dir_all(&dir).unwrap();
    rig.faults.used_percent.store(98, std::sync::atomic::Ordering::Relaxed);
    let (name, bytes) = (format!("data-{}.seg", "ab".repeat(16)), 20 << 30);
    let object = Listed { key: format!("p/{name}"), len: bytes };
    let store = Arc::new(Lists(vec![ListPage { objects: vec![object], next: None }]));
    let local = Arc::new(FaultyDisk(rig.faults.clone()));
    let disk = ObjectDisk::connect(local.clone(), store, "p/".to_owned(), &rig.options.data).await.unwrap();
    assert_eq!(disk.list(&dir).unwrap().len(), 1);
    let is_stopped = |disk: Arc<dyn Disk>| {
        let space = Space::new(disk, dir.clone(), 1 << 40, StopPercents { ingest: 90, repair: 85 });
        space.add(bytes);
        space.refresh();
        (space.stopped().is_some(), space.free_bytes())
    };
    assert_eq!(is_stopped(Arc::new(disk)), (false, (1 << 40) - bytes));
    assert_eq!(is_stopped(local), (true, 2 << 30));
}

/// Lists what it is given, page by page.
struct Lists(Vec<ListPage>);

#[async_trait]
impl ObjectStore for Lists {
    async fn put_new(&self, _: &str, _: Bytes, _: Option<Millis>) -> Result<PutNew, ObjectError> {
        Err(ObjectError::Stopping)
    }
    async fn get_range(&self, _: &str, _: std::ops::Range<u64>) -> Result<Bytes, ObjectError> {
        Err(ObjectError::Stopping)
    }
    async fn head(&self, _: &str) -> Result<ObjectInfo, ObjectError> {
        Err(ObjectError::Stopping)
    }
    async fn list_page(&self, _: &str, from: Option<String>) -> Result<ListPage, ObjectError> {
        let n = from.map_or(0, |from| from.parse().unwrap());
        Ok(self.0[n].clone())
    }
    async fn is_lockable(&self) -> Result<bool, ObjectError> {
        Err(ObjectError::Stopping)
    }
    async fn delete_version(&self, _: &str, _: &str) -> Result<(), ObjectError> {
        Err(ObjectError::Stopping)
    }
}

fn page(keys: &[&str], next: Option<&str>) -> ListPage {
    let objects = keys.iter().map(|key| Listed { key: (*key).to_owned(), len: 1 }).collect();
    ListPage { objects, next: next.map(str::to_owned) }
}

#[tokio::test]
async fn a_listing_that_cannot_be_complete_is_an_error() {
    async fn listed(pages: Vec<ListPage>) -> Result<usize, ObjectError> {
        let store: Arc<dyn ObjectStore> = Arc::new(Lists(pages));
        Ok(store.list("p/").await?.len())
    }
    let good = vec![page(&["p/a", "p/b"], Some("1")), page(&[], Some("2")), page(&["p/c"], None)];
    assert_eq!(listed(good).await, Ok(3));
    for bad in [
        vec![page(&["p/b", "p/a"], None)],
        vec![page(&["p/a"], Some("1")), page(&["p/a"], None)],
        vec![page(&["q/a"], None)],
        vec![page(&["p/a"], Some("1")), page(&[], Some("1"))],
    ] {
        assert!(matches!(listed(bad).await, Err(ObjectError::Listing { .. })));
    }
}
