//! The chunker cuts where its vectors say, where the `fastcdc` crate does, and nowhere else however the bytes come.
#![allow(clippy::unwrap_used)]

mod common;

use std::{collections::HashSet, path::PathBuf};

use common::noise;
use holdfast_repository::{
    Chunker,
    chunker::{AVG_CHUNK_BYTES, MAX_CHUNK_BYTES, MIN_CHUNK_BYTES},
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

/// `vectors/chunker.json`. The inputs come from generators that a few lines of any language repeat; `vectors/README.md` has them.
#[derive(Serialize, Deserialize)]
struct Vectors {
    chunker: String,
    min: usize,
    avg: usize,
    max: usize,
    /// BLAKE3 of the 256 entries of the gear table, 8 bytes little-endian each, before any seed.
    gear_table_blake3: String,
    cases: Vec<Case>,
}

#[derive(Serialize, Deserialize)]
struct Case {
    gear_seed: String,
    input: Input,
    input_blake3: String,
    cuts: Vec<usize>,
}

#[derive(Serialize, Deserialize, Clone, Copy)]
#[serde(tag = "generator", rename_all = "kebab-case")]
enum Input {
    Noise { seed: u64, len: usize },
    Zeros { len: usize },
    Counter { len: usize },
}

impl Input {
    fn bytes(self) -> Vec<u8> {
        match self {
            Self::Noise { seed, len } => noise(seed, len),
            Self::Zeros { len } => vec![0; len],
            Self::Counter { len } => (0..=u32::MAX).flat_map(u32::to_le_bytes).take(len).collect(),
        }
    }
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors/chunker.json")
}

fn cuts(seed: u64, data: &[u8], piece: impl Fn(usize) -> usize) -> Vec<usize> {
    let mut chunker = Chunker::new(seed);
    let (mut at, mut n, mut lens) = (0, 0, Vec::new());
    while at < data.len() {
        let end = (at + piece(n).max(1)).min(data.len());
        lens.extend(chunker.push(&data[at..end]));
        (at, n) = (end, n + 1);
    }
    lens.extend(Some(chunker.finish()).filter(|len| *len > 0));
    lens
}

fn reference(seed: u64, data: &[u8]) -> Vec<usize> {
    use fastcdc::v2020::{FastCDC, Normalization};
    let (min, avg, max) = (MIN_CHUNK_BYTES, AVG_CHUNK_BYTES, MAX_CHUNK_BYTES);
    FastCDC::with_level_and_seed(data, min, avg, max, Normalization::Level1, seed)
        .map(|chunk| chunk.length)
        .collect()
}

#[test]
fn cuts_are_those_of_the_vectors() {
    let vectors: Vectors = serde_json::from_slice(&std::fs::read(path()).unwrap()).unwrap();
    assert_eq!(vectors.chunker, "fcdc-1");
    assert_eq!((vectors.min, vectors.avg, vectors.max), (MIN_CHUNK_BYTES, AVG_CHUNK_BYTES, MAX_CHUNK_BYTES));
    assert_eq!(vectors.gear_table_blake3, gear_table_blake3());
    assert!(vectors.cases.len() >= 20);
    for case in vectors.cases {
        let data = case.input.bytes();
        assert_eq!(blake3::hash(&data).to_hex().as_str(), case.input_blake3, "the generator changed");
        let seed = u64::from_str_radix(&case.gear_seed, 16).unwrap();
        assert_eq!(cuts(seed, &data, |_| usize::MAX / 2), case.cuts, "seed {seed:x}, {} bytes", data.len());
        assert_eq!(cuts(seed, &data, |n| 1 + (n * 7919) % 300_001), case.cuts);
    }
}

fn gear_table_blake3() -> String {
    let table: Vec<u8> =
        holdfast_repository::chunker::GEAR.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    blake3::hash(&table).to_hex().to_string()
}

/// Made with the `fastcdc` crate, so that the vectors do not say what this chunker says.
#[test]
#[ignore = "writes vectors/chunker.json"]
fn write_the_vectors() {
    let (min, avg, max) = (MIN_CHUNK_BYTES, AVG_CHUNK_BYTES, MAX_CHUNK_BYTES);
    let mut cases = Vec::new();
    for seed in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
        let noises = [0, 1, min - 1, min, min + 1, min + 2, avg, max + 1, (12 << 20) + 3];
        let noises = noises.into_iter().map(|len| Input::Noise { seed: len as u64, len });
        let others = [Input::Zeros { len: (9 << 20) + 7 }, Input::Counter { len: 20 << 20 }];
        for input in noises.chain(others) {
            let data = input.bytes();
            cases.push(Case {
                gear_seed: format!("{seed:016x}"),
                input,
                input_blake3: blake3::hash(&data).to_hex().to_string(),
                cuts: if data.is_empty() { Vec::new() } else { reference(seed, &data) },
            });
        }
    }
    let vectors =
        Vectors { chunker: "fcdc-1".into(), min, avg, max, gear_table_blake3: gear_table_blake3(), cases };
    std::fs::write(path(), serde_json::to_vec_pretty(&vectors).unwrap()).unwrap();
}

