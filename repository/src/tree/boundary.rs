//! Where a node ends.
//!
//! Invariant: the decision sees the tenant's key, the tree, the level, the entry's key and how many entries came since the
//! last boundary; never a value, so that changing an item never moves a boundary.

use crate::{secret::Key, tree::node::TreeKind};

/// What every entry counts, whatever it takes.
const ENTRY_BYTES: u64 = 96;
/// The size that nodes aim at: 4 KiB.
const TARGET_ENTRIES: u64 = (4 << 10) / ENTRY_BYTES;
/// No node has more: 16 KiB.
pub(crate) const MAX_ENTRIES: u64 = (16 << 10) / ENTRY_BYTES;
/// Every node but the last of a level has at least two, so that levels shrink.
const MIN_ENTRIES: u64 = 2;
/// The scale of a Weibull distribution of shape 4 with mean [`TARGET_ENTRIES`]: target / Γ(1.25), rounded.
const SCALE: u64 = TARGET_ENTRIES + 5;

pub(crate) struct Boundary {
    key: Key,
}

impl Boundary {
    pub(crate) fn new(tenant: &Key, kind: TreeKind, level: u8) -> Self {
        Self { key: tenant.derive(&[b"hf-boundary-1", &[kind.code(), level]]) }
    }

    /// Whether a node ends with the entry that has this key and is the `n`th since the last boundary, from 1.
    pub(crate) fn ends(&self, n: u64, key: &[u8]) -> bool {
        if n < MIN_ENTRIES {
            return false;
        }
        if n >= MAX_ENTRIES {
            return true;
        }
        let hash = self.key.hash(&[key]);
        u128::from(u64::from_le_bytes(*hash.first_chunk().expect("a hash has 32 bytes"))) < hazard(n)
    }
}

/// The probability, in units of 2⁻⁶⁴, that a node of `n` entries ends: 4n³/s⁴.
fn hazard(n: u64) -> u128 {
    ((4 * u128::from(n).pow(3)) << 64) / u128::from(SCALE).pow(4)
}
