use std::time::UNIX_EPOCH;

use holdfast_model::ExportFormat;
use serde_json::json;

use crate::{
    harness::{World, blake3_hex},
    support::export::python_reads,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_have_their_names_contents_and_times() {
    let mut world = World::new(30).await;
    world.back_up().await;
    let out = tempfile::tempdir().unwrap();
    let done = world.export(ExportFormat::Files, out.path()).await;
    assert_eq!(done.failed, []);
    let truth = world.truth_by_id().await;
    let files: Vec<_> = truth.values().filter(|one| one["kind"] == "file").collect();
    assert_eq!(files.len(), 30);
    for file in files {
        let path = out.path().join(file["identity"].as_str().unwrap().trim_start_matches('/'));
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(json!(blake3_hex(&bytes)), file["blake3"]);
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        let expected: jiff::Timestamp = file["lastModifiedDateTime"].as_str().unwrap().parse().unwrap();
        let found = modified.duration_since(UNIX_EPOCH).unwrap().as_millis();
        assert_eq!(i128::try_from(found).unwrap(), i128::from(expected.as_millisecond()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_has_names_contents_and_times() {
    let mut world = World::new(30).await;
    world.back_up().await;
    let out = tempfile::tempdir().unwrap();
    let done = world.export(ExportFormat::Zip, out.path()).await;
    assert_eq!(done.failed, []);
    let entries = python_reads(ExportFormat::Zip, out.path());
    let truth = world.truth_by_id().await;
    let files: Vec<_> = truth.values().filter(|one| one["kind"] == "file").collect();
    assert_eq!(entries.len(), files.len());
    for file in files {
        let name = file["identity"].as_str().unwrap().trim_start_matches('/');
        let entry = entries.iter().find(|entry| entry["file"] == name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(entry["blake3"], file["blake3"]);
        let modified: jiff::Timestamp = file["lastModifiedDateTime"].as_str().unwrap().parse().unwrap();
        assert_eq!(entry["modified"], json!(modified.as_second()));
        assert_eq!(entry["civil"][0], json!(modified.to_zoned(jiff::tz::TimeZone::UTC).year()));
    }
    let names: Vec<_> =
        std::fs::read_dir(out.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let snapshot = world.base.as_ref().unwrap().snapshot.to_string();
    assert_eq!(names, [std::ffi::OsString::from(format!("{snapshot}.zip"))]);
}
