//! quickXorHash: what OneDrive for Business and SharePoint say about a file's content.
//!
//! The one invariant to know: the result does not depend on how the content was cut into pieces, nor on the order in which
//! parts were computed. It is no cryptographic hash: it finds a broken transfer, not a forgery.

use base64::Engine as _;

const BITS: u64 = 160;
const BYTES: usize = 20;

/// How far each byte of the content is shifted against the one before.
const SHIFT: u64 = 11;

/// After so many bytes of content the positions repeat: 11 and 160 have no common factor.
const PERIOD: usize = BITS as usize;

/// The length of the content goes into the last bytes.
const LENGTH_AT: usize = 12;

/// A hash of content that is computed as the content comes.
#[derive(Clone)]
pub struct QuickXorHash {
    /// The content, folded: byte i is added to cell i modulo the period.
    cells: [u8; PERIOD],
    /// The cell of the next byte.
    cell: usize,
    length: u64,
}

impl QuickXorHash {
    /// Starts at the beginning of the content.
    pub fn new() -> Self {
        Self::of_part(0)
    }

    /// Starts at an offset: for a part that is computed by itself and joined later.
    pub fn of_part(offset: u64) -> Self {
        Self { cells: [0; PERIOD], cell: (offset % PERIOD as u64) as usize, length: 0 }
    }

    /// Adds what comes next.
    pub fn update(&mut self, content: &[u8]) {
        let mut rest = content;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(PERIOD - self.cell));
            for (cell, byte) in self.cells[self.cell..].iter_mut().zip(now) {
                *cell ^= byte;
            }
            self.cell = (self.cell + now.len()) % PERIOD;
            rest = later;
        }
        self.length += content.len() as u64;
    }

    /// Adds another part of the same content, whichever comes first in it.
    pub fn join(&mut self, part: &Self) {
        for (cell, other) in self.cells.iter_mut().zip(&part.cells) {
            *cell ^= other;
        }
        self.length += part.length;
    }

    /// How many bytes were added.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The hash as Microsoft writes it.
    pub fn finish(&self) -> String {
        let mut hash = [0u8; BYTES];
        for (index, byte) in self.cells.iter().enumerate() {
            let position = (SHIFT * index as u64 % BITS) as usize;
            let spread = u16::from(*byte) << (position % 8);
            hash[position / 8] ^= spread.to_le_bytes()[0];
            // What does not fit into this byte goes on in the next, after the last in the first.
            hash[(position / 8 + 1) % BYTES] ^= spread.to_le_bytes()[1];
        }
        for (byte, length) in hash[LENGTH_AT..].iter_mut().zip(self.length.to_le_bytes()) {
            *byte ^= length;
        }
        base64::engine::general_purpose::STANDARD.encode(hash)
    }
}

impl Default for QuickXorHash {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for QuickXorHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuickXorHash").field("length", &self.length).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(content: &[u8]) -> String {
        let mut hash = QuickXorHash::new();
        hash.update(content);
        hash.finish()
    }

    fn four_times_all_bytes() -> Vec<u8> {
        (0..=255u8).cycle().take(1024).collect()
    }

    #[test]
    fn it_is_what_microsoft_computes() {
        let vectors: &[(&[u8], &str)] = &[
            (b"", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            (b"a", "YQAAAAAAAAAAAAAAAQAAAAAAAAA="),
            (&[0x4a], "SgAAAAAAAAAAAAAAAQAAAAAAAAA="),
            (b"hello world", "aCgDG9jwBhDc4Q1yawMZAAAAAAA="),
            (&four_times_all_bytes(), "h7xr2dbCayZCQYR9KKhlwDuT4UI="),
        ];
        for (content, expected) in vectors {
            assert_eq!(hash(content), *expected, "{} bytes", content.len());
        }
    }

    #[test]
    fn it_is_the_definition_bit_by_bit() {
        let content: Vec<u8> = (0..5_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let mut bits = [0u8; BYTES];
        for (i, byte) in content.iter().enumerate() {
            for j in (0..8).filter(|j| byte >> j & 1 == 1) {
                let k = (11 * i + j) % 160;
                bits[k / 8] ^= 1 << (k % 8);
            }
        }
        for (byte, length) in bits[12..].iter_mut().zip((content.len() as u64).to_le_bytes()) {
            *byte ^= length;
        }
        assert_eq!(hash(&content), base64::engine::general_purpose::STANDARD.encode(bits));
    }

    #[test]
    fn neither_pieces_nor_the_order_of_parts_matter() {
        let content = four_times_all_bytes();
        for cut in [0, 1, 159, 160, 161, 500, 1024] {
            let (first, second) = content.split_at(cut);
            let mut pieces = QuickXorHash::new();
            pieces.update(first);
            pieces.update(second);
            let (mut head, mut tail) = (QuickXorHash::new(), QuickXorHash::of_part(cut as u64));
            head.update(first);
            tail.update(second);
            tail.join(&head);
            assert_eq!((pieces.finish(), tail.finish()), (hash(&content), hash(&content)), "cut at {cut}");
        }
    }
}
