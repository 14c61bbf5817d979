//! The same on a real S3 server.

use std::{
    fs,
    io::Write,
    sync::{Arc, Mutex},
};

use holdfast_runtime::{Step, SystemClock, SystemRandom};
use tracing_subscriber::fmt::MakeWriter;

use super::{
    conformance,
    place::Place,
    server::{ACCESS_KEY, READER_KEY, SECRET, Server},
};
use crate::{
    Error, S3Options,
    object::{ObjectError, ObjectStore, S3Store, open},
};

pub fn place(server: &Server, options: S3Options) -> Place {
    let mut place = Place::in_bucket(server.store(&options), &options.prefix);
    // As the server's clock, which object lock goes by.
    place
        .rig
        .clock
        .now_ms
        .store(holdfast_model::Clock::now_ms(&SystemClock), std::sync::atomic::Ordering::Relaxed);
    place.rig.options.s3 = Some(options.clone());
    place.s3 = options;
    place
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server_keeps_every_promise_of_segments() {
    let server = Server::start().await;
    for bucket in ["locked", "plain"] {
        let place = |name: &str| place(&server, server.options(bucket, name));
        conformance::what_is_written_is_read_back(&place("read")).await;
        conformance::the_listing_is_complete(&place("list")).await;
        conformance::a_start_after_a_kill_has_everything(&place("kill")).await;
        conformance::a_lost_index_is_made_from_the_segments(&place("index")).await;
        conformance::damage_is_found_and_never_served(&place("damage")).await;
        conformance::a_full_disk_stops_and_goes_on(&place("full")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_of_the_node_or_of_the_server_during_uploads_loses_nothing() {
    let mut server = Server::start().await;
    let place = place(&server, server.options("locked", "kills"));
    let opened = place.open().await;
    let records = opened.put(0..20).await;
    let segment = opened.sealed(&place).remove(0);
    let loaded = opened.uploader().load(&segment).await.unwrap();
    opened.uploader().put(&segment, loaded.bytes, &loaded.note).await.unwrap();
    // Killed after the object was created and before it was noted.
    let killed = place.after_a_kill();
    drop(opened);
    let opened = killed.open().await;
    server.kill();
    opened.assert_has(&records).await;
    assert_eq!(opened.uploader().step().await.unwrap(), Step::Idle);
    let status = opened.uploader().status();
    assert!(
        status.last_error.as_ref().is_some_and(|error| error.reason.contains("cannot be reached")),
        "{status:?}"
    );
    server.restart().await;
    // It answers before it has found its own volumes again.
    let mut tries = 0;
    while opened.uploader().status().waiting_segments > 0 {
        tries += 1;
        assert!(tries < 600, "{:?}", opened.uploader().status());
        killed.rig.clock.advance(300_000);
        opened.uploader().step().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    opened.assert_has(&records).await;
    // The whole folder is lost; what was uploaded is there.
    let uploaded = opened.sealed(&killed).iter().filter(|segment| !segment.path().exists()).count();
    opened.close().await;
    let fresh = killed.without_its_folder();
    let opened = fresh.open().await;
    assert_eq!(opened.segments(&fresh).len(), uploaded);
    assert!(opened.node.store().n_records().unwrap() >= 15);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_segment_cannot_be_deleted_and_comes_back_from_a_delete_marker() {
    let server = Server::start().await;
    let place = place(&server, server.options("locked", "lock"));
    let opened = place.open().await;
    let records = opened.put(0..10).await;
    opened.settle().await;
    let segment = opened.sealed(&place).remove(0);
    let (store, key) = (place.store.clone().unwrap(), place.key(&segment));
    let info = store.head(&key).await.unwrap();
    let days = (info.locked_until_ms.unwrap() - holdfast_model::Clock::now_ms(&SystemClock)) / 86_400_000;
    assert!((29..=30).contains(&days), "{days}");
    let version = info.version.unwrap();
    assert!(matches!(store.delete_version(&key, &version).await, Err(ObjectError::Denied { .. })));
    opened.assert_has(&records).await;
    // Without the version, a marker hides it: a start tells so, and the administrator takes the marker away.
    store.overwrite(&key, None).await;
    assert!(matches!(store.head(&key).await, Err(ObjectError::NotFound { .. })));
    let versions = server.client.list_object_versions().bucket("locked").prefix(&key).send().await.unwrap();
    let marker = versions.delete_markers()[0].version_id().unwrap().to_owned();
    let delete = server.client.delete_object().bucket("locked").key(&key).version_id(marker);
    delete.send().await.unwrap();
    opened.assert_has(&records).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_do_not_fit_the_server_are_refused_in_one_line_and_change_nothing() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let good = server.options("locked", "probe");
    let locked = |bucket: &str| S3Options { bucket: bucket.to_owned(), ..good.clone() };
    let nobody = format!("http://127.0.0.1:{}", {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    });
    let cases: Vec<(S3Options, Option<&str>, &str)> = vec![
        (server.options_with("locked", "p", (ACCESS_KEY, "wrong")), Some("s3.access-key-id-file"), "secret"),
        (
            server.options_with("locked", "p", ("nobody", SECRET)),
            Some("s3.access-key-id-file"),
            "knows no such",
        ),
        (server.options_with("locked", "p", (READER_KEY, SECRET)), Some("s3.access-key-id-file"), "may not"),
        (locked("missing"), Some("s3.bucket"), "does not exist"),
        (locked("plain"), Some("s3.bucket"), "has no object lock"),
        (S3Options { endpoint_url: Some(nobody), ..good.clone() }, None, "cannot be reached"),
        (S3Options { access_key_id_file: "/nowhere".into(), ..good.clone() }, None, "/nowhere"),
    ];
    for (s3, named, says) in cases {
        let (place, _) = Place::in_memory();
        let mut options = place.rig.options.clone();
        options.data = folder.path().join("data");
        options.s3 = Some(s3.clone());
        let opened = open(&options, &s3, Arc::new(SystemClock), Arc::new(SystemRandom)).await;
        let Err(error) = opened else { panic!("{says}: it was opened") };
        let line = error.to_string();
        assert!(line.contains(says) && !line.contains('\n') && !line.contains(SECRET), "{says}: {line}");
        let option = if let Error::Option { option, .. } = error { Some(option) } else { None };
        assert_eq!(option, named, "{line}");
        assert!(!options.data.exists());
    }
    let objects = server.client.list_objects_v2().bucket("plain").send().await.unwrap();
    assert_eq!(objects.contents().len(), 0);
    let options = Place::in_memory().0.rig.options;
    open(&options, &good, Arc::new(SystemClock), Arc::new(SystemRandom)).await.unwrap();
}

/// Everything that any crate logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_logged_even_when_everything_is() {
    let server = Server::start().await;
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone());
    tracing::subscriber::set_global_default(subscriber.finish()).unwrap();
    let options = server.options("plain", "log");
    let store = S3Store::new(&options, Arc::new(SystemClock)).unwrap();
    store.put_new("log/a", bytes::Bytes::from_static(b"content-of-a-record"), None).await.unwrap();
    store.get_range("log/a", 0..7).await.unwrap();
    let wrong = server.options_with("plain", "log", (ACCESS_KEY, "an0ther-s3cret-that-is-wrong"));
    let refused = S3Store::new(&wrong, Arc::new(SystemClock)).unwrap().head("log/a").await;
    assert!(matches!(refused, Err(ObjectError::Denied { .. } | ObjectError::Credentials)), "{refused:?}");
    let logged = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(logged.contains("log/a"), "the log was taken");
    assert!(!logged.contains(SECRET));
    assert!(!logged.contains("an0ther-s3cret"));
    let secret = fs::read_to_string(&options.secret_access_key_file).unwrap();
    assert_eq!(secret.trim(), SECRET);
}
