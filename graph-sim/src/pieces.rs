//! The content of files: pieces cut from two fixed tables.
//!
//! Bytes at any offset are a copy, and what quickXorHash folds is had from sums over the tables: a file of gigabytes
//! costs neither memory nor reading. A file's first bytes name its seed, so that content that comes back is known.
//!
//! Invariant: pieces begin at rows of the table and are whole rows long, so that every byte of a row lands in the same
//! cell of the hash wherever its piece stands.

use std::sync::OnceLock;

use crate::rng::{Rng, mix};

/// After so many bytes the positions of quickXorHash repeat.
pub(crate) const ROW: usize = 160;
/// Rows of a piece: short enough for variety, long enough that a file of 5 GB is summed in no time.
const PIECE_ROWS: usize = 400;
const PIECE: usize = PIECE_ROWS * ROW;
/// About 16 MB: chunks of a megabyte have next to nothing in common.
const RANDOM_ROWS: usize = 104_000;
const PROSE_ROWS: usize = 26_000;
const TABLE_KEY: [u8; 32] = *b"holdfast graph-sim file table 01";

/// Which table the pieces are cut from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Look {
    /// Does not compress; begins with the mark of its type.
    Random(&'static [u8]),
    /// Text.
    Prose,
}

/// The marks that files begin with.
pub(crate) const MARKS: [&[u8]; 5] =
    [b"%PDF-1.7\n", b"PK\x03\x04", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"\0\0\0\x18ftypmp42"];

struct Table {
    bytes: Vec<u8>,
    /// The XOR of all rows before each.
    sums: Vec<[u8; ROW]>,
}

impl Table {
    fn new(bytes: Vec<u8>) -> Self {
        let mut sum = [0; ROW];
        let mut sums = vec![sum];
        for row in bytes.chunks_exact(ROW) {
            xor(&mut sum, row);
            sums.push(sum);
        }
        Self { bytes, sums }
    }

    /// Where a piece begins, in rows.
    fn row_of(&self, seed: u64, piece: u64) -> usize {
        let starts = (self.sums.len() - PIECE_ROWS) as u64;
        (mix(mix(seed) ^ piece) % starts) as usize
    }
}

/// Adds bytes to as many cells.
pub(crate) fn xor(cells: &mut [u8], bytes: &[u8]) {
    let words = cells.chunks_exact_mut(8).zip(bytes.chunks_exact(8));
    for (cell, word) in words {
        let sum = u64::from_ne_bytes(<[u8; 8]>::try_from(&*cell).expect("eight bytes"))
            ^ u64::from_ne_bytes(word.try_into().expect("eight bytes"));
        cell.copy_from_slice(&sum.to_ne_bytes());
    }
    let done = cells.len().min(bytes.len()) / 8 * 8;
    for (cell, byte) in cells[done..].iter_mut().zip(&bytes[done..]) {
        *cell ^= byte;
    }
}

fn table(look: Look) -> &'static Table {
    static RANDOM: OnceLock<Table> = OnceLock::new();
    static PROSE: OnceLock<Table> = OnceLock::new();
    match look {
        Look::Random(_) => RANDOM.get_or_init(|| {
            let mut bytes = vec![0; RANDOM_ROWS * ROW];
            blake3::Hasher::new_keyed(&TABLE_KEY).finalize_xof().fill(&mut bytes);
            Table::new(bytes)
        }),
        Look::Prose => PROSE.get_or_init(|| {
            let mut rng = Rng::new(&[0x7072_6f73]);
            let mut text = String::new();
            while text.len() < PROSE_ROWS * ROW {
                let language = crate::words::language(rng.next());
                text.push_str(rng.phrase(language.sentences));
                text.push_str(if rng.percent(20) { "\r\n" } else { " " });
                text.push_str(&rng.below(100_000).to_string());
                text.push(' ');
            }
            let mut bytes = text.into_bytes();
            bytes.truncate(PROSE_ROWS * ROW);
            Table::new(bytes)
        }),
    }
}

