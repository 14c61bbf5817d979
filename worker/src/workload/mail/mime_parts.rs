//! Finds the parts of a MIME message while it streams by: where each body starts and ends, and what it is called.
//!
//! Memory is bounded whatever comes: header blocks, header lines, nesting and the number of parts have limits, and bodies are
//! never kept. What exceeds a limit is not recorded, which only costs a call of its own for that attachment. The invariant:
//! the result does not depend on how the bytes are split over [`MimeScanner::push`].

use std::io::BufRead as _;

use serde::{Deserialize, Serialize};

use super::mime_header::{Headers, parse_headers};

/// Parts recorded, at most.
pub const MAX_PARTS: usize = 4_096;
/// Nested multiparts, at most.
const MAX_DEPTH: usize = 32;
/// One header block, at most; the rest of a longer one is not looked at.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// A boundary line is at most `--` + 70 + `--` and white space; a longer line is body.
const MAX_BOUNDARY_LINE: usize = 512;

/// How a part's body is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// As it is: 7bit, 8bit, binary.
    #[default]
    Identity,
    /// Base64.
    Base64,
    /// Quoted-printable.
    QuotedPrintable,
}

/// One leaf of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MimePart {
    /// The file's name, decoded.
    pub name: Option<String>,
    /// Without angle brackets.
    pub content_id: Option<String>,
    /// In lower case, without parameters.
    pub content_type: String,
    /// How the body is written.
    pub encoding: Encoding,
    /// Where the body starts in the message.
    pub start: u64,
    /// How long it is there.
    pub len: u64,
    /// How long it is decoded.
    pub decoded_len: u64,
}

impl MimePart {
    /// Whether it looks like something attached and not like the text of the message.
    pub fn is_attached(&self) -> bool {
        self.name.is_some() || self.content_id.is_some() || !self.content_type.starts_with("text/")
    }
}

/// What the line that is being read belongs to.
enum Place {
    Headers(Vec<u8>),
    /// Preamble or epilogue.
    Between,
    Leaf(Leaf),
}

struct Leaf {
    headers: Headers,
    start: u64,
    /// The end of the last line without its line break, which belongs to the boundary that may follow.
    end: u64,
    /// The last byte was a carriage return.
    after_cr: bool,
    counter: DecodedCounter,
}

/// Takes the bytes of a message in any pieces and gives its parts.
pub struct MimeScanner {
    offset: u64,
    place: Place,
    boundaries: Vec<Vec<u8>>,
    /// The start of a line that is not complete yet.
    line: Vec<u8>,
    /// The rest of this line is body, however it looks.
    in_long_line: bool,
    parts: Vec<MimePart>,
    /// The message is a multipart whose last boundary was not seen yet.
    is_open: bool,
}

impl Default for MimeScanner {
    fn default() -> Self {
        Self::new()
    }
}

impl MimeScanner {
    /// Starts at a message's first byte.
    pub fn new() -> Self {
        Self {
            offset: 0,
            place: Place::Headers(Vec::new()),
            boundaries: Vec::new(),
            line: Vec::new(),
            in_long_line: false,
            parts: Vec::new(),
            is_open: false,
        }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(line_len(bytes));
            bytes = rest;
            let complete = piece.last() == Some(&b'\n');
            if self.in_long_line {
                self.body_bytes(piece);
                self.in_long_line = !complete;
            } else if complete && self.line.is_empty() {
                self.line(piece);
            } else {
                self.partial_line(piece, complete);
            }
        }
    }

    fn partial_line(&mut self, piece: &[u8], complete: bool) {
        let limit =
            if matches!(self.place, Place::Headers(_)) { MAX_HEADER_BYTES } else { MAX_BOUNDARY_LINE };
        self.line.extend_from_slice(piece);
        if complete {
            let line = std::mem::take(&mut self.line);
            self.line(&line);
            self.line = line;
            self.line.clear();
        } else if self.line.len() > limit {
            let line = std::mem::take(&mut self.line);
            self.body_bytes(&line);
            self.in_long_line = true;
        }
    }

    /// All parts, once the message has ended.
    pub fn finish(mut self) -> Vec<MimePart> {
        if !self.line.is_empty() {
            let line = std::mem::take(&mut self.line);
            self.line(&line);
        }
        let end = self.offset;
        self.end_leaf(Some(end));
        self.parts
    }

    /// Whether the message ends where it says it does: a multipart needs its last boundary.
    pub fn is_whole(&self) -> bool {
        let ends_here = || self.line.starts_with(b"--") && self.boundary(&self.line) == Some((0, true));
        !self.is_open || ends_here()
    }

    /// Bytes taken so far.
    pub fn bytes_seen(&self) -> u64 {
        self.offset + self.line.len() as u64
    }

    /// A whole line with its break, or the last one without.
    fn line(&mut self, line: &[u8]) {
        if line.starts_with(b"--")
            && line.len() <= MAX_BOUNDARY_LINE
            && let Some((depth, is_last)) = self.boundary(line)
        {
            self.end_leaf(None);
            self.offset += line.len() as u64;
            self.boundaries.truncate(if is_last { depth } else { depth + 1 });
            self.is_open &= !(is_last && depth == 0);
            self.place = if is_last { Place::Between } else { Place::Headers(Vec::new()) };
            return;
        }
        if let Place::Headers(block) = &mut self.place {
            self.offset += line.len() as u64;
            if line == b"\r\n" || line == b"\n" {
                let block = std::mem::take(block);
                self.end_of_headers(&block);
            } else if block.len() + line.len() <= MAX_HEADER_BYTES {
                block.extend_from_slice(line);
            }
            return;
        }
        self.body_bytes(line);
    }

    fn boundary(&self, line: &[u8]) -> Option<(usize, bool)> {
        let text = line[2..].trim_ascii_end();
        self.boundaries.iter().enumerate().rev().find_map(|(depth, boundary)| {
            let rest = text.strip_prefix(boundary.as_slice())?;
            match rest {
                b"" => Some((depth, false)),
                b"--" => Some((depth, true)),
                _ => None,
            }
        })
    }

    fn end_of_headers(&mut self, block: &[u8]) {
        let headers = parse_headers(block);
        if let Some(boundary) = &headers.boundary
            && headers.content_type.starts_with("multipart/")
            && self.boundaries.len() < MAX_DEPTH
        {
            self.is_open |= self.boundaries.is_empty();
            self.boundaries.push(boundary.clone());
            self.place = Place::Between;
            return;
        }
        let counter = DecodedCounter::new(headers.encoding);
        self.place =
            Place::Leaf(Leaf { headers, start: self.offset, end: self.offset, after_cr: false, counter });
    }

    fn body_bytes(&mut self, bytes: &[u8]) {
        self.offset += bytes.len() as u64;
        if let Place::Leaf(leaf) = &mut self.place {
            leaf.counter.push(bytes);
            let line_break = match bytes {
                [b'\n'] if leaf.after_cr => 2,
                [.., b'\r', b'\n'] => 2,
                [.., b'\n'] => 1,
                _ => 0,
            };
            leaf.after_cr = bytes.last() == Some(&b'\r');
            leaf.end = self.offset - line_break;
        }
    }

    /// Records the leaf that ends here: before the line break that belongs to a boundary, or at the message's end.
    fn end_leaf(&mut self, message_end: Option<u64>) {
        let Place::Leaf(leaf) = std::mem::replace(&mut self.place, Place::Between) else { return };
        if self.parts.len() >= MAX_PARTS {
            return;
        }
        let end = message_end.unwrap_or(leaf.end);
        let len = end - leaf.start;
        let decoded_len = match leaf.headers.encoding {
            Encoding::Identity => len,
            _ => leaf.counter.finish(message_end.is_some()),
        };
        let Headers { name, content_id, content_type, encoding, .. } = leaf.headers;
        self.parts.push(MimePart {
            name,
            content_id,
            content_type,
            encoding,
            start: leaf.start,
            len,
            decoded_len,
        });
    }
}

