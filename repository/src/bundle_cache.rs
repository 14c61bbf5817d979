//! The records that small things were read from last, or will be next: neighbours in a folder tend to share them.
//!
//! Invariant: a record that several ask for at one time is fetched and opened once, and goes on being fetched while nobody
//! waits; when neither the cache nor anybody who asked wants it any longer, the fetch is given up. A failure is not kept beyond the
//! first who hears of it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::{error::Error, fetch::Fetcher, secret::ContentHash};

/// Records kept decrypted: at most 16 MiB.
const CACHED_RECORDS: usize = 16;
/// What is larger than a bundle is not kept.
const MAX_CACHED_BYTES: usize = 1 << 20;

type Fetched = Shared<BoxFuture<'static, Result<Bytes, Error>>>;

/// The least recently used goes first. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct BundleCache {
    recent: Arc<Mutex<VecDeque<(ContentHash, Fetched)>>>,
}

impl BundleCache {
    /// The record of that name, from here or from storage.
    pub(crate) async fn get(&self, fetcher: &Fetcher, h: ContentHash) -> Result<Bytes, Error> {
        let fetched = self.start(fetcher, h).await;
        if fetched.as_ref().map_or(true, |record| record.len() > MAX_CACHED_BYTES) {
            self.forget(h);
        }
        fetched
    }

    /// Starts to fetch the record, if that is not done yet.
    pub(crate) fn start(&self, fetcher: &Fetcher, h: ContentHash) -> Fetched {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let known = recent.iter().position(|(cached, _)| *cached == h).and_then(|at| recent.remove(at));
        let (_, fetched) = known.unwrap_or_else(|| (h, fetch(fetcher.clone(), h)));
        recent.push_back((h, fetched.clone()));
        if recent.len() > CACHED_RECORDS {
            recent.pop_front();
        }
        fetched
    }

    fn forget(&self, h: ContentHash) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|(cached, _)| *cached != h);
    }
}

fn fetch(fetcher: Fetcher, h: ContentHash) -> Fetched {
    let fetched = async move { fetcher.fetch_one(h).await };
    let task = AbortOnDropHandle::new(tokio::spawn(fetched.in_current_span()));
    async move { task.await.map_err(|_| Error::Interrupted)? }.boxed().shared()
}
