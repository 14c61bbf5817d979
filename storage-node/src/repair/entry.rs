//! One record that has fewer copies than it should: why, how often it was tried, and how it was protected.

use std::time::Duration;

use holdfast_model::Millis;

use crate::index::IndexEntry;

/// Length of an encoded entry.
pub(super) const WANTED_BYTES: usize = 46;
/// The wait doubles so many times.
const DOUBLINGS_MAX: u32 = 6;

/// Why a record waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// An owner did not store it when it was put.
    Hint,
    /// A comparison found it at another owner only.
    Missing,
    /// It turned out damaged here.
    Damaged,
}

/// What protects a record: carried with every copy and never lowered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Protection {
    /// The epoch of its write.
    pub write_epoch: u64,
    /// The last epoch in which a session was told that it is there.
    pub touch_epoch: u64,
    /// Not dropped before.
    pub lock_floor_ms: Millis,
}

impl Protection {
    /// The higher of each number.
    pub fn higher(a: Self, b: Self) -> Self {
        Self {
            write_epoch: a.write_epoch.max(b.write_epoch),
            touch_epoch: a.touch_epoch.max(b.touch_epoch),
            lock_floor_ms: a.lock_floor_ms.max(b.lock_floor_ms),
        }
    }
}

impl From<&IndexEntry> for Protection {
    fn from(entry: &IndexEntry) -> Self {
        let IndexEntry { write_epoch, touch_epoch, lock_floor_ms, .. } = *entry;
        Self { write_epoch, touch_epoch, lock_floor_ms }
    }
}

/// A record that waits for repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Why.
    pub why: Why,
    /// Copies it is known to have.
    pub copies: u8,
    /// Tries so far.
    pub tries: u32,
    /// Not tried before.
    pub not_before_ms: Millis,
    /// When it came.
    pub queued_ms: Millis,
    /// How it was protected here, where that is known.
    pub protection: Protection,
}

impl Entry {
    /// A record whose turn is now.
    pub fn new(why: Why, copies: usize, protection: Protection) -> Self {
        let copies = u8::try_from(copies).unwrap_or(u8::MAX);
        Self { why, copies, tries: 0, not_before_ms: 0, queued_ms: 0, protection }
    }

    /// The same, for a later try: `first`, then twice as long, up to 64 times.
    pub fn later(self, now_ms: Millis, first: Duration, copies: usize) -> Self {
        let first_ms = u64::try_from(first.as_millis()).unwrap_or(u64::MAX);
        let wait_ms = first_ms.saturating_mul(1 << self.tries.min(DOUBLINGS_MAX));
        Self {
            tries: self.tries.saturating_add(1),
            not_before_ms: now_ms.saturating_add(wait_ms),
            copies: u8::try_from(copies).unwrap_or(u8::MAX),
            ..self
        }
    }

    /// why 1 · copies 1 · tries 4 · not before 8 · queued 8 · write epoch 8 · touch epoch 8 · lock floor 8.
    pub(super) fn encode(&self) -> [u8; WANTED_BYTES] {
        let mut out = [0; WANTED_BYTES];
        out[0] = match self.why {
            Why::Hint => 1,
            Why::Missing => 2,
            Why::Damaged => 3,
        };
        out[1] = self.copies;
        out[2..6].copy_from_slice(&self.tries.to_le_bytes());
        let Protection { write_epoch, touch_epoch, lock_floor_ms } = self.protection;
        let numbers = [self.not_before_ms, self.queued_ms, write_epoch, touch_epoch, lock_floor_ms];
        for (field, number) in out[6..].chunks_exact_mut(8).zip(numbers) {
            field.copy_from_slice(&number.to_le_bytes());
        }
        out
    }

    /// A cause this version does not know counts as missing: it is looked for all the same.
    pub(super) fn decode(bytes: &[u8; WANTED_BYTES]) -> Self {
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        Self {
            why: match bytes[0] {
                1 => Why::Hint,
                3 => Why::Damaged,
                _ => Why::Missing,
            },
            copies: bytes[1],
            tries: u32::from_le_bytes(bytes[2..6].try_into().expect("4 bytes")),
            not_before_ms: number(6),
            queued_ms: number(14),
            protection: Protection {
                write_epoch: number(22),
                touch_epoch: number(30),
                lock_floor_ms: number(38),
            },
        }
    }
}
