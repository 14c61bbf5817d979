//! Buckets that a node must not be started on: one line each, and nothing changed.

use std::sync::Arc;

use super::place::Place;
use crate::{
    Error, LockOption,
    object::{MemoryFaults, MemoryStore, ObjectError, ObjectStore, probe},
};

const NOW: u64 = 1_000_000;
const HOUR: u64 = 3_600_000;

fn store(faults: MemoryFaults) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new(10));
    store.set_faults(faults);
    store
}

/// The option that is named, and the line.
async fn refused(faults: MemoryFaults) -> (&'static str, String) {
    let error = probe(&*store(faults), "p/", true, NOW).await.unwrap_err();
    let line = error.to_string();
    assert!(!line.contains('\n') && !line.ends_with('.'), "{line}");
    match error {
        Error::Option { option, .. } => (option, line),
        Error::Objects(_) => ("", line),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn each_bucket_that_does_not_fit_is_told_in_one_line() {
    let default = MemoryFaults::default;
    let (option, line) = refused(MemoryFaults { overwrites: true, ..default() }).await;
    assert!(option == "s3.bucket" && line.contains("If-None-Match"), "{line}");
    let (option, line) = refused(MemoryFaults { has_no_lock: true, ..default() }).await;
    assert!(option == "s3.bucket" && line.contains("has no object lock"), "{line}");
    let (option, line) = refused(MemoryFaults { ignores_locks: true, ..default() }).await;
    assert!(option == "s3.bucket" && line.contains("does not enforce object lock"), "{line}");
    let (option, line) = refused(MemoryFaults { refuses: Some(ObjectError::NoBucket), ..default() }).await;
    assert!(option == "s3.bucket" && line.contains("does not exist"), "{line}");
    let (option, line) = refused(MemoryFaults { refuses: Some(ObjectError::Credentials), ..default() }).await;
    assert!(option == "s3.access-key-id-file" && line.contains("secret-access-key-file"), "{line}");
    let denied = ObjectError::Denied { action: "list the bucket" };
    let (option, line) = refused(MemoryFaults { refuses: Some(denied), ..default() }).await;
    assert!(option == "s3.access-key-id-file" && line.contains("may not list the bucket"), "{line}");
    // Not a setting: it may be there again in a minute.
    let (option, line) = refused(MemoryFaults { is_away: true, ..default() }).await;
    assert!(option.is_empty() && line.contains("cannot be reached"), "{line}");
}

#[tokio::test]
async fn a_good_bucket_passes_again_and_again_and_keeps_one_object() {
    let store = store(MemoryFaults::default());
    for hours in [0, 1, 23, 25, 49] {
        probe(&*store, "p/", true, NOW + hours * HOUR).await.unwrap();
        assert_eq!(store.keys(), ["p/probe"]);
    }
    // A role that may delete no version at all is as good.
    store.set_faults(MemoryFaults::default());
    let until = store.head("p/probe").await.unwrap().locked_until_ms.unwrap();
    assert!(until > NOW);
}

#[tokio::test]
async fn an_old_probe_whose_lock_has_ended_proves_nothing_and_is_made_anew() {
    let store = store(MemoryFaults { ignores_locks: true, ..MemoryFaults::default() });
    // Without a lock, as a start with `lock = "none"` left it.
    probe(&*store, "p/", false, NOW).await.unwrap();
    let error = probe(&*store, "p/", true, NOW).await.unwrap_err().to_string();
    assert!(error.contains("does not enforce object lock"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_on_such_a_bucket_does_not_start_and_makes_no_folder() {
    let (place, store) = Place::in_memory();
    store.set_faults(MemoryFaults { has_no_lock: true, ..MemoryFaults::default() });
    assert!(matches!(place.try_open().await, Err(Error::Option { option: "s3.bucket", .. })));
    assert!(!place.rig.options.data.exists());
    // Told to do without, it starts, and nothing is locked.
    let (mut place, store) = Place::in_memory();
    store.set_faults(MemoryFaults { has_no_lock: true, ..MemoryFaults::default() });
    place.s3.lock = LockOption::None;
    let opened = place.open().await;
    opened.put(0..10).await;
    opened.settle().await;
    let key = place.key(&opened.sealed(&place)[0]);
    assert_eq!(store.head(&key).await.unwrap().locked_until_ms, None);
}

#[test]
fn options_that_cannot_be_used_are_refused_by_name() {
    let (place, _) = Place::in_memory();
    let refused = |change: fn(&mut crate::S3Options)| {
        let mut options = place.rig.options.clone();
        change(options.s3.as_mut().unwrap());
        match options.check() {
            Err(Error::Option { option, .. }) => option,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(|s3| s3.bucket.clear()), "s3.bucket");
    assert_eq!(refused(|s3| s3.region.clear()), "s3.region");
    for url in ["ftp://a", "https://", "http://user:secret@host", "host:80", "http://host/bucket"] {
        let mut options = place.rig.options.clone();
        options.s3.as_mut().unwrap().endpoint_url = Some(url.to_owned());
        let error = options.check().unwrap_err().to_string();
        assert!(error.contains("s3.endpoint-url") && !error.contains("secret"), "{error}");
    }
    assert_eq!(refused(|s3| s3.upload_bytes = holdfast_runtime::ByteSize::kib(1)), "s3.upload-bytes");
    assert_eq!(refused(|s3| s3.upload_bytes = holdfast_runtime::ByteSize::gib(1)), "s3.upload-bytes");
    assert_eq!(refused(|s3| s3.upload_seconds = 0), "s3.upload-seconds");
    assert_eq!(refused(|s3| s3.lock_days = 0), "s3.lock-days");
    assert!(place.rig.options.check().is_ok());
}

#[cfg(not(feature = "s3"))]
#[tokio::test]
async fn a_build_without_s3_says_so() {
    let (place, _) = Place::in_memory();
    let (clock, random) = (place.rig.clock.clone(), Arc::new(holdfast_runtime::SystemRandom));
    let opened = crate::object::open(&place.rig.options, &place.s3, clock, random).await;
    let Err(Error::Option { option: "s3", problem }) = opened else { panic!("it was opened") };
    assert!(problem.contains("this build has no S3"), "{problem}");
}
