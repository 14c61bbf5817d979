//! Decodes a part's body while it streams by. Memory: a few bytes. Lenient as mail is: what is no digit is skipped.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::mime_parts::Encoding;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Takes encoded bytes in any pieces.
pub(crate) struct Decoder {
    encoding: Encoding,
    digits: Vec<u8>,
    escape: Vec<u8>,
}

impl Decoder {
    pub(crate) fn new(encoding: Encoding) -> Self {
        Self { encoding, digits: Vec::new(), escape: Vec::new() }
    }

    /// Decodes as much as is complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        match self.encoding {
            Encoding::Identity => bytes.to_vec(),
            Encoding::Base64 => {
                let is_digit = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(**byte, b'+' | b'/');
                self.digits.extend(bytes.iter().filter(is_digit));
                let whole = self.digits.len() / 4 * 4;
                let decoded = LENIENT.decode(&self.digits[..whole]).unwrap_or_default();
                self.digits.drain(..whole);
                decoded
            }
            Encoding::QuotedPrintable => self.quoted(bytes),
        }
    }

    /// What is left.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        match self.encoding {
            Encoding::Base64 => LENIENT.decode(&self.digits).unwrap_or_default(),
            _ => std::mem::take(&mut self.escape),
        }
    }

    fn quoted(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if self.escape.is_empty() {
                if *byte == b'=' {
                    self.escape.push(b'=')
                } else {
                    out.push(*byte)
                }
                continue;
            }
            match (self.escape.len(), byte) {
                (1, b'\r') => {}
                (1, b'\n') => self.escape.clear(),
                (1, _) => self.escape.push(*byte),
                (_, low) => {
                    let digit =
                        |byte: u8| (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                    match (digit(self.escape[1]), digit(*low)) {
                        (Some(high), Some(low)) => out.push(high << 4 | low),
                        _ => {
                            out.extend_from_slice(&self.escape);
                            out.push(*low);
                        }
                    }
                    self.escape.clear();
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(encoding: Encoding, bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut decoder = Decoder::new(encoding);
        let mut out: Vec<u8> = bytes.chunks(piece).flat_map(|piece| decoder.push(piece)).collect();
        out.extend(decoder.finish());
        out
    }

    #[test]
    fn pieces_of_any_size_decode_to_the_same() {
        for piece in 1..9 {
            assert_eq!(
                decode(Encoding::Base64, b"SGVs\r\nbG8s\r\nIHdvcmxkIQ==\r\n", piece),
                b"Hello, world!"
            );
            assert_eq!(decode(Encoding::QuotedPrintable, b"a=C3=A4=\r\nb\r\n", piece), "aäb\r\n".as_bytes());
        }
    }
}
