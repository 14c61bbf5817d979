//! Fetches records and opens them; where the first copy does not open, the others are tried.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_record::SealedRecord;

use crate::{
    chunk_store::{ChunkStore, StoreError},
    error::{Error, SealError},
    seal::Sealer,
    secret::ContentHash,
};

/// Above this, opening moves off the thread that serves everything else.
const INLINE_OPEN_BYTES: usize = 64 << 10;

#[derive(Clone)]
pub(crate) struct Fetcher {
    pub(crate) store: Arc<dyn ChunkStore>,
    pub(crate) sealer: Arc<Sealer>,
}

impl Fetcher {
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
        let total: usize = records.iter().map(|record| record.header.pt_len as usize).sum();
        let opened = if total > INLINE_OPEN_BYTES {
            let (sealer, wanted) = (self.sealer.clone(), hashes.to_vec());
            let work = tokio::task::spawn_blocking(move || open_all(&sealer, &records, &wanted));
            work.await.map_err(|_| Error::Interrupted)?
        } else {
            open_all(&self.sealer, &records, hashes)
        };
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

    pub(crate) async fn fetch_one(&self, h: ContentHash) -> Result<Bytes, Error> {
        let mut plain = self.fetch(&[h]).await?;
        plain.pop().ok_or(Error::Interrupted)
    }

    async fn fetch_other_copy(&self, h: ContentHash, first: SealError) -> Result<Bytes, Error> {
        let id = self.sealer.id(h);
        let copies = self.store.get_copies(id).await?;
        let n_copies = copies.len();
        let intact = copies.iter().any(|copy| copy.verify().is_ok());
        match copies.iter().find_map(|copy| self.sealer.open(copy, h).ok()) {
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
    records: &[SealedRecord],
    hashes: &[ContentHash],
) -> Vec<Result<Bytes, SealError>> {
    records.iter().zip(hashes).map(|(record, h)| sealer.open(record, *h)).collect()
}
