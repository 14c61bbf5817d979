//! What the simulated disk does to files, and what the product makes of it.

use holdfast_storage_node::index::{ChunkIndex as _, IndexBatch, RedbIndex};

use super::*;

fn disk() -> SimDisk {
    let disk = SimDisk::new(SimRandom::new(1, "disk test"), None);
    disk.attach().create_dir(Path::new("/data")).unwrap();
    disk
}

const SYNCS_FAIL: DiskFaults = DiskFaults { sync_fails: 1_000, list_fails: 0, is_full: false };
const LOST: Stop = Stop::PowerLoss(Unsynced::Lost);

fn restart(disk: &SimDisk, how: Stop) -> Arc<dyn Disk> {
    disk.set_faults(DiskFaults::default());
    disk.stop(how);
    disk.attach()
}

#[test]
fn a_name_is_lost_in_a_power_loss_until_its_folder_is_synced() {
    let (disk, path) = (disk(), Path::new("/data/file"));
    disk.attach().write(path, b"bytes").unwrap();
    let process = restart(&disk, Stop::Kill);
    assert_eq!(process.read(path).unwrap(), b"bytes");
    let process = restart(&disk, LOST);
    assert!(!process.exists(path).unwrap());
    process.write(path, b"again").unwrap();
    process.sync_dir(Path::new("/data")).unwrap();
    assert_eq!(restart(&disk, LOST).read(path).unwrap(), b"again");
}

#[test]
fn a_process_that_was_stopped_reaches_nothing_any_more() {
    let (disk, path) = (disk(), Path::new("/data/file"));
    let before = disk.attach();
    let file = before.create(path).unwrap();
    let now = restart(&disk, Stop::Kill);
    assert!(file.write_all_at(b"late", 0).is_err() && before.sync_dir(Path::new("/data")).is_err());
    assert_eq!(now.read(path).unwrap(), b"");
}

#[test]
fn what_a_failed_sync_left_in_memory_is_stored_when_it_is_written_again() {
    let (disk, path) = (disk(), Path::new("/data/file"));
    let process = disk.attach();
    let file = process.create(path).unwrap();
    process.sync_dir(Path::new("/data")).unwrap();
    file.write_all_at(&[7; 10_000], 0).unwrap();
    disk.set_faults(SYNCS_FAIL);
    assert!(file.sync().is_err());
    let process = restart(&disk, Stop::Kill);
    process.write_again(path).unwrap();
    assert_eq!(restart(&disk, LOST).read(path).unwrap(), [7; 10_000]);
}

#[test]
fn an_index_that_could_not_be_synced_is_built_anew() {
    let (disk, path) = (disk(), Path::new("/data/index.redb"));
    let index = RedbIndex::open(disk.attach(), path).unwrap();
    let batch = IndexBatch { progress: vec![("segment".to_owned(), 7)], ..IndexBatch::default() };
    index.apply(&batch).unwrap();
    disk.set_faults(SYNCS_FAIL);
    assert!(index.checkpoint().is_err());
    drop(index);
    let index = RedbIndex::open(restart(&disk, Stop::Kill), path).unwrap();
    assert_eq!(index.progress().unwrap().len(), 0);
    index.apply(&batch).unwrap();
    index.checkpoint().unwrap();
    drop(index);
    let index = RedbIndex::open(restart(&disk, Stop::Kill), path).unwrap();
    assert_eq!(index.progress().unwrap()["segment"], 7);
}
