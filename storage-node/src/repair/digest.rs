//! What a node has of a partition, in 32 bytes: two owners that have the same records have the same digest.
//!
//! Three levels: a partition's digest is over the digests of its 256 leaves (the next eight bits of the id), a leaf's over
//! its keys in order. The hash of the ciphertext is not in it: where two variants of an id came to be, each owner keeps its
//! own, and with the hash in it they would differ for ever without anything to repair. That a copy is what its header says
//! is the scrub's work.

use std::sync::LazyLock;

use holdfast_model::{ChunkId, PartitionId, RecordKey, TenantId};

use crate::{
    Error,
    disks::Entries,
    index::{IndexEntry, encode_key},
};

/// Leaves of a partition.
pub const LEAVES: usize = 256;
/// Entries read from the index at a time.
const PAGE: usize = 1_024;

/// A digest.
pub type Digest = [u8; 32];

/// The digest of a leaf without keys.
pub const EMPTY_LEAF: Digest = [0; 32];
/// The digest of a partition without keys: of a small or a new node that is most of them.
static EMPTY_ROOT: LazyLock<Digest> =
    LazyLock::new(|| *blake3::hash([EMPTY_LEAF; LEAVES].as_flattened()).as_bytes());

/// Which ids: a partition, or one of its leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    partition: PartitionId,
    leaf: Option<u8>,
}

impl Slice {
    /// All of a partition.
    pub fn partition(partition: PartitionId) -> Self {
        Self { partition, leaf: None }
    }

    /// One leaf of it.
    pub fn leaf(partition: PartitionId, leaf: u8) -> Self {
        Self { partition, leaf: Some(leaf) }
    }

    /// The lowest and the highest id: 12 bits of partition, then 8 bits of leaf.
    fn ids(self) -> (ChunkId, ChunkId) {
        let [high, low] = (self.partition.0 << 4).to_be_bytes();
        let (mut first, mut last) = ([0; 32], [0xff; 32]);
        (first[0], last[0]) = (high, high);
        (first[1], last[1]) = (low, low | 0x0f);
        if let Some(leaf) = self.leaf {
            (first[1], last[1]) = (low | (leaf >> 4), low | (leaf >> 4));
            (first[2], last[2]) = (leaf << 4, (leaf << 4) | 0x0f);
        }
        (ChunkId(first), ChunkId(last))
    }
}

pub(super) fn leaf_of(id: &ChunkId) -> u8 {
    (id.0[1] << 4) | (id.0[2] >> 4)
}

/// Reads an index slice by slice. A tenant whose first record comes later is not seen: it is as if that had come behind the
/// reader.
pub struct Slices<'a> {
    index: &'a dyn Entries,
    /// In order.
    tenants: Vec<TenantId>,
}

impl<'a> Slices<'a> {
    /// Finds out which tenants there are: one look each, instead of one per slice.
    pub fn of(index: &'a dyn Entries) -> Result<Self, Error> {
        let to = RecordKey { tenant: TenantId([0xff; 16]), id: ChunkId([0xff; 32]) };
        let (mut tenants, mut next) = (Vec::new(), Some(TenantId([0; 16])));
        while let Some(tenant) = next {
            let from = RecordKey { tenant, id: ChunkId([0; 32]) };
            let found = index.range(&from, &to, 1)?.first().map(|(key, _)| key.tenant);
            tenants.extend(found);
            next = found.and_then(tenant_after);
        }
        Ok(Self { index, tenants })
    }

    /// Up to `n` entries of a slice behind a key, in the order of their keys.
    pub fn entries(
        &self,
        slice: Slice,
        after: Option<&RecordKey>,
        n: usize,
    ) -> Result<Vec<(RecordKey, IndexEntry)>, Error> {
        let (first, last) = slice.ids();
        let mut found = Vec::new();
        for tenant in self.tenants.iter().copied() {
            let left = n.saturating_sub(found.len());
            let (from, to) = (RecordKey { tenant, id: first }, RecordKey { tenant, id: last });
            if left == 0 || after.is_some_and(|after| *after >= to) {
                continue;
            }
            // The page may begin with the key behind which it is to begin.
            let from = after.map_or(from, |after| from.max(*after));
            let mut page = self.index.range(&from, &to, left.saturating_add(1))?;
            page.retain(|(key, _)| after.is_none_or(|after| key > after));
            page.truncate(left);
            found.extend(page);
        }
        Ok(found)
    }

    /// The digests of the leaves of a partition.
    pub fn leaves(&self, partition: PartitionId) -> Result<Vec<Digest>, Error> {
        // A hasher is large, and most leaves of a small node are empty.
        let mut hashers: Vec<Option<Box<blake3::Hasher>>> = Vec::new();
        let mut after = None;
        loop {
            let page = self.entries(Slice::partition(partition), after.as_ref(), PAGE)?;
            let Some((last, _)) = page.last() else { break };
            hashers.resize(LEAVES, None);
            for (key, _) in &page {
                let hasher = hashers[usize::from(leaf_of(&key.id))].get_or_insert_default();
                hasher.update(&encode_key(key));
            }
            if page.len() < PAGE {
                break;
            }
            after = Some(*last);
        }
        let digests =
            hashers.into_iter().map(|one| one.map_or(EMPTY_LEAF, |hasher| *hasher.finalize().as_bytes()));
        let mut leaves: Vec<Digest> = digests.collect();
        leaves.resize(LEAVES, EMPTY_LEAF);
        Ok(leaves)
    }
}

