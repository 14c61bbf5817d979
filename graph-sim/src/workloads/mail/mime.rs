//! RFC 5322 as Exchange rebuilds it on each read: streamed, with boundaries that differ every time.
//!
//! Invariant: the length is known before the first byte, and memory holds one piece of an attachment at a time.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::blob::{Data, Synthetic};
use crate::workloads::mail::content::{Attachment, Content, Kind, Person};
use crate::world::World;

const LINE_BYTES: usize = 57;
const LINE_CHARS: usize = 76;
/// Raw bytes encoded at once: a whole number of base64 lines.
const PIECE: usize = LINE_BYTES * 1024;
const MAX_PLAIN_LINE: usize = 900;

enum Piece {
    Text(String),
    Base64(Data),
    Raw(Bytes),
}

/// A message in pieces.
pub(crate) struct Mime {
    pieces: Vec<Piece>,
}

impl Mime {
    /// Lays out a message; `salt` makes the boundaries.
    pub(crate) fn new(content: &Content, salt: u64) -> Self {
        let mut mime = Self { pieces: Vec::new() };
        match &content.raw_mime {
            Some(raw) => mime.pieces.push(Piece::Raw(raw.clone())),
            None => mime.message(content, salt),
        }
        mime
    }

    pub(crate) fn len(&self) -> u64 {
        self.pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.len() as u64,
                Piece::Base64(data) => encoded_len(data.len()),
                Piece::Raw(bytes) => bytes.len() as u64,
            })
            .sum()
    }

    fn text(&mut self) -> &mut String {
        if !matches!(self.pieces.last(), Some(Piece::Text(_))) {
            self.pieces.push(Piece::Text(String::new()));
        }
        match self.pieces.last_mut() {
            Some(Piece::Text(text)) => text,
            _ => unreachable!("just pushed"),
        }
    }

    fn message(&mut self, content: &Content, salt: u64) {
        headers(self.text(), content);
        let inline: Vec<_> = content.attachments.iter().filter(|one| one.is_inline).collect();
        let others: Vec<_> = content
            .attachments
            .iter()
            .filter(|one| !one.is_inline && !matches!(one.kind, Kind::Reference))
            .collect();
        let name = |level: u32| format!("_{level:03}_{salt:016X}{:08x}_", content.body.len());
        let mut close = Vec::new();
        if !others.is_empty() {
            open(self.text(), "multipart/mixed", &name(4));
            close.push((name(4), others));
        }
        if !inline.is_empty() {
            open(self.text(), "multipart/related;\r\n\ttype=\"multipart/alternative\"", &name(5));
            close.push((name(5), inline));
        }
        if content.is_html {
            let boundary = name(6);
            open(self.text(), "multipart/alternative", &boundary);
            body_part(self.text(), "plain", &plain_text(&content.body, usize::MAX), style_of(content));
            let _ = write!(self.text(), "\r\n--{boundary}\r\n");
            body_part(self.text(), "html", &content.body, style_of(content));
            let _ = write!(self.text(), "\r\n--{boundary}--\r\n");
        } else {
            body_part(self.text(), "plain", &content.body, style_of(content));
        }
        for (boundary, attachments) in close.into_iter().rev() {
            for attachment in attachments {
                let _ = write!(self.text(), "\r\n--{boundary}\r\n");
                self.attachment(attachment, salt);
            }
            let _ = write!(self.text(), "\r\n--{boundary}--\r\n");
        }
    }

    fn attachment(&mut self, attachment: &Attachment, salt: u64) {
        match &attachment.kind {
            Kind::File(data) => {
                let out = self.text();
                let disposition = if attachment.is_inline { "inline" } else { "attachment" };
                let _ = write!(out, "Content-Type: {}; ", attachment.content_type);
                parameter(out, "name", &attachment.name);
                out.push_str("\r\nContent-Description: ");
                words(out, &attachment.name);
                let _ = write!(out, "\r\nContent-Disposition: {disposition}; ");
                parameter(out, "filename", &attachment.name);
                let _ = write!(out, ";\r\n\tsize={}\r\n", data.len());
                if let Some(id) = &attachment.content_id {
                    let _ = write!(out, "Content-ID: <{id}>\r\n");
                }
                out.push_str("Content-Transfer-Encoding: base64\r\n\r\n");
                self.pieces.push(Piece::Base64(data.clone()));
            }
            Kind::Item(item) => {
                self.text()
                    .push_str("Content-Type: message/rfc822\r\nContent-Disposition: attachment\r\n\r\n");
                self.message(item, salt ^ 1);
            }
            Kind::Reference => {}
        }
    }
}

