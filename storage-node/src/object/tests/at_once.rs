//! Several segments are uploaded at the same time: how many, and that none depends on another.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_model::Millis;
use holdfast_runtime::Step;
use tokio::sync::Barrier;

use super::place::{Opened, Place, TestStore};
use crate::{
    object::{
        ListPage, MemoryStore, ObjectError, ObjectInfo, ObjectStore, PutNew,
        progress::{Progress, UPLOAD_BYTES_AT_ONCE, UPLOADS_AT_ONCE},
    },
    segment::SegmentFile,
};

/// Nobody waits so long but for a call that never comes.
const NEVER: Duration = Duration::from_secs(60);

/// A store whose creates of segments wait until as many are running as may.
struct Together {
    inner: MemoryStore,
    all_running: Barrier,
    running: AtomicUsize,
    running_max: AtomicUsize,
    /// The key that is not taken.
    refused: Mutex<Option<String>>,
    /// The key that is read back otherwise than it was sent.
    garbled: Mutex<Option<String>>,
}

impl Together {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::new(100),
            all_running: Barrier::new(UPLOADS_AT_ONCE),
            running: AtomicUsize::new(0),
            running_max: AtomicUsize::new(0),
            refused: Mutex::default(),
            garbled: Mutex::default(),
        })
    }

    fn refuse(&self, key: Option<String>) {
        *self.refused.lock().unwrap() = key;
    }

    fn segments(&self) -> Vec<String> {
        self.inner.keys().into_iter().filter(|key| key.ends_with(".seg")).collect()
    }
}

#[async_trait]
impl TestStore for Together {
    async fn overwrite(&self, key: &str, bytes: Option<Bytes>) {
        self.inner.overwrite(key, bytes).await;
    }
}

