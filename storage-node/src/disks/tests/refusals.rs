//! What is no disk of the node is refused in one line, and nothing is changed.

use super::*;
use crate::{LockOption, S3Options};

/// A stopped node with two disks, the second of which is given back with it.
async fn stopped() -> (Rig, PathBuf) {
    let mut rig = Rig::new();
    let path = rig.add_disk("second", ByteSize::gib(1));
    let node = rig.open();
    put_all(&node, &records(0..20), STORED).await;
    node.close().await.unwrap();
    (rig, path)
}

fn refused(rig: &Rig, says: &str) {
    let before = content(rig.dir.path());
    let error = rig.try_open().map(drop).unwrap_err().to_string();
    assert!(error.contains(says) && !error.contains('\n'), "{error}");
    let mut after = content(rig.dir.path());
    // The state was opened and closed, which changes no row of it.
    for file in ["state.redb", "repair.redb"] {
        let path = rig.options.data.join(file);
        if let Some(bytes) = before.get(&path) {
            after.insert(path, bytes.clone());
        }
    }
    assert!(before == after, "changed although '{error}'");
}

#[tokio::test]
async fn the_folder_of_somebody_else_is_refused() {
    let (mut rig, path) = stopped().await;
    rig.options.node_id = 2;
    rig.options.data = rig.dir.path().join("other");
    refused(&rig, "second belongs to node 1 of cluster 'test', but this is node 2 of cluster 'test'");
    rig.options.node_id = 1;
    rig.options.cluster = "prod".to_owned();
    refused(&rig, "second belongs to node 1 of cluster 'test', but this is node 1 of cluster 'prod'");

    let (mut rig, _) = stopped().await;
    let photos = rig.add_disk("photos", ByteSize::gib(1));
    fs::create_dir(&photos).unwrap();
    fs::write(photos.join("summer.jpg"), "not ours").unwrap();
    refused(&rig, "photos belongs to something else (it is not empty and has no marker)");
    drop(path);
}

#[tokio::test]
async fn neither_the_data_folder_nor_a_disk_takes_the_place_of_the_other() {
    let (mut rig, path) = stopped().await;
    let data = std::mem::replace(&mut rig.options.data, path);
    rig.options.disks[0].path = data;
    refused(
        &rig,
        "second belongs to a node that names it in `disks`, but this is node 1, which names it in `data`",
    );
    let data = rig.options.disks.remove(0).path;
    refused(&rig, "second belongs to a node that names it in `disks`");
    rig.options.data = rig.dir.path().join("fresh");
    rig.options.disks.push(DiskOptions { path: data, capacity: ByteSize::gib(1) });
    refused(
        &rig,
        "data belongs to a node that names it in `data`, but this is node 1, which names it in `disks`",
    );
}

#[tokio::test]
async fn a_disk_is_named_once() {
    let (mut rig, path) = stopped().await;
    let data = rig.options.data.clone();
    for twice in [path.clone(), path.join("within"), data.join("segments"), rig.dir.path().to_owned()] {
        rig.options.disks.push(DiskOptions { path: twice, capacity: ByteSize::gib(1) });
        refused(&rig, "each disk is named once, none within another");
        rig.options.disks.pop();
    }
    // By another name, or a copy of it.
    let link = rig.add_disk("link", ByteSize::gib(1));
    std::os::unix::fs::symlink(&path, &link).unwrap();
    refused(&rig, "link is the same disk as");
    fs::remove_file(&link).unwrap();
    let fresh = rig.dir.path().join("fresh");
    fs::create_dir(&fresh).unwrap();
    std::os::unix::fs::symlink(&fresh, &link).unwrap();
    rig.options.disks.push(DiskOptions { path: fresh, capacity: ByteSize::gib(1) });
    let error = rig.try_open().map(drop).unwrap_err().to_string();
    assert!(error.ends_with("is named twice: name each disk once"), "{error}");
    rig.options.disks.pop();
    fs::remove_file(&link).unwrap();
    copy_dir(&path, &link);
    refused(&rig, "link is the same disk as");
}

#[tokio::test]
async fn a_missing_mount_is_never_replaced_by_a_new_folder() {
    let (mut rig, _) = stopped().await;
    let unmounted = rig.add_disk("mnt/third", ByteSize::gib(1));
    refused(&rig, "mnt/third has no folder above it: mount its disk, or make that folder");
    assert!(!unmounted.exists());
    // A new node is refused as well, and its own data folder is not made.
    rig.options.data = rig.dir.path().join("fresh");
    rig.options.disks.remove(0);
    refused(&rig, "mnt/third has no folder above it");
    assert!(!rig.options.data.exists());
}

#[tokio::test]
async fn a_disk_of_another_format_is_refused() {
    let (rig, path) = stopped().await;
    let marker = path.join("holdfast-storage-disk.json");
    let text = fs::read_to_string(&marker).unwrap();
    fs::write(&marker, text.replacen("\"version\": 1", "\"version\": 2", 1)).unwrap();
    refused(&rig, "format 2 is newer than this holdfast reads (1): use a newer holdfast");
}

#[test]
fn options_that_cannot_be_are_refused() {
    let refused = |change: &dyn Fn(&mut Rig), says: &str| {
        let mut rig = Rig::new();
        rig.add_disk("second", ByteSize::gib(1));
        change(&mut rig);
        super::refusals::refused(&rig, says);
    };
    refused(&|rig| rig.options.disks[0].capacity = ByteSize::gib(0), "disks.capacity must be more than 0");
    let too_many = |rig: &mut Rig| {
        for n in 0..40 {
            rig.add_disk(&format!("disk-{n}"), ByteSize::gib(1));
        }
    };
    refused(&too_many, "option disks must be at most 32: start another node for the others");
    let with_bucket = |rig: &mut Rig| {
        let file = rig.dir.path().join("unused");
        rig.options.s3 = Some(S3Options {
            bucket: "b".to_owned(),
            prefix: String::new(),
            endpoint_url: None,
            region: "us-east-1".to_owned(),
            path_style: false,
            access_key_id_file: file.clone(),
            secret_access_key_file: file,
            upload_bytes: ByteSize::mib(64),
            upload_seconds: 300,
            lock: LockOption::None,
            lock_days: 30,
        });
    };
    refused(&with_bucket, "option disks cannot be used with `s3`: a node with a bucket has one disk, `data`");
}
