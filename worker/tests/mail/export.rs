use std::{collections::BTreeSet, path::Path};

use holdfast_model::ExportFormat;
use serde_json::Value;

use crate::{harness::World, support::export::python_reads};

/// What names a message and cannot be chosen by the export.
fn headers(messages: &[Value]) -> Vec<(String, String)> {
    let text = |message: &Value, name: &str| message[name].as_str().unwrap_or_default().trim().to_owned();
    let mut all: Vec<_> =
        messages.iter().map(|message| (text(message, "id"), text(message, "subject"))).collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_read_by_an_independent_reader() {
    let mut world = World::new(25).await;
    world.back_up().await;
    let truth = world.truth().await;
    let mut ids: Vec<&str> = truth.values().map(|message| message.internet_message_id.as_str()).collect();
    ids.sort_unstable();
    let single = world.export_and_read(ExportFormat::Eml).await;
    let found = headers(&single);
    assert_eq!(found.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ids);
    let in_folders = world.export_and_read(ExportFormat::Mbox).await;
    assert_eq!(headers(&in_folders), found, "the same messages, one after the other");
    let n_folders = truth.values().map(|message| &message.folder_path).collect::<BTreeSet<_>>().len();
    let files: BTreeSet<_> = in_folders.iter().map(|message| message["path"].as_str().unwrap()).collect();
    assert_eq!(files.len(), n_folders, "a file per folder");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_holds_the_files_that_the_natural_format_has() {
    let mut world = World::new(25).await;
    world.back_up().await;
    let out = tempfile::tempdir().unwrap();
    let (files, zip) = (out.path().join("eml"), out.path().join("zip"));
    let done = world.export(ExportFormat::Eml, &files).await;
    let zipped = world.export(ExportFormat::Zip, &zip).await;
    assert_eq!((&zipped.failed, zipped.account), (&done.failed, done.account));
    let entries = python_reads(ExportFormat::Zip, &zip);
    assert_eq!(entries.len() as u64, done.account.stored);
    for entry in &entries {
        let bytes = std::fs::read(files.join(Path::new(entry["file"].as_str().unwrap()))).unwrap();
        assert_eq!(entry["blake3"], blake3::hash(&bytes).to_hex().as_str());
    }
}
