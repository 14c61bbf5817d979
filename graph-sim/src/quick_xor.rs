//! quickXorHash, as the service computes it: by the definition, bit by bit, over content folded to one period.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::blob::{Data, Shape, Synthetic};
use crate::pieces::{self, ROW};

const BITS: usize = 160;
const BUFFER: usize = ROW * 1024;

/// The hash of content as Microsoft writes it.
pub(crate) fn of(data: &Data) -> String {
    let cells = match data {
        Data::Generated(Synthetic { seed, size, shape: Shape::Pieces(look) }) => {
            pieces::folded(*seed, *look, *size)
        }
        other => folded(other),
    };
    finish(&cells, data.len())
}

fn folded(data: &Data) -> [u8; ROW] {
    let mut cells = [0; ROW];
    let mut buffer = vec![0; BUFFER];
    let mut offset = 0;
    while offset < data.len() {
        let len = data.read(offset, &mut buffer);
        buffer[..len].chunks(ROW).for_each(|row| pieces::xor(&mut cells[..row.len()], row));
        offset += len as u64;
    }
    cells
}

fn finish(cells: &[u8; ROW], length: u64) -> String {
    let mut hash = [0_u8; BITS / 8];
    for (at, byte) in cells.iter().enumerate() {
        for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
            let position = (11 * at + bit) % BITS;
            hash[position / 8] ^= 1 << (position % 8);
        }
    }
    for (byte, length) in hash[12..].iter_mut().zip(length.to_le_bytes()) {
        *byte ^= length;
    }
    STANDARD.encode(hash)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::blob::BlobStore;
    use crate::pieces::Look;

    fn kept(bytes: &[u8]) -> Data {
        BlobStore::default().keep(Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn it_is_what_microsoft_computes() {
        let all: Vec<u8> = (0..=255).cycle().take(1024).collect();
        for (content, expected) in [
            (&b""[..], "AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            (b"a", "YQAAAAAAAAAAAAAAAQAAAAAAAAA="),
            (&[0x4a], "SgAAAAAAAAAAAAAAAQAAAAAAAAA="),
            (b"hello world", "aCgDG9jwBhDc4Q1yawMZAAAAAAA="),
            (&all, "h7xr2dbCayZCQYR9KKhlwDuT4UI="),
        ] {
            assert_eq!(of(&kept(content)), expected);
        }
    }

    #[test]
    fn that_of_generated_content_is_that_of_its_bytes() {
        for shape in [Shape::Text, Shape::Pieces(Look::Prose), Shape::Pieces(Look::Random(b"PK\x03\x04"))] {
            for size in [0, 5, 163_841, 400_000] {
                let data = Data::Generated(Synthetic { seed: 3, size, shape });
                assert_eq!(of(&data), of(&kept(&data.to_vec())), "{shape:?} {size}");
            }
        }
    }
}
