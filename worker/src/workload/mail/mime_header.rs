//! The few headers of a MIME part that matter here: what it is, what it is called, how it is written.
//!
//! Parsing of header values is left to `mail-parser`, which never fails on hostile input; it only ever sees a header block of
//! bounded size with an empty body.

use mail_parser::{HeaderValue, MessageParser, MimeHeaders as _};

use super::mime_parts::Encoding;

/// What a header block says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Headers {
    pub name: Option<String>,
    pub content_id: Option<String>,
    pub content_type: String,
    pub boundary: Option<Vec<u8>>,
    pub encoding: Encoding,
}

pub(super) fn parse_headers(block: &[u8]) -> Headers {
    let mut bytes = Vec::with_capacity(block.len() + 2);
    bytes.extend_from_slice(block);
    bytes.extend_from_slice(b"\r\n");
    let Some(message) = MessageParser::default().parse_headers(&bytes) else {
        return Headers { content_type: "text/plain".to_owned(), ..Headers::default() };
    };
    let part = message.root_part();
    let content_type = part.content_type().map_or_else(
        || "text/plain".to_owned(),
        |value| match value.subtype() {
            Some(subtype) => format!("{}/{subtype}", value.ctype()).to_ascii_lowercase(),
            None => value.ctype().to_ascii_lowercase(),
        },
    );
    let boundary = part
        .content_type()
        .and_then(|value| value.attribute("boundary"))
        .map(|text| text.as_bytes().to_vec());
    let encoding = match part.content_transfer_encoding().map(str::trim) {
        Some(word) if word.eq_ignore_ascii_case("base64") => Encoding::Base64,
        Some(word) if word.eq_ignore_ascii_case("quoted-printable") => Encoding::QuotedPrintable,
        _ => Encoding::Identity,
    };
    let id =
        |value: &HeaderValue<'_>| value.as_text().map(|text| text.trim_matches(['<', '>', ' ']).to_owned());
    let content_id = message.header("Content-ID").and_then(id).filter(|text| !text.is_empty());
    Headers { name: part.attachment_name().map(str::to_owned), content_id, content_type, boundary, encoding }
}