fn tenant_after(tenant: TenantId) -> Option<TenantId> {
    u128::from_be_bytes(tenant.0).checked_add(1).map(|next| TenantId(next.to_be_bytes()))
}

/// The digest over the leaves.
pub fn root(leaves: &[Digest]) -> Digest {
    if leaves.iter().all(|leaf| *leaf == EMPTY_LEAF) {
        return *EMPTY_ROOT;
    }
    *blake3::hash(leaves.as_flattened()).as_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        index::{ChunkIndex as _, IndexBatch, MemoryIndex},
        segment::Location,
    };

    fn index(keys: &[RecordKey]) -> MemoryIndex {
        let index = MemoryIndex::default();
        let location = Location { segment: [1; 16], offset: 8, len: 8 };
        let entry = IndexEntry { location, write_epoch: 1, touch_epoch: 1, lock_floor_ms: 0 };
        let inserts = keys.iter().map(|key| (*key, entry)).collect();
        index.apply(&IndexBatch { inserts, ..IndexBatch::default() }).unwrap();
        index
    }

    fn leaves(keys: &[RecordKey], partition: PartitionId) -> Vec<Digest> {
        Slices::of(&index(keys)).unwrap().leaves(partition).unwrap()
    }

    fn key(tenant: u8, head: [u8; 3], tail: u8) -> RecordKey {
        let mut id = [tail; 32];
        id[..3].copy_from_slice(&head);
        RecordKey { tenant: TenantId([tenant; 16]), id: ChunkId(id) }
    }

    proptest! {
        #[test]
        fn a_slice_holds_exactly_its_keys_in_order_page_by_page(
            raw in proptest::collection::vec((0_u8..4, any::<u8>(), 0_u8..3, any::<u8>()), 0..300),
            n in 1_usize..40,
        ) {
            // Few partitions and tenants, the extreme ones among them.
            let keys: Vec<_> = raw
                .iter()
                .map(|(tenant, second, first, third)| {
                    key([0, 7, 8, 0xff][usize::from(*tenant)], [[0, 0x5a, 0xff][usize::from(*first)], *second, *third], *third)
                })
                .collect();
            let index = index(&keys);
            let slices = Slices::of(&index).unwrap();
            let mut expected = keys.clone();
            expected.sort_unstable();
            expected.dedup();
            for partition in [0, 1, 0x5a0, 0x5af, 0xff0, 0xfff].map(PartitionId) {
                let of_partition: Vec<_> =
                    expected.iter().filter(|key| PartitionId::of_chunk(key.id) == partition).copied().collect();
                for slice in std::iter::once(Slice::partition(partition)).chain((0..=255).map(|leaf| Slice::leaf(partition, leaf))) {
                    let wanted: Vec<_> = of_partition
                        .iter()
                        .filter(|key| slice.leaf.is_none_or(|leaf| leaf == leaf_of(&key.id)))
                        .copied()
                        .collect();
                    let (mut found, mut after) = (Vec::new(), None);
                    loop {
                        let page = slices.entries(slice, after.as_ref(), n).unwrap();
                        prop_assert!(page.len() <= n);
                        found.extend(page.iter().map(|(key, _)| *key));
                        if page.len() < n {
                            break;
                        }
                        after = found.last().copied();
                    }
                    prop_assert_eq!(found, wanted);
                }
            }
        }
    }

    #[test]
    fn a_digest_tells_one_missing_record_and_nothing_else() {
        let keys: Vec<_> = (0..200).map(|n| key(n % 3, [0x12, 0x30 | (n >> 4), n << 3], n)).collect();
        let partition = PartitionId(0x123);
        let all = leaves(&keys, partition);
        let mut shuffled = keys.clone();
        shuffled.reverse();
        shuffled.push(key(1, [0x99, 0, 0], 1));
        assert_eq!(leaves(&shuffled, partition), all);
        let fewer = leaves(&keys[1..], partition);
        assert_ne!(root(&fewer), root(&all));
        assert_eq!(fewer.iter().zip(&all).filter(|(a, b)| a != b).count(), 1);
    }

    #[test]
    fn a_partition_without_keys_has_the_digest_over_empty_leaves() {
        let none = leaves(&[key(1, [0x99, 0, 0], 1)], PartitionId(0x123));
        assert_eq!(none, vec![EMPTY_LEAF; LEAVES]);
        assert_eq!(root(&none), *blake3::hash(&[0; 32 * LEAVES]).as_bytes());
    }
}