/// The MIME of an attached item: it depends on what the item holds alone, so a restored one has the same.
pub(crate) fn item_bytes(item: &Content) -> Vec<u8> {
    let mime = Mime::new(item, 0);
    let mut out = Vec::with_capacity(mime.len() as usize);
    for piece in &mime.pieces {
        match piece {
            Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
            Piece::Raw(bytes) => out.extend_from_slice(bytes),
            Piece::Base64(data) => out.extend_from_slice(&encode_whole(&data.to_vec())),
        }
    }
    out
}

fn encoded_len(raw: u64) -> u64 {
    let lines = raw / LINE_BYTES as u64;
    let rest = raw % LINE_BYTES as u64;
    lines * (LINE_CHARS as u64 + 2) + if rest > 0 { rest.div_ceil(3) * 4 + 2 } else { 0 }
}

/// Base64 in lines. `scratch` has at least base64's length.
fn encode_lines(raw: &[u8], scratch: &mut [u8]) -> Vec<u8> {
    let len = STANDARD.encode_slice(raw, scratch).expect("the buffer has base64's length");
    let mut out = vec![0; encoded_len(raw.len() as u64) as usize];
    let (mut from, mut to) = (0, 0);
    while from < len {
        let line = LINE_CHARS.min(len - from);
        out[to..to + line].copy_from_slice(&scratch[from..from + line]);
        out[to + line] = b'\r';
        out[to + line + 1] = b'\n';
        from += line;
        to += line + 2;
    }
    out
}

fn encode_whole(raw: &[u8]) -> Vec<u8> {
    encode_lines(raw, &mut vec![0; raw.len().div_ceil(3) * 4])
}

/// Gives a message out piece by piece and learns the hashes of what it generates.
pub(crate) struct MimeReader {
    pieces: std::vec::IntoIter<Piece>,
    current: Option<Attached>,
    scratch: Vec<u8>,
    raw: Vec<u8>,
}

struct Attached {
    data: Data,
    offset: u64,
    hasher: Option<(Synthetic, Box<blake3::Hasher>)>,
}

impl MimeReader {
    pub(crate) fn new(mime: Mime) -> Self {
        Self { pieces: mime.pieces.into_iter(), current: None, scratch: Vec::new(), raw: Vec::new() }
    }

    /// The next bytes; none at the end.
    pub(crate) fn next(&mut self, world: &World) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.next_of_current(world) {
                return Some(bytes);
            }
            match self.pieces.next()? {
                Piece::Text(text) => return Some(text.into()),
                Piece::Raw(bytes) => return Some(bytes),
                Piece::Base64(data) => {
                    let hasher = match &data {
                        Data::Generated(recipe) if world.blobs.known(recipe).is_none() => {
                            Some((*recipe, Box::new(blake3::Hasher::new())))
                        }
                        _ => None,
                    };
                    self.current = Some(Attached { data, offset: 0, hasher });
                }
            }
        }
    }

    fn next_of_current(&mut self, world: &World) -> Option<Bytes> {
        let current = self.current.as_mut()?;
        if self.raw.is_empty() {
            (self.raw, self.scratch) = (vec![0; PIECE], vec![0; PIECE / 3 * 4]);
        }
        let len = current.data.read(current.offset, &mut self.raw);
        let raw = &self.raw[..len];
        current.offset += len as u64;
        if let Some((_, hasher)) = &mut current.hasher {
            hasher.update(raw);
        }
        if raw.is_empty() {
            if let Some((recipe, hasher)) = current.hasher.take() {
                world.blobs.learn(recipe, *hasher.finalize().as_bytes());
            }
            self.current = None;
            return None;
        }
        Some(encode_lines(raw, &mut self.scratch).into())
    }
}

fn headers(out: &mut String, content: &Content) {
    if !content.is_draft {
        let date = crate::json::timestamp(content.received_ms);
        let _ = write!(
            out,
            "Received: from mail.contoso.example (2001:db8::1) by\r\n edge.contoso.example with HTTPS; {date}\r\n"
        );
    }
    people(out, "From", content.from.as_slice());
    if content.sender != content.from {
        people(out, "Sender", content.sender.as_slice());
    }
    people(out, "To", &content.to);
    people(out, "CC", &content.cc);
    people(out, "BCC", &content.bcc);
    people(out, "Reply-To", &content.reply_to);
    out.push_str("Subject: ");
    words(out, &content.subject);
    let _ =
        write!(out, "\r\nDate: {}\r\nMessage-ID: {}\r\n", date(content.sent_ms), content.internet_message_id);
    if let Some(id) = &content.in_reply_to {
        let _ = write!(out, "In-Reply-To: {id}\r\nReferences: {id}\r\n");
    }
    if content.importance != "normal" {
        let _ = write!(out, "Importance: {}\r\n", content.importance);
    }
    for (name, value) in &content.headers {
        let _ = write!(out, "{name}: {value}\r\n");
    }
    out.push_str("MIME-Version: 1.0\r\n");
}