#[test]
fn cuts_are_those_of_the_reference_at_every_size() {
    let data = noise(11, (13 << 20) + 5);
    let edges = [1, 2, 3, MIN_CHUNK_BYTES, AVG_CHUNK_BYTES, MAX_CHUNK_BYTES, 2 * MAX_CHUNK_BYTES, data.len()];
    let around = edges.into_iter().flat_map(|len| len.saturating_sub(3)..(len + 4).min(data.len() + 1));
    let others = (0..40).map(|n| (n * 333_331) % data.len());
    for len in around.chain(others).filter(|len| *len > 0) {
        let seed = len as u64 * 0x9E37_79B9;
        assert_eq!(cuts(seed, &data[..len], |_| 1 << 20), reference(seed, &data[..len]), "{len} bytes");
    }
}

#[test]
fn cuts_are_those_of_the_reference_however_the_bytes_come() {
    for (seed, len) in
        [(0, 40 << 20), (0, (9 << 20) + 1), (0xDEAD_BEEF, (17 << 20) + 3), (0, 262_145), (0, 5)]
    {
        let data = noise(len as u64, len);
        let expected = reference(seed, &data);
        assert_eq!(cuts(seed, &data, |_| usize::MAX / 2), expected);
        assert_eq!(cuts(seed, &data, |_| 65_537), expected);
        assert_eq!(cuts(seed, &data, |n| (n * 7919) % 300_001), expected);
    }
    let same = vec![0; 9 << 20];
    assert_eq!(cuts(0, &same, |_| 4096), reference(0, &same));
    let short = noise(3, 700_001);
    assert_eq!(cuts(0, &short, |_| 1), reference(0, &short));
}

#[test]
fn a_byte_more_at_the_front_moves_few_cuts() {
    let data = noise(5, 24 << 20);
    let shifted = [&[1][..], &data].concat();
    let ends = |data: &[u8]| -> HashSet<usize> {
        cuts(1, data, |_| 1 << 20)
            .iter()
            .scan(0, |at, len| {
                *at += len;
                Some(data.len() - *at)
            })
            .collect()
    };
    let (a, b) = (ends(&data), ends(&shifted));
    assert!(a.intersection(&b).count() * 10 >= a.len() * 8, "{} of {}", a.intersection(&b).count(), a.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Stretches of noise and of one byte, so that cuts are found early, late and not at all.
    #[test]
    fn cuts_cover_the_input_within_the_limits_and_do_not_depend_on_the_reads(
        gear_seed: u64,
        stretches in prop::collection::vec((any::<u64>(), any::<bool>(), 0..3_000_000_usize), 0..5),
        pieces in prop::collection::vec(1..600_000_usize, 1..8),
    ) {
        let data: Vec<u8> = stretches
            .iter()
            .flat_map(|(seed, is_noise, len)| if *is_noise { noise(*seed, *len) } else { vec![7; *len] })
            .collect();
        let whole = cuts(gear_seed, &data, |_| usize::MAX / 2);
        prop_assert_eq!(whole.iter().sum::<usize>(), data.len());
        prop_assert!(whole.iter().all(|len| (1..=MAX_CHUNK_BYTES).contains(len)));
        let but_last = &whole[..whole.len().saturating_sub(1)];
        prop_assert!(but_last.iter().all(|len| *len >= MIN_CHUNK_BYTES));
        prop_assert_eq!(&cuts(gear_seed, &data, |n| pieces[n % pieces.len()]), &whole);
        if !data.is_empty() {
            prop_assert_eq!(&reference(gear_seed, &data), &whole);
        }
    }
}
