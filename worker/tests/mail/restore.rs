use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use holdfast_graph_sim::{Population, SimOptions, TruthMessage};
use holdfast_model::{ConflictPolicy, ExportFormat};
use holdfast_worker::{
    JobError, backup::Progress, export::ExportJob, verify::VerifyJob,
    workload::snapshot_folders::SnapshotFolders,
};
use serde_json::json;

use crate::{
    harness::{READ_AHEAD_BYTES, World, failures},
    support::export::python_reads,
};

/// What must be the same before and after, by internet message id and folder.
fn comparable(truth: BTreeMap<String, TruthMessage>) -> Vec<TruthMessage> {
    let mut all: Vec<TruthMessage> = truth
        .into_values()
        .map(|message| {
            let mut attachments = message.attachments;
            attachments.sort_by(|a, b| (&a.name, &a.blake3).cmp(&(&b.name, &b.blake3)));
            TruthMessage { id: String::new(), attachments, ..message }
        })
        .collect();
    all.sort_by(|a, b| {
        (&a.internet_message_id, &a.folder_path).cmp(&(&b.internet_message_id, &b.folder_path))
    });
    all
}

fn assert_same(before: &[TruthMessage], after: &[TruthMessage]) {
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(after) {
        let mut after = after.clone();
        for (old, new) in before.attachments.iter().zip(&mut after.attachments) {
            // An item attachment is written anew: its bytes are not those of before.
            if old.kind != "file" {
                new.clone_from(old);
            }
        }
        let (before, after) = (serde_json::to_value(before).unwrap(), serde_json::to_value(&after).unwrap());
        for (property, value) in before.as_object().unwrap() {
            assert_eq!(*value, after[property], "{property} of {}", before["subject"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_mailbox_is_restored_property_by_property_and_once() {
    let mut world = World::new(40).await;
    world.back_up().await;
    let before = comparable(world.truth().await);
    world.control("wipe", json!({"user": world.user.id})).await;
    assert!(world.truth().await.is_empty());
    let restored = world.restore("r1", "", ConflictPolicy::Skip).await;
    assert_eq!(restored.account.stored, before.len() as u64, "{:?} {:?}", restored.account, restored.failed);
    assert_same(&before, &comparable(world.truth().await));

    let again = world.restore("r1", "", ConflictPolicy::Rename).await;
    assert_eq!((again.account.stored, again.account.unchanged), (0, before.len() as u64));
    let other = world.restore("r2", "", ConflictPolicy::Skip).await;
    assert_eq!((other.account.stored, failures(&other.account)), (0, 0));
    assert_eq!(world.truth().await.len(), before.len());

    let replaced = world.restore("r3", "", ConflictPolicy::Replace).await;
    assert_eq!(replaced.account.stored, before.len() as u64);
    assert_same(&before, &comparable(world.truth().await));
    assert_eq!(world.counters().would_have_sent_mail, 0);
    assert!(world.counters().openapi_violations.is_empty(), "{:?}", world.counters().openapi_violations);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn into_restores_everything_below_one_folder() {
    let mut world = World::new(12).await;
    world.back_up().await;
    let n = world.truth().await.len();
    let restored = world.restore("r1", "/Restored/2026", ConflictPolicy::Skip).await;
    assert_eq!(restored.account.stored, n as u64);
    let below = world
        .truth()
        .await
        .into_values()
        .filter(|message| message.folder_path.starts_with("/Restored/2026/"));
    assert_eq!(below.count(), n);
}

fn large_messages() -> SimOptions {
    SimOptions {
        population: Population {
            users: 1,
            messages_per_user: 12,
            total_bytes: 60_000_000,
            max_message_bytes: 12_000_000,
            ..Population::default()
        },
        ..SimOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_attachments_go_through_the_staging_folder_and_upload_sessions() {
    let mut world = World::with(large_messages()).await;
    world.back_up().await;
    let before = comparable(world.truth().await);
    let is_large = |message: &TruthMessage| message.attachments.iter().any(|one| one.size > 3_500_000);
    assert!(before.iter().any(is_large), "the mailbox has a large attachment");
    world.control("wipe", json!({"user": world.user.id})).await;
    let restored = world.restore("r1", "", ConflictPolicy::Skip).await;
    assert_eq!(
        (restored.account.stored, restored.failed.len()),
        (before.len() as u64, 0),
        "{:?}",
        restored.failed
    );
    assert_same(&before, &comparable(world.truth().await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_attachments_are_refused_a_message_comes_back_as_a_draft_and_says_so() {
    let options = SimOptions { attachments_on_non_drafts: false, ..large_messages() };
    let mut world = World::with(options).await;
    world.back_up().await;
    let n = world.truth().await.len() as u64;
    world.control("wipe", json!({"user": world.user.id})).await;
    let restored = world.restore("r1", "", ConflictPolicy::Skip).await;
    assert_eq!(restored.account.stored, n);
    assert!(!restored.failed.is_empty());
    assert!(restored.failed.iter().all(|failed| failed.code == "RestoredAsDraft"), "{:?}", restored.failed);
    assert_eq!(restored.account.incomplete, restored.failed.len() as u64);
    assert!(restored.account.has_exceptions());
}

/// Every finished file of an export.
fn files_under(folder: &Path) -> Vec<PathBuf> {
    let (mut folders, mut files) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            assert!(!path.to_string_lossy().ends_with(".part"));
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_proves_a_snapshot_and_finds_a_damaged_chunk() {
    let mut world = World::new(25).await;
    world.back_up().await;
    let job = VerifyJob {
        pin: world.base.clone().unwrap(),
        sample_percent: 100,
        read_ahead_bytes: READ_AHEAD_BYTES,
    };
    let run = || job.run(world.store.clone(), world.keys.clone(), Arc::new(Progress::default()));
    let proved = run().await.unwrap();
    assert!(proved.failed.is_empty() && proved.account.stored > 0 && proved.account.adds_up());
    let largest = world
        .store
        .records()
        .into_iter()
        .filter(|record| record.header.kind == holdfast_record::RecordKind::Data)
        .max_by_key(|record| record.ciphertext.len())
        .unwrap();
    world.store.damage(largest.header.id);
    let damaged = run().await.unwrap();
    assert!(!damaged.failed.is_empty());
    assert!(damaged.failed.iter().all(|failed| failed.code == "unreadable"));
    assert!(damaged.account.adds_up());

    // Whatever else there is comes back, in both kinds of export and at Microsoft.
    let n_lost = damaged.failed.len() as u64;
    let n_left = world.truth().await.len() as u64 - n_lost;
    let out = tempfile::tempdir().unwrap();
    for format in [ExportFormat::Eml, ExportFormat::Mbox, ExportFormat::Zip] {
        let export = ExportJob {
            pin: world.base.clone().unwrap(),
            paths: Vec::new(),
            format,
            out: out.path().join(format!("{format:?}")),
            read_ahead_bytes: READ_AHEAD_BYTES,
        };
        let progress = Arc::new(Progress::default());
        let done = export.run(world.store.clone(), world.keys.clone(), progress).await.unwrap();
        assert_eq!((done.account.stored, done.account.failed_permanent), (n_left, n_lost), "{format:?}");
        assert!(done.account.adds_up() && done.failed.iter().all(|failed| failed.code == "unreadable"));
    }
    let starts: usize = files_under(&out.path().join("Mbox"))
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .map(|bytes| bytes.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"From ")).count())
        .sum();
    assert_eq!(starts as u64, n_left, "no half message is in an mbox");
    let zipped = python_reads(ExportFormat::Zip, &out.path().join("Zip"));
    assert_eq!(zipped.len() as u64, n_left, "no half message is in an archive");
    world.control("wipe", json!({"user": world.user.id})).await;
    let restored = world.restore("r1", "", ConflictPolicy::Skip).await;
    assert_eq!((restored.account.stored, restored.account.failed_permanent), (n_left, n_lost));
    assert!(restored.account.has_exceptions() && restored.account.adds_up());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_or_one_item_comes_back_alone_and_a_wrong_path_says_so() {
    let mut world = World::new(30).await;
    world.back_up().await;
    let truth = world.truth().await;
    let in_inbox = |path: &str| path == "/Inbox" || path.starts_with("/Inbox/");
    let n_inbox = truth.values().filter(|message| in_inbox(&message.folder_path)).count();
    let (one, _) = truth.iter().find(|(_, message)| !in_inbox(&message.folder_path)).unwrap();
    world.control("wipe", json!({"user": world.user.id})).await;
    let to = |key| (key, "", ConflictPolicy::Skip);
    let restored = world.restore_paths(&["/inbox/"], to("r1")).await.unwrap();
    assert_eq!(restored.account.stored, n_inbox as u64);
    assert!(world.truth().await.values().all(|message| in_inbox(&message.folder_path)));
    let restored = world.restore_paths(&[one], to("r2")).await.unwrap();
    assert_eq!((restored.account.listed, restored.account.stored), (1, 1));
    assert_eq!(world.truth().await.len(), n_inbox + 1);
    let wrong = world.restore_paths(&["/Nowhere"], to("r3")).await;
    assert!(matches!(wrong, Err(JobError::NoSuchPath { path }) if path == "/Nowhere"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_folders_than_a_job_holds_are_an_error_and_not_left_out() {
    let mut world = World::new(5).await;
    world.back_up().await;
    let reader = world.reader().await;
    let n = SnapshotFolders::read(&reader).await.unwrap().all().len();
    assert_eq!(SnapshotFolders::read_at_most(&reader, n).await.unwrap().all().len(), n);
    let error = SnapshotFolders::read_at_most(&reader, n - 1).await.err().unwrap();
    assert!(matches!(error, JobError::TooManyFolders { limit } if limit == n - 1), "{error}");
    let release = error.release().unwrap();
    assert_eq!(release.code, "too-many-folders");
    assert!(release.message.contains("please report"), "{}", release.message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_under_throttling_and_lost_connections_makes_no_duplicates() {
    let mut world = World::new(40).await;
    world.back_up().await;
    let n = world.truth().await.len();
    world.control("wipe", json!({"user": world.user.id})).await;
    world
        .faults(
            json!({"seed": 3, "rate-429": 0.02, "rate-503": 0.03, "rate-reset": 0.05, "rate-truncate": 0.1}),
        )
        .await;
    let mut last = world.restore_paths(&[], ("r1", "", ConflictPolicy::Rename)).await;
    for _ in 0..10 {
        if last.is_ok() {
            break;
        }
        // As the coordinator would: the next attempt has the same restore key.
        last = world.restore_paths(&[], ("r1", "", ConflictPolicy::Rename)).await;
    }
    let account = last.unwrap().account;
    assert_eq!((account.stored + account.unchanged) as usize, n, "{account:?}");
    assert_eq!(world.truth().await.len(), n);
    assert_eq!(world.counters().would_have_sent_mail, 0);
}