#[async_trait]
impl ObjectStore for Together {
    async fn put_new(
        &self,
        key: &str,
        bytes: Bytes,
        locked_until_ms: Option<Millis>,
    ) -> Result<PutNew, ObjectError> {
        if key.ends_with(".seg") {
            let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
            self.running_max.fetch_max(running, Ordering::SeqCst);
            tokio::time::timeout(NEVER, self.all_running.wait()).await.expect("as many at once as may");
            self.running.fetch_sub(1, Ordering::SeqCst);
        }
        if self.refused.lock().unwrap().as_deref() == Some(key) {
            return Err(ObjectError::Server { action: "create an object", code: "SlowDown".to_owned() });
        }
        self.inner.put_new(key, bytes, locked_until_ms).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, ObjectError> {
        let bytes = self.inner.get_range(key, range).await?;
        if self.garbled.lock().unwrap().as_deref() == Some(key) {
            return Ok(bytes.iter().map(|byte| byte ^ 1).collect());
        }
        Ok(bytes)
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo, ObjectError> {
        self.inner.head(key).await
    }

    async fn list_page(&self, prefix: &str, from: Option<String>) -> Result<ListPage, ObjectError> {
        self.inner.list_page(prefix, from).await
    }

    async fn is_lockable(&self) -> Result<bool, ObjectError> {
        self.inner.is_lockable().await
    }

    async fn delete_version(&self, key: &str, version: &str) -> Result<(), ObjectError> {
        self.inner.delete_version(key, version).await
    }
}

async fn open_with_segments(store: &Arc<Together>) -> (Place, Opened) {
    let place = Place::in_bucket(store.clone(), "at-once");
    let opened = place.open().await;
    // Three fill a segment.
    opened.put(0..48).await;
    assert!(opened.sealed(&place).len() >= 3 * UPLOADS_AT_ONCE);
    (place, opened)
}

fn local(opened: &Opened, place: &Place) -> Vec<String> {
    let sealed = opened.sealed(place).into_iter();
    sealed.filter(|segment| segment.path().exists()).map(|segment| segment.name()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_segments_are_uploaded_at_once_as_may_and_never_more() {
    let store = Together::new();
    let (place, opened) = open_with_segments(&store).await;
    for n in 1..=2 {
        assert_eq!(opened.uploader().step().await.unwrap(), Step::More);
        assert_eq!(store.segments().len(), n * UPLOADS_AT_ONCE);
    }
    assert_eq!(store.running_max.load(Ordering::SeqCst), UPLOADS_AT_ONCE);
    for name in local(&opened, &place) {
        assert!(!store.segments().contains(&format!("at-once/test/1/{name}")), "uploaded and still here");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_the_store_does_not_take_stays_and_holds_up_no_other() {
    let store = Together::new();
    let (place, opened) = open_with_segments(&store).await;
    let waiting = local(&opened, &place);
    store.refuse(Some(format!("at-once/test/1/{}", waiting[0])));
    assert_eq!(opened.uploader().step().await.unwrap(), Step::Idle);
    assert_eq!(store.segments().len(), UPLOADS_AT_ONCE - 1);
    let left = local(&opened, &place);
    assert_eq!(left[0], waiting[0], "its only copy here");
    assert_eq!(left[1..], waiting[UPLOADS_AT_ONCE..]);
    assert_eq!(opened.uploader().status().last_error.unwrap().class, "server");
    // It is not away: it is asked again after a second, with the next of them, until it takes that one too.
    place.rig.clock.advance(1_000);
    assert_eq!(opened.uploader().step().await.unwrap(), Step::Idle);
    assert_eq!(store.segments().len(), 2 * (UPLOADS_AT_ONCE - 1));
    assert!(opened.uploader().status().failing_for.unwrap() >= Duration::from_secs(1), "since the first");
    store.refuse(None);
    place.rig.clock.advance(1_000);
    assert_eq!(opened.uploader().step().await.unwrap(), Step::More);
    assert!(!local(&opened, &place).contains(&waiting[0]));
    assert_eq!(opened.uploader().status().failing_for, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_reads_back_otherwise_stays_while_those_beside_it_go() {
    let store = Together::new();
    let (place, opened) = open_with_segments(&store).await;
    let waiting = local(&opened, &place);
    *store.garbled.lock().unwrap() = Some(format!("at-once/test/1/{}", waiting[1]));
    assert_eq!(opened.uploader().step().await.unwrap(), Step::More);
    assert_eq!(store.segments().len(), UPLOADS_AT_ONCE, "all of them were created");
    let left = local(&opened, &place);
    assert_eq!(left[0], waiting[1], "its own read-back counts, no other");
    assert_eq!(left[1..], waiting[UPLOADS_AT_ONCE..]);
    let status = opened.uploader().status();
    assert_eq!((status.held_segments, status.last_error.unwrap().class), (1, "other-bytes"));
}

fn journal(lens: &[u64]) -> Vec<(SegmentFile, u64)> {
    let segment = |n: usize| {
        let name = format!("data-{n:032x}.seg");
        SegmentFile::parse(std::path::Path::new("/"), &name).unwrap()
    };
    lens.iter().enumerate().map(|(n, len)| (segment(n), *len)).collect()
}

#[test]
fn what_is_uploaded_at_once_fits_the_memory_for_it_unless_one_alone_does_not() {
    let batch = |lens: &[u64]| Progress::default().next_batch(journal(lens), Duration::ZERO).len();
    let default_size = 64 << 20;
    assert_eq!(batch(&[default_size; 9]), UPLOADS_AT_ONCE);
    assert_eq!(batch(&[UPLOAD_BYTES_AT_ONCE / 2; 9]), 2);
    assert_eq!(batch(&[UPLOAD_BYTES_AT_ONCE, 1]), 1);
    assert_eq!(batch(&[1, UPLOAD_BYTES_AT_ONCE, 1]), 1);
    assert_eq!(batch(&[4 * UPLOAD_BYTES_AT_ONCE, 1]), 1);
    assert_eq!(batch(&[]), 0);
}

#[test]
fn the_age_of_what_waits_is_that_of_the_oldest_and_ends_with_it() {
    let mut progress = Progress::default();
    let at = Duration::from_secs;
    progress.next_batch(journal(&[1, 2]), at(10));
    progress.next_batch(journal(&[1, 2, 3]), at(15));
    let status = progress.status(at(17));
    assert_eq!((status.waiting_segments, status.waiting_bytes, status.oldest_age), (3, 6, at(7)));
    progress.next_batch(journal(&[1, 2, 3]).split_off(2), at(18));
    assert_eq!(progress.status(at(18)).oldest_age, at(3));
    progress.next_batch(Vec::new(), at(20));
    assert_eq!(progress.status(at(20)).oldest_age, at(0));
}
