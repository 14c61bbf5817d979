//! How fast segments get into a bucket. Run alone, optimised:
//! `cargo nextest run --release -p holdfast-storage-node --features s3 --run-ignored all --no-capture -E 'test(rate_of_uploads)'`.

use std::time::Duration;

use holdfast_model::Clock as _;
use holdfast_runtime::{ByteSize, Step, SystemClock};

use super::{
    place::{Opened, Place},
    seaweed::place,
    server::Server,
};
use crate::{
    object::{load::Loaded, progress::UPLOADS_AT_ONCE},
    testing::{SESSION, caller, record},
};

const SEGMENTS: u32 = 8;
const RECORDS_PER_SEGMENT: u32 = 63;
const RECORD_BYTES: usize = 1 << 20;

/// A node on a server of its own, with segments of the default size that wait; and their bytes.
async fn waiting(server: &Server) -> (Place, Opened, u64) {
    let mut options = server.options("locked", "rate");
    options.upload_bytes = ByteSize::mib(64);
    let place = place(server, options);
    let opened = place.open().await;
    for n in 0..=SEGMENTS * RECORDS_PER_SEGMENT {
        let one = record(n, RECORD_BYTES).encode();
        let put = opened.node.replicate(&caller(1), SESSION, vec![one]).await.unwrap();
        assert!(put.reason.is_empty(), "{}", put.reason);
    }
    let sealed = opened.sealed(&place);
    let bytes = sealed.iter().map(|segment| segment.path().metadata().unwrap().len()).sum();
    (place, opened, bytes)
}

#[allow(clippy::cast_precision_loss)]
fn tell(how: &str, bytes: u64, took: Duration) {
    eprintln!(
        "{how}: {:.0} MiB/s ({bytes} bytes in {took:?})",
        bytes as f64 / 1_048_576.0 / took.as_secs_f64()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of a minute, which is told and not judged"]
async fn the_rate_of_uploads_one_at_a_time_and_several() {
    let server = Server::start().await;
    let (place, opened, bytes) = waiting(&server).await;
    let began = SystemClock.monotonic();
    for segment in opened.sealed(&place) {
        let Loaded { bytes, note } = opened.uploader().load(&segment).await.unwrap();
        opened.uploader().put(&segment, bytes, &note).await.unwrap();
        opened.uploader().settle(&segment, note).await.unwrap();
    }
    tell("1 at a time", bytes, SystemClock.monotonic().saturating_sub(began));
    drop((server, opened));

    let server = Server::start().await;
    let (place, opened, bytes) = waiting(&server).await;
    let began = SystemClock.monotonic();
    while opened.uploader().step().await.unwrap() == Step::More {}
    tell(&format!("{UPLOADS_AT_ONCE} at once"), bytes, SystemClock.monotonic().saturating_sub(began));
    assert!(opened.sealed(&place).iter().all(|segment| !segment.path().exists()));
    assert_eq!(opened.uploader().status().last_error, None);
}
