use base64::Engine as _;

use super::*;

const MESSAGE: &str = concat!(
    "From: a@b\r\nSubject: x\r\nMIME-Version: 1.0\r\n",
    "Content-Type: multipart/mixed;\r\n boundary=\"outer\"\r\n\r\n",
    "preamble\r\n--outer\r\n",
    "Content-Type: multipart/alternative; boundary=inner\r\n\r\n",
    "--inner\r\nContent-Type: text/plain\r\n\r\nhello\r\nworld\r\n",
    "--inner\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<p>=C3=A4=\r\nb</p>\r\n\r\n--inner--\r\n",
    "--outer\r\nContent-Type: application/pdf; name=\"r\u{e4}port.pdf\"\r\n",
    "Content-Disposition: attachment; filename=\"report.pdf\"\r\nContent-Transfer-Encoding: base64\r\n",
    "Content-ID: <cid1@x>\r\n\r\nSGVsbG8s\r\nIHdvcmxkIQ==\r\n",
    "--outer\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nnested body\r\n",
    "--outer--\r\nepilogue\r\n",
);

fn scan(pieces: &[&[u8]]) -> Vec<MimePart> {
    let mut scanner = MimeScanner::new();
    pieces.iter().for_each(|piece| scanner.push(piece));
    scanner.finish()
}

fn body<'a>(message: &'a [u8], part: &MimePart) -> &'a [u8] {
    &message[part.start as usize..(part.start + part.len) as usize]
}

#[test]
fn every_leaf_is_found_with_its_range_and_its_decoded_length() {
    let bytes = MESSAGE.as_bytes();
    let parts = scan(&[bytes]);
    assert_eq!(parts.len(), 4);
    assert_eq!(body(bytes, &parts[0]), b"hello\r\nworld");
    assert_eq!(
        (parts[1].encoding, parts[1].decoded_len),
        (Encoding::QuotedPrintable, "<p>äb</p>\r\n".len() as u64)
    );
    assert_eq!(parts[2].name.as_deref(), Some("report.pdf"));
    assert_eq!(parts[2].content_id.as_deref(), Some("cid1@x"));
    let text: Vec<u8> = body(bytes, &parts[2]).iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    let decoded = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    assert_eq!((decoded.as_slice(), parts[2].decoded_len), (&b"Hello, world!"[..], 13));
    assert_eq!(parts[3].content_type, "message/rfc822");
    assert_eq!(body(bytes, &parts[3]), b"Subject: inner\r\n\r\nnested body");
}

#[test]
fn the_result_does_not_depend_on_where_the_bytes_are_split() {
    let bytes = MESSAGE.as_bytes();
    let whole = scan(&[bytes]);
    for at in 0..=bytes.len() {
        assert_eq!(scan(&[&bytes[..at], &bytes[at..]]), whole, "split at {at}");
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(scan(&single), whole);
}

#[test]
fn a_body_without_multipart_reaches_to_the_last_byte() {
    let parts = scan(&[b"Subject: x\n\nline one\nline two"]);
    assert_eq!((parts.len(), parts[0].start, parts[0].len), (1, 12, 17));
}

#[test]
fn lines_without_end_headers_without_end_and_deep_nesting_stay_bounded() {
    let mut scanner = MimeScanner::new();
    let long = vec![b'-'; 1 << 20];
    scanner.push(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n");
    for _ in 0..8 {
        scanner.push(&long);
        assert!(scanner.line.capacity() <= 4 << 20);
    }
    scanner.push(b"\r\n\r\nx\r\n--b--\r\n");
    let parts = scanner.finish();
    assert!(parts.len() <= 1);

    let mut scanner = MimeScanner::new();
    for depth in 0..200 {
        scanner.push(
            format!("Content-Type: multipart/mixed; boundary=b{depth}\r\n\r\n--b{depth}\r\n").as_bytes(),
        );
    }
    assert!(scanner.boundaries.len() <= MAX_DEPTH);
    scanner.finish();
}

#[test]
fn more_parts_than_the_limit_are_not_recorded() {
    let mut scanner = MimeScanner::new();
    scanner.push(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n");
    for _ in 0..MAX_PARTS + 10 {
        scanner.push(b"--b\r\n\r\nx\r\n");
    }
    assert_eq!(scanner.finish().len(), MAX_PARTS);
}

#[test]
fn garbage_never_panics() {
    let mut state = 7u64;
    for _ in 0..500 {
        let mut bytes = Vec::new();
        for _ in 0..300 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let pieces: [&[u8]; 8] = [
                b"--",
                b"b",
                b"\r\n",
                b"\n",
                b"Content-Type: multipart/mixed; boundary=b\r\n",
                b"=",
                b"\0\xff",
                b"--b--",
            ];
            bytes.extend_from_slice(pieces[(state >> 33) as usize % 8]);
        }
        for part in scan(&[&bytes]) {
            assert!(part.start + part.len <= bytes.len() as u64);
        }
    }
}

#[test]
fn a_multipart_without_its_last_boundary_is_not_whole() {
    let message = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b--";
    for cut in [0, 1, 2, 12] {
        let mut scanner = MimeScanner::new();
        scanner.push(&message.as_bytes()[..message.len() - cut]);
        assert_eq!(scanner.is_whole(), cut == 0, "{cut}");
    }
    let mut plain = MimeScanner::new();
    plain.push(b"Subject: s\r\n\r\ntext");
    assert!(plain.is_whole());
}
