//! Which disk is to have a record: chosen by its partition, each disk in proportion to its capacity (weighted rendezvous hashing).
//!
//! Invariant: between two disks a partition is decided by these two alone. A disk that comes or goes moves only its own share, and
//! nothing among the others.

use holdfast_model::{DataFolderId, PARTITION_COUNT, PartitionId};

/// A disk's number in its node: the data folder is 0.
type Number = u8;

/// For each partition, the disks in the order in which they are to have it.
#[derive(Debug)]
pub struct Spread {
    n_disks: usize,
    /// One row per partition; empty for a single disk, where there is nothing to choose.
    rows: Vec<Number>,
}

impl Spread {
    /// Over disks with their capacities.
    pub fn over(disks: &[(DataFolderId, u64)]) -> Self {
        let mut rows = Vec::new();
        if disks.len() > 1 {
            for partition in (0..PARTITION_COUNT).map(PartitionId) {
                let mut scores: Vec<(f64, Number)> = disks
                    .iter()
                    .zip(0..)
                    .map(|((id, capacity_bytes), number)| (score(*id, *capacity_bytes, partition), number))
                    .collect();
                scores.sort_by(|(a, _), (b, _)| b.total_cmp(a));
                rows.extend(scores.into_iter().map(|(_, number)| number));
            }
        }
        Self { n_disks: disks.len(), rows }
    }

    /// The disks in the order in which they are to have a partition.
    pub fn order(&self, partition: PartitionId) -> &[Number] {
        let from = usize::from(partition.0) * self.n_disks;
        self.rows.get(from..from + self.n_disks).unwrap_or(&[0])
    }
}

/// The highest one has the partition: of many partitions each disk wins as large a share as it has of all capacity.
fn score(disk: DataFolderId, capacity_bytes: u64, partition: PartitionId) -> f64 {
    let mut hasher = blake3::Hasher::new_derive_key("holdfast 2026 disk of a partition");
    hasher.update(&disk.0).update(&partition.0.to_le_bytes());
    let hash: [u8; 4] = hasher.finalize().as_bytes()[..4].try_into().expect("4 of 32 bytes");
    // Between 0 and 1, neither included.
    let even = (f64::from(u32::from_le_bytes(hash)) + 0.5) / (f64::from(u32::MAX) + 1.0);
    #[allow(clippy::cast_precision_loss)]
    let weight = capacity_bytes as f64;
    -weight / even.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIB: u64 = 1 << 40;

    fn disk(n: u8, capacity_bytes: u64) -> (DataFolderId, u64) {
        (DataFolderId([n; 16]), capacity_bytes)
    }

    fn partitions() -> impl Iterator<Item = PartitionId> {
        (0..PARTITION_COUNT).map(PartitionId)
    }

    fn share(spread: &Spread, number: u8) -> usize {
        partitions().filter(|one| spread.order(*one)[0] == number).count()
    }

    #[test]
    fn each_disk_has_its_share_of_the_capacity() {
        let spread = Spread::over(&[disk(1, 4 * TIB), disk(2, 8 * TIB), disk(3, 4 * TIB)]);
        for (number, expected) in [(0, 1_024), (1, 2_048), (2, 1_024)] {
            let found = share(&spread, number);
            assert!(found.abs_diff(expected) < expected / 8, "disk {number} has {found} of {expected}");
        }
        for one in partitions() {
            let mut order = spread.order(one).to_vec();
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2]);
        }
    }

    #[test]
    fn a_disk_that_goes_moves_nothing_among_the_others() {
        let all = Spread::over(&[disk(1, TIB), disk(2, 3 * TIB), disk(3, 2 * TIB)]);
        let left = Spread::over(&[disk(1, TIB), disk(2, 3 * TIB)]);
        for one in partitions() {
            let order: Vec<u8> = all.order(one).iter().copied().filter(|number| *number != 2).collect();
            assert_eq!(left.order(one), order);
        }
    }

    #[test]
    fn of_one_disk_there_is_nothing_to_choose() {
        let spread = Spread::over(&[disk(1, TIB)]);
        assert!(spread.rows.is_empty() && partitions().all(|one| spread.order(one) == [0]));
    }
}
