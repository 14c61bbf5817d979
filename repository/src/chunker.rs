//! `fcdc-1`: cuts a stream where its content says so (FastCDC v2020, normalisation 1, a gear table seeded per tenant).
//!
//! The code is ours, written from the published algorithm (Xia et al., "The Design of Fast Content-Defined Chunking for Data
//! Deduplication Based Storage Systems", 2020), so that no dependency decides where stored data was cut; the `fastcdc` crate, whose
//! gear table and masks it shares, is the cross-check in the tests. Invariant: the cuts are a function of the bytes and the seed alone, never of how the bytes were handed over. The
//! reference looks at bytes in pairs and never at an unpaired last byte, so such a byte waits for its partner here.

mod gear;

pub use gear::GEAR;

/// No chunk but the last is smaller.
pub const MIN_CHUNK_BYTES: usize = 256 << 10;
/// Where the condition for a cut is relaxed.
pub const AVG_CHUNK_BYTES: usize = 1 << 20;
/// No chunk is larger.
pub const MAX_CHUNK_BYTES: usize = 4 << 20;

/// 21 bits must be zero below the average size.
const MASK_STRICT: u64 = 0x0000_d917_6753_7000;
/// 19 bits above it.
const MASK_RELAXED: u64 = 0x0000_d917_0753_7000;

/// Cuts one stream.
pub struct Chunker {
    gear: Box<[u64; 256]>,
    hash: u64,
    /// Bytes of the current chunk that are decided.
    len: usize,
    /// The first byte of a pair, waiting for the second.
    waiting: Option<u8>,
}

impl Chunker {
    /// Starts a stream. The seed is the tenant's, so that cut points say nothing about known files.
    pub fn new(seed: u64) -> Self {
        let mut gear = Box::new(GEAR);
        gear.iter_mut().for_each(|entry| *entry ^= seed);
        Self { gear, hash: 0, len: 0, waiting: None }
    }

    /// Takes the next bytes and returns the lengths of the chunks that are now complete, in order. A chunk may end one
    /// byte before these bytes began.
    pub fn push(&mut self, mut data: &[u8]) -> Vec<usize> {
        let mut cuts = Vec::new();
        if let Some(first) = self.waiting.take() {
            let Some((second, rest)) = data.split_first() else {
                self.waiting = Some(first);
                return cuts;
            };
            data = rest;
            self.pair_across(first, *second, &mut cuts);
        }
        while !data.is_empty() {
            let (used, cut) = self.scan(data);
            data = &data[used..];
            if cut {
                cuts.push(std::mem::take(&mut self.len));
                self.hash = 0;
            } else if let [last] = data {
                self.waiting = Some(*last);
                break;
            }
        }
        cuts
    }

    /// Ends the stream and returns the length of the last chunk, 0 if there is none.
    pub fn finish(&mut self) -> usize {
        let len = self.len + usize::from(self.waiting.take().is_some());
        self.len = 0;
        self.hash = 0;
        len
    }

    /// A pair of which the first byte came with an earlier push. Where the cut falls between them or before both, what is
    /// left of the pair starts the next chunk, which is below its minimum and therefore not looked at.
    fn pair_across(&mut self, first: u8, second: u8, cuts: &mut Vec<usize>) {
        let pair = [first, second];
        let (used, cut) = self.scan(&pair);
        if cut {
            cuts.push(std::mem::take(&mut self.len));
            self.hash = 0;
        }
        match pair[used..] {
            [] => {}
            [only] => self.waiting = Some(only),
            _ => self.len = 2,
        }
    }

    /// Decides whole pairs of `data` until a cut. Returns how many bytes were decided, and whether the chunk ends there.
    fn scan(&mut self, data: &[u8]) -> (usize, bool) {
        let mut at = 0;
        if self.len < MIN_CHUNK_BYTES {
            at = (MIN_CHUNK_BYTES - self.len).min(data.len() & !1);
            self.len += at;
            if self.len < MIN_CHUNK_BYTES {
                return (at, false);
            }
        }
        for (limit, mask) in [(AVG_CHUNK_BYTES, MASK_STRICT), (MAX_CHUNK_BYTES, MASK_RELAXED)] {
            let room = limit.saturating_sub(self.len).min((data.len() - at) & !1);
            let window = &data[at..at + room];
            if let Some(position) = self.find(window, mask) {
                self.len += position;
                return (at + position, true);
            }
            at += room;
            self.len += room;
            if self.len < limit {
                return (at, false);
            }
        }
        (at, true)
    }

    /// The position of the first byte at which the rolling hash has only zeros under the mask.
    fn find(&mut self, window: &[u8], mask: u64) -> Option<usize> {
        let mut hash = self.hash;
        for (position, byte) in window.iter().enumerate() {
            hash = (hash << 1).wrapping_add(self.gear[usize::from(*byte)]);
            if hash & mask == 0 {
                return Some(position);
            }
        }
        self.hash = hash;
        None
    }
}
