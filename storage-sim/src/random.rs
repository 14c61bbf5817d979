//! Random numbers from a seed. Each part of a world has a stream of its own, so that one more draw here shifts nothing there.

use std::sync::{Mutex, PoisonError};

use holdfast_model::Random;

/// One stream: SplitMix64 over a hash of the seed and the stream's name.
pub struct SimRandom(Mutex<u64>);

impl SimRandom {
    /// The stream of that name.
    pub fn new(seed: u64, stream: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        hasher.update(stream.as_bytes());
        let bytes = hasher.finalize();
        let state = u64::from_le_bytes(bytes.as_bytes()[..8].try_into().expect("8 bytes"));
        Self(Mutex::new(state))
    }

    /// The next number.
    pub fn draw(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; 0 when there is none.
    pub fn below(&self, limit: u64) -> u64 {
        if limit == 0 { 0 } else { self.draw() % limit }
    }

    /// A number in a range, both ends included.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// True in so many of a thousand draws.
    pub fn per_mille(&self, chance: u64) -> bool {
        self.below(1_000) < chance
    }

    /// One of several.
    pub fn pick<'a, T>(&self, all: &'a [T]) -> Option<&'a T> {
        all.get(usize::try_from(self.below(all.len() as u64)).unwrap_or(0))
    }
}

impl Random for SimRandom {
    fn fill(&self, buffer: &mut [u8]) {
        for piece in buffer.chunks_mut(8) {
            piece.copy_from_slice(&self.draw().to_le_bytes()[..piece.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_depends_on_seed_and_name_only() {
        let draw = |seed, name| SimRandom::new(seed, name).draw();
        assert_eq!(draw(1, "net"), draw(1, "net"));
        assert_ne!(draw(1, "net"), draw(2, "net"));
        assert_ne!(draw(1, "net"), draw(1, "disk"));
        let random = SimRandom::new(3, "range");
        assert!((0..1_000).all(|_| (5..=9).contains(&random.between(5, 9))));
    }
}
