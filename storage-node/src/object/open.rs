//! Puts a bucket behind a node's disk: reads the keys, probes the bucket, lists what is there.

use std::sync::Arc;

use holdfast_model::{Clock, Random};

use super::{ObjectDisk, ObjectStore, UploadOptions, Uploader, probe};
use crate::{Error, StorageNodeOptions, disk::Disk, options::S3Options};

/// A node's disk with its bucket.
pub struct Objects {
    /// What the node is opened on.
    pub disk: ObjectDisk,
    /// To be spawned once it is open.
    pub uploader: Arc<Uploader>,
}

/// Connects as the section `[s3]` says. Changes nothing locally, and in the bucket only the probe's object.
#[cfg(feature = "s3")]
pub async fn open(
    options: &StorageNodeOptions,
    s3: &S3Options,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
) -> Result<Objects, Error> {
    let store = Arc::new(super::S3Store::new(s3, clock.clone())?);
    open_on(Arc::new(crate::disk::LocalDisk), store, (options, s3), clock, random).await
}

/// This build cannot.
#[cfg(not(feature = "s3"))]
#[allow(clippy::unused_async)]
pub async fn open(
    _: &StorageNodeOptions,
    _: &S3Options,
    _: Arc<dyn Clock>,
    _: Arc<dyn Random>,
) -> Result<Objects, Error> {
    Err(Error::Option {
        option: "s3",
        problem: "is set, but this build has no S3: use one with the feature `s3`, or remove the section"
            .to_owned(),
    })
}

/// The same on any store and any disk.
pub async fn open_on(
    local: Arc<dyn Disk>,
    store: Arc<dyn ObjectStore>,
    (options, s3): (&StorageNodeOptions, &S3Options),
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
) -> Result<Objects, Error> {
    let prefix = prefix(options, s3);
    probe(&*store, &prefix, s3.lock_for_days().is_some(), clock.now_ms()).await?;
    let disk = ObjectDisk::connect(local, store, prefix, &options.data).await.map_err(Error::Objects)?;
    let upload = UploadOptions { lock_days: s3.lock_for_days() };
    let uploader = Arc::new(Uploader::new(disk.clone(), upload, clock, random));
    Ok(Objects { disk, uploader })
}

/// Where the objects of a node are: nobody else writes there.
fn prefix(options: &StorageNodeOptions, s3: &S3Options) -> String {
    let own = format!("{}/{}/", options.cluster, options.node_id);
    match s3.prefix.trim_matches('/') {
        "" => own,
        prefix => format!("{prefix}/{own}"),
    }
}
