//! A node in a folder, with or without a bucket behind it.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_model::ChunkId;
use holdfast_record::{Ciphertext, SealedRecord};
use holdfast_runtime::{ByteSize, Step, SystemRandom};

use crate::{
    Error, Executor, FenceRule, LockOption, Node, NodeSetup, S3Options,
    disk::Disk,
    object::{MemoryStore, ObjectDisk, ObjectStore, Objects, Uploader, open::open_on},
    segment::{SegmentFile, find_segments},
    testing::{FaultyDisk, NoPeers, Rig, SESSION, authority, caller, layout, record},
};

/// Records of a test, by their ids.
pub type Records = BTreeMap<ChunkId, Ciphertext>;

/// A store whose objects a test can damage.
#[async_trait]
pub trait TestStore: ObjectStore {
    /// Changes an object behind the node's back; none makes it disappear.
    async fn overwrite(&self, key: &str, bytes: Option<Bytes>);
}

#[async_trait]
impl TestStore for MemoryStore {
    async fn overwrite(&self, key: &str, bytes: Option<Bytes>) {
        self.replace(key, bytes);
    }
}

/// Where a node keeps its segments.
pub struct Place {
    pub rig: Rig,
    pub store: Option<Arc<dyn TestStore>>,
    pub s3: S3Options,
}

/// The node on it.
pub struct Opened {
    pub node: Arc<Node>,
    pub disk: Arc<dyn Disk>,
    objects: Option<Objects>,
}

impl Place {
    pub fn on_disk() -> Self {
        let mut rig = Rig::new();
        rig.options.segment_target = ByteSize::kib(64);
        Self { s3: s3_options("unused"), rig, store: None }
    }

    /// Each with a name of its own in the bucket.
    pub fn in_bucket(store: Arc<dyn TestStore>, prefix: &str) -> Self {
        let mut rig = Rig::new();
        let s3 = s3_options(prefix);
        rig.options.s3 = Some(s3.clone());
        Self { rig, store: Some(store), s3 }
    }

    /// With a store in memory that lists three objects a page.
    pub fn in_memory() -> (Self, Arc<MemoryStore>) {
        let store = Arc::new(MemoryStore::new(3));
        (Self::in_bucket(store.clone(), "backup/holdfast"), store)
    }

    /// The same bucket and a copy of the folder, as a kill at this moment leaves it.
    pub fn after_a_kill(&self) -> Self {
        let mut rig = self.rig.copy();
        rig.options.s3.clone_from(&self.rig.options.s3);
        rig.clock = self.rig.clock.clone();
        Self { rig, store: self.store.clone(), s3: self.s3.clone() }
    }

    /// The same bucket and an empty folder.
    pub fn without_its_folder(&self) -> Self {
        let mut rig = Rig::new();
        rig.options.s3.clone_from(&self.rig.options.s3);
        rig.clock = self.rig.clock.clone();
        Self { rig, store: self.store.clone(), s3: self.s3.clone() }
    }

    pub async fn try_open(&self) -> Result<Opened, Error> {
        let (options, rig) = (self.rig.options.clone(), &self.rig);
        let local: Arc<dyn Disk> = Arc::new(FaultyDisk(rig.faults.clone()));
        let objects = match &self.store {
            Some(store) => {
                let (store, random): (Arc<dyn ObjectStore>, _) = (store.clone(), Arc::new(SystemRandom));
                Some(open_on(local.clone(), store, (&options, &self.s3), rig.clock.clone(), random).await?)
            }
            None => None,
        };
        let disk = objects.as_ref().map_or(local, |objects| Arc::new(objects.disk.clone()));
        let setup = NodeSetup {
            disk: disk.clone(),
            executor: Executor::Threads,
            fence_rule: FenceRule::Highest,
            clock: rig.clock.clone(),
            random: Arc::new(SystemRandom),
            peers: Arc::new(NoPeers),
        };
        let node = tokio::task::spawn_blocking(move || Node::open(&options, setup)).await.unwrap()?;
        if node.layout().is_none() {
            node.apply(authority(1, 5, Some(layout(1, &[(1, "a")], 1)))).unwrap();
        }
        if let Some(objects) = &objects {
            objects.disk.serve();
        }
        Ok(Opened { node: Arc::new(node), disk, objects })
    }

