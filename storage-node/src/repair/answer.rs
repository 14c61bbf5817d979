//! What this node answers other storage nodes that repair, and how copies from elsewhere are taken in.
//!
//! Invariant: nothing is stored here that does not verify, that is not what was asked for, or whose partition this node
//! does not own.

use std::collections::BTreeMap;

use holdfast_model::{PartitionId, RecordKey};
use holdfast_record::SealedRecord;

use super::{
    Copy, Digest, Digests, KeyPage, Protection,
    digest::{self, Slice, Slices},
    peers::{COPY_BYTES, KEYS_MAX, PARTITIONS_MAX},
};
use crate::{
    Error, Node, metrics,
    node::limit,
    peers::{ReplicaOutcome, ReplicaPut},
};

/// A verified record and the epoch of its last touch.
pub(super) type Verified = (SealedRecord, u64);

impl Node {
    /// Digests of partitions as they are here.
    pub async fn digests(&self, partitions: Vec<PartitionId>) -> Result<Digests, Error> {
        limit("partitions", partitions.len(), PARTITIONS_MAX)?;
        // First: what an old layout admitted and ended before this is in the digests.
        let layout_in_use = self.layout_in_use();
        let store = self.store.clone();
        let digest = move || {
            let slices = Slices::of(store.index())?;
            let all = partitions.into_iter().map(|one| Ok(digest::root(&slices.leaves(one)?)));
            all.collect::<Result<_, Error>>()
        };
        Ok(Digests { digests: self.executor.run(digest).await?, layout_in_use })
    }

    /// Digests of the leaves of one.
    pub async fn leaves(&self, partition: PartitionId) -> Result<Vec<Digest>, Error> {
        let store = self.store.clone();
        self.executor.run(move || Slices::of(store.index())?.leaves(partition)).await
    }

    /// Keys of a leaf behind a key.
    pub async fn keys_of(
        &self,
        (partition, leaf): (PartitionId, u8),
        after: Option<RecordKey>,
    ) -> Result<KeyPage, Error> {
        let store = self.store.clone();
        let slice = Slice::leaf(partition, leaf);
        let read = move || Slices::of(store.index())?.entries(slice, after.as_ref(), KEYS_MAX);
        let keys: Vec<_> = self.executor.run(read).await?.into_iter().map(|(key, _)| key).collect();
        Ok(KeyPage { more: keys.len() == KEYS_MAX, keys })
    }

    /// What is here of these, and how it is protected.
    pub async fn holds(&self, keys: Vec<RecordKey>) -> Result<Vec<Option<Protection>>, Error> {
        limit("keys", keys.len(), KEYS_MAX)?;
        let store = self.store.clone();
        self.executor.run(move || store.protection(&keys)).await
    }

    /// Copies of the first of these.
    pub async fn copies(&self, keys: Vec<RecordKey>) -> Result<Vec<Option<Copy>>, Error> {
        limit("keys", keys.len(), KEYS_MAX)?;
        let store = self.store.clone();
        self.executor.run(move || store.copies(&keys, COPY_BYTES)).await
    }

    /// Stores copies that are missing here.
    pub async fn mend(&self, copies: Vec<Copy>) -> Result<ReplicaPut, Error> {
        limit("copies", copies.len(), KEYS_MAX)?;
        let layout = self.layout().ok_or(Error::NoLayout)?;
        let verify = move || copies.into_iter().map(verified).collect::<Result<Vec<_>, Error>>();
        let records = self.executor.run(verify).await.inspect_err(|_| metrics::bad_copy_refused())?;
        let (mut ours, mut positions) = (Vec::new(), Vec::new());
        let mut outcomes = vec![ReplicaOutcome::NotOwner; records.len()];
        for (position, record) in records.into_iter().enumerate() {
            if layout.owns(self.id, PartitionId::of_chunk(record.0.header.id)) {
                positions.push(position);
                ours.push(record);
            }
        }
        let (stored, reason) = self.take_in(ours).await;
        for (position, outcome) in positions.into_iter().zip(stored) {
            outcomes[position] = outcome;
        }
        Ok(ReplicaPut { outcomes, reason })
    }

    /// Stores verified copies with the touches they had elsewhere. Says why, if one failed.
    pub(super) async fn take_in(&self, records: Vec<Verified>) -> (Vec<ReplicaOutcome>, String) {
        let mut outcomes = vec![ReplicaOutcome::Failed; records.len()];
        let mut by_touch: BTreeMap<u64, (Vec<usize>, Vec<SealedRecord>)> = BTreeMap::new();
        for (position, (record, touch_epoch)) in records.into_iter().enumerate() {
            // A touch below the write protects nothing more.
            let epoch = touch_epoch.max(record.placement.write_epoch);
            let (positions, records) = by_touch.entry(epoch).or_default();
            positions.push(position);
            records.push(record);
        }
        let mut reason = String::new();
        for (epoch, (positions, records)) in by_touch {
            let put = self.store.put_copies(records, epoch).await;
            for (position, outcome) in positions.into_iter().zip(put.outcomes) {
                outcomes[position] = outcome;
            }
            if !put.reason.is_empty() {
                reason = put.reason;
            }
        }
        (outcomes, reason)
    }
}

/// Decodes a copy and checks all of it.
pub(super) fn verified(copy: Copy) -> Result<Verified, Error> {
    let record = SealedRecord::decode(copy.record).map_err(Error::bad("copy"))?;
    record.verify().map_err(Error::bad("copy"))?;
    Ok((record, copy.touch_epoch))
}
