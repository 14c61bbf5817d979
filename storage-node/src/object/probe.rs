//! Shows at the start that a bucket does what the node relies on: creates only what is not there, and keeps what is locked.
//!
//! One small object per node, `<prefix>…/probe`, is all it leaves. With a lock it stays locked for a day, and is made anew by
//! the first start after that.

use bytes::Bytes;
use holdfast_model::Millis;

use super::{ObjectError, ObjectStore, PutNew};
use crate::Error;

const KEY: &str = "probe";
const BODY: &[u8] = b"holdfast: shows that this bucket refuses to overwrite and to delete what is locked\n";
const LOCK_MS: Millis = 24 * 60 * 60 * 1_000;
/// The server's clock may differ by this much.
const SKEW_MS: Millis = 10 * 60 * 1_000;

/// Checks a bucket, or says in one line what to correct.
pub async fn probe(store: &dyn ObjectStore, prefix: &str, lock: bool, now_ms: Millis) -> Result<(), Error> {
    store.list_page(prefix, None).await.map_err(as_setting)?;
    if lock && !store.is_lockable().await.map_err(as_setting)? {
        return Err(bucket(
            "has no object lock: make a bucket with versioning and object lock, or set `s3.lock = \"none\"` and do without the copy \
             that nobody can delete",
        ));
    }
    let key = format!("{prefix}{KEY}");
    let until = lock.then(|| now_ms.saturating_add(LOCK_MS));
    // Whoever created it: a second create must be refused.
    store.put_new(&key, Bytes::from_static(BODY), until).await.map_err(as_setting)?;
    refuses_to_overwrite(store, &key, until).await?;
    if !lock {
        return Ok(());
    }
    let mut found = store.head(&key).await.map_err(as_setting)?;
    let version = || bucket("keeps no versions: switch versioning on, object lock needs it");
    if found.locked_until_ms.is_none_or(|until| until <= now_ms.saturating_add(SKEW_MS)) {
        // Of an earlier start, or from before the lock was asked for: it may be deleted, and says nothing.
        let old = found.version.as_deref().ok_or_else(version)?;
        match store.delete_version(&key, old).await {
            Ok(()) => {}
            Err(ObjectError::Denied { .. }) => return Ok(()),
            Err(error) => return Err(as_setting(error)),
        }
        store.put_new(&key, Bytes::from_static(BODY), until).await.map_err(as_setting)?;
        found = store.head(&key).await.map_err(as_setting)?;
    }
    if found.locked_until_ms.is_none() {
        return Err(bucket(
            "stores objects without the lock that was asked for: its object lock cannot be relied on",
        ));
    }
    let version = found.version.as_deref().ok_or_else(version)?;
    match store.delete_version(&key, version).await {
        Err(ObjectError::Denied { .. }) => Ok(()),
        Err(error) => Err(as_setting(error)),
        Ok(()) => Err(bucket(
            "let a locked object be deleted: its server does not enforce object lock; use one that does, or set `s3.lock = \"none\"`",
        )),
    }
}

async fn refuses_to_overwrite(
    store: &dyn ObjectStore,
    key: &str,
    until: Option<Millis>,
) -> Result<(), Error> {
    match store.put_new(key, Bytes::from_static(BODY), until).await.map_err(as_setting)? {
        PutNew::Exists => Ok(()),
        PutNew::Stored => Err(bucket(
            "let an object be overwritten: its server ignores `If-None-Match`; use an S3 server that has conditional writes",
        )),
    }
}

fn bucket(problem: &'static str) -> Error {
    Error::Option { option: "s3.bucket", problem: problem.to_owned() }
}

/// What a setting can correct names it; the rest is the surroundings.
fn as_setting(error: ObjectError) -> Error {
    let option = match &error {
        ObjectError::NoBucket => "s3.bucket",
        ObjectError::Credentials => "s3.access-key-id-file",
        ObjectError::Denied { .. } => "s3.access-key-id-file",
        _ => return Error::Objects(error),
    };
    Error::Option { option, problem: format!("does not fit: {error}") }
}
