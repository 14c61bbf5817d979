//! Where a stream is cut depends on its bytes alone, and every chunk keeps to the sizes.
//!
//! The first eight bytes are the tenant's seed, the ninth says how long the pieces are. Each four bytes of the rest stand for a
//! run: of one byte, or of noise; a fuzzer would never write megabytes itself.
#![no_main]

use holdfast_repository::{
    Chunker,
    chunker::{MAX_CHUNK_BYTES, MIN_CHUNK_BYTES},
};
use libfuzzer_sys::fuzz_target;

/// So that a chunk of the largest size and another fit.
const STREAM_BYTES_MAX: usize = MAX_CHUNK_BYTES + MIN_CHUNK_BYTES;
/// What a run's two bytes of length count.
const RUN_UNIT_BYTES: usize = 67;

fuzz_target!(|input: &[u8]| {
    let Some((seed, rest)) = input.split_first_chunk() else { return };
    let Some((piece, runs)) = rest.split_first() else { return };
    let seed = u64::from_le_bytes(*seed);
    let stream = expand(runs);
    let piece = (usize::from(*piece) + 1).pow(2);
    let chunks = cut(seed, &stream, piece);
    assert_eq!(chunks.iter().sum::<usize>(), stream.len());
    let (last, before) = chunks.split_last().expect("finish gives the last");
    assert!(before.iter().all(|len| (MIN_CHUNK_BYTES..=MAX_CHUNK_BYTES).contains(len)), "{chunks:?}");
    assert!(*last <= MAX_CHUNK_BYTES, "{chunks:?}");
    assert_eq!(chunks, cut(seed, &stream, usize::MAX), "pieces of {piece} are cut otherwise");
});

fn cut(seed: u64, stream: &[u8], piece: usize) -> Vec<usize> {
    let mut chunker = Chunker::new(seed);
    let mut chunks: Vec<usize> = stream.chunks(piece).flat_map(|piece| chunker.push(piece)).collect();
    chunks.push(chunker.finish());
    chunks
}

fn expand(runs: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    for [kind, byte, low, high] in runs.as_chunks().0 {
        let wanted = usize::from(u16::from_le_bytes([*low, *high])) * RUN_UNIT_BYTES + usize::from(*kind);
        let len = wanted.min(STREAM_BYTES_MAX - stream.len());
        let mut state = u32::from_le_bytes([*kind, *byte, *low, *high]) | 1;
        if kind % 2 == 0 {
            stream.resize(stream.len() + len, *byte);
        } else {
            stream.extend((0..len).map(|_| {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                state.to_le_bytes()[1]
            }));
        }
    }
    stream
}