/// What a file begins with: its type's mark, and its seed.
fn head(seed: u64, look: Look) -> Vec<u8> {
    let mut head = match look {
        Look::Random(mark) => mark.to_vec(),
        Look::Prose => Vec::new(),
    };
    head.extend_from_slice(format!("{seed:016x}\n").as_bytes());
    head
}

/// The seed and look that content claims by its first bytes.
pub(crate) fn recognise(start: &[u8]) -> Option<(u64, Look)> {
    let looks = MARKS.into_iter().map(Look::Random).chain([Look::Prose]);
    looks.into_iter().find_map(|look| {
        let mark = head(0, look).len() - 17;
        let digits = start.get(mark..mark + 16)?;
        let seed = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        start.starts_with(&head(seed, look)).then_some((seed, look))
    })
}

/// Fills the buffer from `offset`.
pub(crate) fn read(seed: u64, look: Look, offset: u64, buffer: &mut [u8]) {
    let table = table(look);
    let mut done = 0;
    while done < buffer.len() {
        let at = offset + done as u64;
        let inner = (at % PIECE as u64) as usize;
        let take = (PIECE - inner).min(buffer.len() - done);
        let from = table.row_of(seed, at / PIECE as u64) * ROW + inner;
        buffer[done..done + take].copy_from_slice(&table.bytes[from..from + take]);
        done += take;
    }
    let head = head(seed, look);
    if let Some(rest) = usize::try_from(offset).ok().and_then(|from| head.get(from..)) {
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
    }
}

/// The first `size` bytes, folded: byte i is added to cell i modulo [`ROW`].
pub(crate) fn folded(seed: u64, look: Look, size: u64) -> [u8; ROW] {
    let table = table(look);
    let mut cells = [0; ROW];
    let mut add_rows = |piece: u64, rows: usize| {
        let from = table.row_of(seed, piece);
        xor(&mut cells, &table.sums[from]);
        xor(&mut cells, &table.sums[from + rows]);
        (from + rows) * ROW
    };
    for piece in 0..size / PIECE as u64 {
        add_rows(piece, PIECE_ROWS);
    }
    let rest = (size % PIECE as u64) as usize;
    let end = add_rows(size / PIECE as u64, rest / ROW);
    xor(&mut cells, &table.bytes[end..end + rest % ROW]);
    // The head stands in the place of what the table has there.
    let head = head(seed, look);
    let covered = usize::try_from(size).unwrap_or(usize::MAX).min(head.len());
    let from = table.row_of(seed, 0) * ROW;
    xor(&mut cells[..covered], &table.bytes[from..from + covered]);
    xor(&mut cells[..covered], &head[..covered]);
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOKS: [Look; 2] = [Look::Random(MARKS[0]), Look::Prose];

    fn whole(seed: u64, look: Look, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        read(seed, look, 0, &mut bytes);
        bytes
    }

    #[test]
    fn bytes_are_the_same_whatever_the_pieces() {
        for look in LOOKS {
            let bytes = whole(5, look, 2 * PIECE + 77);
            for (from, to) in [(0, 3), (7, 40), (PIECE - 1, PIECE + 1), (100, 2 * PIECE + 77)] {
                let mut part = vec![0; to - from];
                read(5, look, from as u64, &mut part);
                assert_eq!(part, &bytes[from..to], "{look:?} {from}-{to}");
            }
        }
    }

    #[test]
    fn the_fold_is_that_of_the_bytes() {
        for look in LOOKS {
            for size in [0, 1, 16, 30, 159, 160, 161, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 4321] {
                let mut cells = [0; ROW];
                for (at, byte) in whole(9, look, size).iter().enumerate() {
                    cells[at % ROW] ^= byte;
                }
                assert_eq!(folded(9, look, size as u64), cells, "{look:?} {size}");
            }
        }
    }

    #[test]
    fn content_names_its_seed() {
        for look in MARKS.map(Look::Random).into_iter().chain([Look::Prose]) {
            assert_eq!(recognise(&whole(0x00ab_cdef, look, 100)), Some((0x00ab_cdef, look)));
        }
        assert_eq!(recognise(b"%PDF-1.7\nsomething else altogether"), None);
        assert_eq!(recognise(b""), None);
    }
}