fn date(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1000).unwrap_or(0);
    let stamp = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    stamp.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

fn people(out: &mut String, name: &str, list: &[Person]) {
    if list.is_empty() {
        return;
    }
    let _ = write!(out, "{name}: ");
    for (at, person) in list.iter().enumerate() {
        if at > 0 {
            out.push_str(",\r\n\t");
        }
        if person.name.is_ascii() {
            let _ = write!(out, "\"{}\"", person.name.replace(['\\', '"', '\r', '\n'], " "));
        } else {
            words(out, &person.name);
        }
        let _ = write!(out, " <{}>", person.address);
    }
    out.push_str("\r\n");
}

/// RFC 2047.
fn words(out: &mut String, text: &str) {
    if text.is_ascii() && !text.contains(['\r', '\n']) && text.len() < 200 {
        out.push_str(text);
        return;
    }
    let mut rest = text;
    let mut first = true;
    while !rest.is_empty() {
        let mut end = rest.len().min(42);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        if !first {
            out.push_str("\r\n ");
        }
        let _ = write!(out, "=?utf-8?B?{}?=", STANDARD.encode(&rest[..end]));
        rest = &rest[end..];
        first = false;
    }
}

/// RFC 2231 for names that are not ASCII.
fn parameter(out: &mut String, name: &str, value: &str) {
    if value.is_ascii() {
        let _ = write!(out, "{name}=\"{}\"", value.replace(['\\', '"', '\r', '\n'], "_"));
    } else {
        let encoded = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
        let _ = write!(out, "{name}*=utf-8''{encoded}");
    }
}

fn open(out: &mut String, kind: &str, boundary: &str) {
    let _ = write!(out, "Content-Type: {kind};\r\n\tboundary=\"{boundary}\"\r\n\r\n--{boundary}\r\n");
}

#[derive(Clone, Copy)]
enum Style {
    QuotedPrintable,
    Base64,
}

fn style_of(content: &Content) -> Style {
    if content.body.len().is_multiple_of(4) { Style::QuotedPrintable } else { Style::Base64 }
}

fn body_part(out: &mut String, kind: &str, body: &str, style: Style) {
    let plain =
        body.is_ascii() && body.split("\r\n").all(|l| l.len() < MAX_PLAIN_LINE && !l.contains(['\r', '\n']));
    let charset = if body.is_ascii() { "us-ascii" } else { "utf-8" };
    let encoding = match style {
        _ if plain => "7bit",
        Style::QuotedPrintable => "quoted-printable",
        Style::Base64 => "base64",
    };
    let _ = write!(
        out,
        "Content-Type: text/{kind}; charset=\"{charset}\"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    );
    match style {
        _ if plain => out.push_str(body),
        Style::QuotedPrintable => quoted_printable(out, body),
        Style::Base64 => {
            let bytes = encode_whole(body.as_bytes());
            out.push_str(std::str::from_utf8(&bytes).expect("base64 is ascii"));
        }
    }
}

fn quoted_printable(out: &mut String, body: &str) {
    let mut column = 0;
    let bytes = body.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte == b'\r' && bytes.get(at + 1) == Some(&b'\n') {
            out.push_str("\r\n");
            column = 0;
            at += 2;
            continue;
        }
        let ends_line = matches!(bytes.get(at + 1), None | Some(b'\r'));
        let literal =
            matches!(byte, b'!'..=b'<' | b'>'..=b'~') || (matches!(byte, b' ' | b'\t') && !ends_line);
        let width = if literal { 1 } else { 3 };
        if column + width > LINE_CHARS - 1 {
            out.push_str("=\r\n");
            column = 0;
        }
        if literal {
            out.push(byte as char);
        } else {
            let _ = write!(out, "={byte:02X}");
        }
        column += width;
        at += 1;
    }
}

/// HTML without its tags, up to `limit` bytes or a little more.
pub(crate) fn plain_text(html: &str, limit: usize) -> String {
    let html = html.find("<body>").map_or(html, |at| &html[at..]);
    let mut out = String::with_capacity(html.len().min(limit));
    for piece in html.split('<') {
        let text = piece.split_once('>').map_or(piece, |(_, text)| text);
        out.push_str(text);
        if out.len() >= limit {
            break;
        }
    }
    out.replace("&gt;", ">").replace("&lt;", "<").replace("&nbsp;", " ").replace("&amp;", "&")
}