/// The bytes up to and with the first line break; all of them when there is none.
fn line_len(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    // Reading from a slice cannot fail.
    rest.skip_until(b'\n').unwrap_or(bytes.len())
}

/// What counts in base64.
const IS_DIGIT: [u8; 256] = {
    let mut table = [0; 256];
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut index = 0;
    while index < digits.len() {
        table[digits[index] as usize] = 1;
        index += 1;
    }
    table
};

/// An equals sign was seen.
const ESCAPE: u8 = 1;
/// And the first digit behind it.
const ESCAPE_DIGIT: u8 = 2;
/// A carriage return was seen.
const AFTER_CR: u8 = 3;

/// How long a body is once it is decoded.
struct DecodedCounter {
    encoding: Encoding,
    /// Base64: characters. Quoted-printable: decoded bytes.
    count: u64,
    /// Quoted-printable: how much of an escape was seen, and of a line break not counted yet.
    escape: u8,
    pending_break: u64,
}

impl DecodedCounter {
    fn new(encoding: Encoding) -> Self {
        Self { encoding, count: 0, escape: 0, pending_break: 0 }
    }

    fn push(&mut self, bytes: &[u8]) {
        match self.encoding {
            Encoding::Identity => {}
            Encoding::Base64 => {
                for byte in bytes {
                    self.count += u64::from(IS_DIGIT[*byte as usize]);
                }
            }
            Encoding::QuotedPrintable => bytes.iter().for_each(|byte| self.quoted(*byte)),
        }
    }

    fn quoted(&mut self, byte: u8) {
        match (self.escape, byte) {
            (ESCAPE, b'\r') => {}
            (ESCAPE, b'\n') => self.escape = 0,
            (ESCAPE, _) => self.escape = ESCAPE_DIGIT,
            (ESCAPE_DIGIT, _) => {
                self.escape = 0;
                self.count += 1;
            }
            (AFTER_CR, b'\n') => {
                self.escape = 0;
                self.pending_break = 2;
            }
            _ => {
                self.flush_break();
                self.escape = match byte {
                    b'=' => ESCAPE,
                    b'\r' => AFTER_CR,
                    _ => 0,
                };
                match byte {
                    b'=' => {}
                    b'\r' | b'\n' => self.pending_break = 1,
                    _ => self.count += 1,
                }
            }
        }
    }

    fn flush_break(&mut self) {
        self.count += std::mem::take(&mut self.pending_break);
    }

    fn finish(mut self, at_message_end: bool) -> u64 {
        match self.encoding {
            Encoding::Base64 => self.count / 4 * 3 + [0, 0, 1, 2][(self.count % 4) as usize],
            _ => {
                if at_message_end {
                    self.flush_break();
                }
                self.count
            }
        }
    }
}

#[cfg(test)]
#[path = "mime_parts/tests.rs"]
mod tests;