    pub async fn open(&self) -> Opened {
        self.try_open().await.unwrap()
    }

    pub fn segments_dir(&self) -> PathBuf {
        self.rig.options.data.join("segments")
    }

    /// The key of a segment's object.
    pub fn key(&self, segment: &SegmentFile) -> String {
        format!("{}/test/1/{}", self.s3.prefix, segment.name())
    }

    /// Changes the bytes of a segment wherever they are; none makes it disappear.
    pub async fn damage(&self, segment: &SegmentFile, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) {
        let path = self.segments_dir().join(segment.name());
        match &self.store {
            Some(store) if !path.exists() => {
                let key = self.key(segment);
                let len = store.head(&key).await.unwrap().len;
                let bytes = store.get_range(&key, 0..len).await.unwrap();
                store.overwrite(&key, change(bytes.to_vec()).map(Bytes::from)).await;
            }
            _ => match change(std::fs::read(&path).unwrap()) {
                // In place: the node has the file open.
                Some(bytes) => {
                    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                    file.set_len(bytes.len() as u64).unwrap();
                    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
                }
                None => std::fs::remove_file(&path).unwrap(),
            },
        }
    }
}

impl Opened {
    pub fn uploader(&self) -> &Arc<Uploader> {
        &self.objects.as_ref().unwrap().uploader
    }

    pub fn object_disk(&self) -> &ObjectDisk {
        &self.objects.as_ref().unwrap().disk
    }

    /// Stores records of these numbers, so large that three fill a segment.
    pub async fn put(&self, numbers: std::ops::Range<u32>) -> Records {
        let mut records = Records::new();
        for n in numbers {
            let one: SealedRecord = record(n, 20_000);
            let put = self.node.replicate(&caller(1), SESSION, vec![one.encode()]).await.unwrap();
            assert!(put.reason.is_empty(), "{}", put.reason);
            records.insert(one.header.id, one.ciphertext.clone());
        }
        records
    }

    pub async fn get(&self, id: ChunkId) -> Result<Option<Ciphertext>, Error> {
        let found = self.node.get(&caller(1), &[id], 1 << 20).await?;
        let found = found.into_iter().flatten().next();
        Ok(found.map(|bytes| SealedRecord::decode(bytes).unwrap().ciphertext))
    }

    /// Every record is there, bit by bit.
    pub async fn assert_has(&self, records: &Records) {
        for (id, bytes) in records {
            let found = self.get(*id).await.unwrap();
            assert_eq!(found.as_ref(), Some(bytes), "a record is missing or wrong");
        }
        assert_eq!(self.node.store().n_damaged(), 0);
    }

    /// Uploads what is sealed, where there is a bucket.
    pub async fn settle(&self) {
        let Some(objects) = &self.objects else { return };
        while objects.uploader.step().await.unwrap() == Step::More {}
        let status = objects.uploader.status();
        assert_eq!((status.waiting_segments, status.last_error), (0, None));
    }

    pub fn segments(&self, place: &Place) -> Vec<SegmentFile> {
        find_segments(&*self.disk, &place.segments_dir()).unwrap().0
    }

    /// Those that are sealed.
    pub fn sealed(&self, place: &Place) -> Vec<SegmentFile> {
        let mut segments = self.segments(place);
        segments.retain(|segment| !segment.mark_path().exists());
        segments
    }

    pub async fn close(self) {
        self.node.close().await.unwrap();
    }
}

fn s3_options(prefix: &str) -> S3Options {
    S3Options {
        bucket: "test".to_owned(),
        prefix: prefix.to_owned(),
        endpoint_url: None,
        region: "us-east-1".to_owned(),
        path_style: true,
        access_key_id_file: PathBuf::new(),
        secret_access_key_file: PathBuf::new(),
        upload_bytes: ByteSize::kib(64),
        upload_seconds: 300,
        lock: LockOption::Compliance,
        lock_days: 30,
    }
}
