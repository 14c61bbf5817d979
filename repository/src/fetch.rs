//! Fetches records and opens them; where the first copy does not open, the others are tried.
//!
//! Invariant: no more records are being opened at one time than there are cores, so that opening adds little to the memory of
//! what was fetched.

use std::{sync::Arc, thread::available_parallelism};

use bytes::Bytes;
use holdfast_record::SealedRecord;
use tokio::sync::Semaphore;

use crate::{
    chunk_store::{ChunkStore, StoreError},
    error::{Error, SealError},
    read_ahead::Room,
    seal::Sealer,
    secret::ContentHash,
};

/// Above this, opening moves off the thread that serves everything else.
const INLINE_OPEN_BYTES: usize = 64 << 10;

/// Content read ahead of all streams of a reader together, unless it is told otherwise.
pub(crate) const READ_AHEAD_BYTES: usize = 32 << 20;

#[derive(Clone)]
pub(crate) struct Fetcher {
    store: Arc<dyn ChunkStore>,
    pub(crate) sealer: Arc<Sealer>,
    /// For what is read ahead.
    pub(crate) room: Room,
    /// A permit per core.
    opening: Arc<Semaphore>,
}

impl Fetcher {
    pub(crate) fn new(store: Arc<dyn ChunkStore>, sealer: Arc<Sealer>) -> Self {
        let n_cores = available_parallelism().map_or(1, usize::from);
        let (room, opening) = (Room::new(READ_AHEAD_BYTES), Arc::new(Semaphore::new(n_cores)));
        Self { store, sealer, room, opening }
    }

    /// The same with another room for what is read ahead.
    pub(crate) fn with_room(&self, bytes: usize) -> Self {
        Self { room: Room::new(bytes), ..self.clone() }
    }

    /// The plaintexts, in order.
    pub(crate) async fn fetch(&self, hashes: &[ContentHash]) -> Result<Vec<Bytes>, Error> {
        if hashes.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<_> = hashes.iter().map(|h| self.sealer.id(*h)).collect();
        let records = self.store.get(&ids).await?;
        if records.len() != ids.len() {
            return Err(Error::Malformed { what: "answer of the store", reason: "wrong number of records" });
        }
        let opened = self.open(records, hashes).await?;
        let mut plain = Vec::with_capacity(opened.len());
        for (result, h) in opened.into_iter().zip(hashes) {
            plain.push(match result {
                Ok(bytes) => bytes,
                Err(error @ SealError::NoKey { .. }) => return Err(error.into()),
                Err(error) => self.fetch_other_copy(*h, error).await?,
            });
        }
        Ok(plain)
    }

    async fn open(
        &self,
        records: Vec<SealedRecord>,
        hashes: &[ContentHash],
    ) -> Result<Vec<Result<Bytes, SealError>>, Error> {
        let total: usize = records.iter().map(|record| record.header.pt_len as usize).sum();
        if total <= INLINE_OPEN_BYTES {
            return Ok(open_all(&self.sealer, records, hashes));
        }
        let core = self.opening.clone().acquire_owned().await.map_err(|_| Error::Interrupted)?;
        let (sealer, wanted) = (self.sealer.clone(), hashes.to_vec());
        let work = tokio::task::spawn_blocking(move || {
            // Kept to the end of the work, which goes on when nobody waits for it any longer.
            let _core = core;
            open_all(&sealer, records, &wanted)
        });
        work.await.map_err(|_| Error::Interrupted)
    }

    pub(crate) async fn fetch_one(&self, h: ContentHash) -> Result<Bytes, Error> {
        let mut plain = self.fetch(&[h]).await?;
        plain.pop().ok_or(Error::Interrupted)
    }

    async fn fetch_other_copy(&self, h: ContentHash, first: SealError) -> Result<Bytes, Error> {
        let id = self.sealer.id(h);
        let copies = self.store.get_copies(id).await?;
        let n_copies = copies.len();
        let intact = copies.iter().any(|copy| copy.verify().is_ok());
        match copies.into_iter().find_map(|copy| self.sealer.open(copy, h).ok()) {
            Some(plain) => {
                tracing::warn!(%id, n_copies, "a copy does not open, another does");
                Ok(plain)
            }
            // What storage kept faithfully and the keys do not open is no damage: it is the wrong key.
            None if intact => Err(first.into()),
            None => Err(StoreError::Corrupt { id }.into()),
        }
    }
}

fn open_all(
    sealer: &Sealer,
    records: Vec<SealedRecord>,
    hashes: &[ContentHash],
) -> Vec<Result<Bytes, SealError>> {
    records.into_iter().zip(hashes).map(|(record, h)| sealer.open(record, *h)).collect()
}
