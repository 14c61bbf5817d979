//! Decides which requests go wrong.
//!
//! Invariant: the decision depends on (seed, kind, path, how often the path was asked), so a repeated request gets
//! a new decision and the same run gets the same faults.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::rng::{Rng, mix};

const MAX_PATHS: usize = 1_000_000;

#[derive(Default)]
pub(crate) struct Faults {
    calls: Mutex<HashMap<u64, u32>>,
}

/// One request's luck.
#[derive(Clone, Copy)]
pub(crate) struct Luck {
    pub seed: u64,
    pub path: u64,
    pub call: u32,
}

impl Faults {
    pub(crate) fn luck(&self, seed: u64, method: &str, path: &str) -> Luck {
        let hash = blake3::hash(format!("{method} {path}").as_bytes());
        let path = u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight bytes"));
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if calls.len() > MAX_PATHS {
            calls.clear();
        }
        let call = calls.entry(path).or_default();
        *call += 1;
        Luck { seed, path, call: *call }
    }

    pub(crate) fn reset(&self) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Luck {
    /// Whether the fault `kind` strikes at this rate.
    pub(crate) fn strikes(&self, kind: &str, rate: f64) -> bool {
        rate > 0.0 && Rng::new(&[self.salt(kind), u64::from(self.call)]).unit() < rate
    }

    /// The same, but always for the same paths.
    pub(crate) fn dooms(&self, kind: &str, rate: f64) -> bool {
        rate > 0.0 && Rng::new(&[self.salt(kind)]).unit() < rate
    }

    /// A number that goes with this request.
    pub(crate) fn salt(&self, kind: &str) -> u64 {
        let kind = kind.bytes().fold(0_u64, |sum, byte| mix(sum ^ u64::from(byte)));
        mix(self.seed ^ kind) ^ self.path
    }
}
