//! Messages, made up and hostile, are taken apart and come back bit by bit.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::TryStreamExt as _;
use holdfast_model::{Random, ResourceId, TenantId};
use proptest::prelude::*;

use super::{Event, MAX_DEPTH, MAX_RUNS, MIN_RUN_BYTES, MimeWriter, Rebuilder, Splitter};
use crate::{
    blob, check_content_blob,
    content_blob::content_blob,
    content_reader::ContentPart,
    content_writer::ContentDraft,
    error::Error,
    fetch::Fetcher,
    keys::{JobKeys, ResourceKey, TenantKeys},
    memory_store::MemoryStore,
    seal::Sealer,
    snapshot_writer::WriterOptions,
    upload::Uploader,
};

/// How base64 is written down.
#[derive(Debug, Clone, Copy)]
struct Style {
    chars: usize,
    eol: &'static str,
    ends: bool,
}

const USUAL: Style = Style { chars: 76, eol: "\r\n", ends: true };

fn base64(bytes: &[u8], style: Style) -> Vec<u8> {
    let text = STANDARD.encode(bytes);
    let lines: Vec<&[u8]> = text.as_bytes().chunks(style.chars).collect();
    let mut out = lines.join(style.eol.as_bytes());
    if style.ends {
        out.extend_from_slice(style.eol.as_bytes());
    }
    out
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    let mut out = vec![0; len];
    hasher.finalize_xof().fill(&mut out);
    out
}

/// Headers, a text and one attachment.
fn message(attachment: &[u8], style: Style) -> Vec<u8> {
    let head = "From: a@b.c\r\nSubject: figures\r\nContent-Type: multipart/mixed; boundary=xyz\r\n\r\n--xyz\r\n\r\nHello\r\n\
        --xyz\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n";
    [head.as_bytes(), &base64(attachment, style), b"\r\n--xyz--\r\n"].concat()
}

/// The events, literals joined, with the message handed over in pieces.
fn split(bytes: &[u8], piece: usize) -> Vec<Event> {
    let mut splitter = Splitter::new();
    let mut all: Vec<Event> = Vec::new();
    let mut add = |events: Vec<Event>| {
        for event in events {
            match (all.last_mut(), event) {
                (Some(Event::Literal(before)), Event::Literal(more)) => before.extend(more),
                (_, event) => all.push(event),
            }
        }
    };
    bytes.chunks(piece).for_each(|piece| add(splitter.push(piece)));
    add(splitter.finish());
    all
}

fn rebuild(events: &[Event]) -> Vec<u8> {
    let mut rebuilder = Rebuilder::new();
    events.iter().flat_map(|event| rebuilder.take(event).into_owned()).collect()
}

/// The contents of the runs, deepest last, literals of a content joined.
fn n_runs(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::Open(_))).count()
}

fn depth(events: &[Event]) -> usize {
    let (mut depth, mut deepest) = (0, 0);
    for event in events {
        match event {
            Event::Open(_) => depth += 1,
            Event::Close(_) => depth -= 1,
            Event::Literal(_) => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

struct Fixed;

impl Random for Fixed {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.fill(7);
    }
}

struct Bench {
    store: Arc<MemoryStore>,
    uploader: Arc<Uploader>,
    fetcher: Fetcher,
}

impl Bench {
    /// Call it within a runtime.
    fn new() -> Self {
        let keys = JobKeys {
            tenant: TenantId([1; 16]),
            resource: ResourceId([2; 16]),
            tenant_keys: TenantKeys::generate(&Fixed),
            resource_key: ResourceKey::generate(&Fixed),
        };
        let (store, sealer) = (Arc::new(MemoryStore::new()), Arc::new(Sealer::new(&keys)));
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap());
        let fetcher = Fetcher::new(store.clone(), sealer.clone());
        let options = WriterOptions { zstd_level: 1, ..WriterOptions::default() };
        let uploader = Arc::new(Uploader::start(store.clone(), sealer, pool, options));
        Self { store, uploader, fetcher }
    }

    fn writer(&self) -> MimeWriter {
        MimeWriter::new(self.uploader.clone())
    }

    async fn draft(&self, bytes: &[u8], piece: usize) -> ContentDraft {
        let mut writer = self.writer();
        for piece in bytes.chunks(piece) {
            writer.push(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        writer.finish().await.unwrap().expect("a recipe makes its message")
    }

    /// Through the encoded blob, as a reader gets it.
    async fn part(&self, draft: ContentDraft) -> ContentPart {
        let (blob, _) = content_blob(&self.uploader, vec![draft]).await.unwrap();
        self.uploader.flush().await.unwrap();
        let part = blob::decode(&blob).unwrap().remove(0);
        ContentPart::of(&self.fetcher, part).await.unwrap()
    }

    async fn range(&self, part: &ContentPart, offset: u64, len: u64) -> Vec<u8> {
        let pieces: Vec<Bytes> = part.stream(&self.fetcher, offset, len).try_collect().await.unwrap();
        pieces.concat()
    }

    async fn round_trip(&self, bytes: &[u8], piece: usize) -> ContentPart {
        let part = self.part(self.draft(bytes, piece).await).await;
        assert_eq!(part.len, bytes.len() as u64);
        assert!(self.range(&part, 0, part.len).await == bytes, "{} bytes came back otherwise", bytes.len());
        part
    }
}

fn with_bench<F: Future<Output = T>, T>(work: impl FnOnce(Bench) -> F) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async { work(Bench::new()).await })
}

/// One stretch of a made-up message.
fn stretch() -> impl Strategy<Value = Vec<u8>> {
    let eol = prop_oneof![Just("\r\n"), Just("\n")];
    let style = (1..=260_usize, eol, any::<bool>()).prop_map(|(cells, eol, ends)| Style {
        chars: cells * 4,
        eol,
        ends,
    });
    let run = (0..40_000_usize, any::<u64>(), style)
        .prop_map(|(len, seed, style)| base64(&noise(seed, len), style));
    let nested = (9_000..30_000_usize, any::<u64>()).prop_map(|(len, seed)| {
        let inner = message(&noise(seed, len), USUAL);
        base64(&message(&inner, USUAL), Style { chars: 72, ..USUAL })
    });
    let odd = prop_oneof![
        Just(b"\r\n".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"--boundary\r\n".to_vec()),
        Just(b"QUJD\r\n".to_vec()),
        Just(b"QUI=\n".to_vec()),
        Just(b"QUJ=\n".to_vec()),
        Just(b"====\r\n".to_vec()),
        Just(b"AAAA BBBB\r\n".to_vec()),
        Just(vec![b'A'; 5_000]),
        prop::collection::vec(any::<u8>(), 0..400),
        "[A-Za-z0-9+/= \r\n-]{0,300}".prop_map(String::into_bytes),
    ];
    prop_oneof![3 => run, 1 => nested, 3 => odd]
}

/// Stretches one behind the other, some bytes changed, the end cut off.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (prop::collection::vec(stretch(), 0..6), changes, prop::option::of(any::<prop::sample::Index>()))
        .prop_map(|(stretches, changes, cut)| {
            let mut bytes = stretches.concat();
            for (at, byte) in changes {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len() + 1));
            }
            bytes
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn what_is_taken_apart_makes_the_same_bytes(bytes in hostile()) {
        prop_assert!(rebuild(&split(&bytes, usize::MAX)) == bytes);
    }

    #[test]
    fn arbitrary_bytes_make_the_same_bytes(bytes in prop::collection::vec(any::<u8>(), 0..20_000)) {
        prop_assert!(rebuild(&split(&bytes, 777)) == bytes);
    }

    #[test]
    fn how_the_bytes_come_changes_nothing(bytes in hostile(), piece in 1..5_000_usize) {
        prop_assert!(split(&bytes, piece) == split(&bytes, usize::MAX));
    }

    #[test]
    fn no_bytes_make_the_reader_of_recipes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let forged = [&[0, 1, 0, 3, 0][..], &bytes].concat();
        let _ = check_content_blob(&forged);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_stored_message_comes_back_whole_and_by_ranges(
        bytes in hostile(),
        piece in 1_000..200_000_usize,
        ranges in prop::collection::vec((any::<prop::sample::Index>(), 0..50_000_u64), 8),
    ) {
        with_bench(|bench| async move {
            let part = bench.round_trip(&bytes, piece).await;
            for (offset, len) in ranges {
                let offset = offset.index(bytes.len() + 1);
                let end = (offset + usize::try_from(len).unwrap()).min(bytes.len());
                let range = bench.range(&part, offset as u64, len).await;
                prop_assert!(range == bytes[offset..end], "{offset}..{end} of {}", bytes.len());
            }
            Ok(())
        })?;
    }
}

#[test]
fn a_run_decodes_to_the_file_it_was_whatever_its_lines_are() {
    for (chars, eol) in [(76, "\r\n"), (76, "\n"), (60, "\n"), (64, "\r\n"), (4, "\n"), (1_020, "\r\n")] {
        for len in [MIN_RUN_BYTES, MIN_RUN_BYTES + 1, MIN_RUN_BYTES + 2, 57 * 400, 57 * 400 + 45] {
            let (file, style) = (noise(len as u64, len), Style { chars, eol, ends: true });
            let events = split(&message(&file, style), 1_000);
            assert_eq!(n_runs(&events), 1, "{len} bytes in lines of {chars}");
            let within =
                &events[events.iter().position(|event| matches!(event, Event::Open(_))).unwrap() + 1];
            assert!(*within == Event::Literal(file), "{len} bytes in lines of {chars}");
        }
    }
}

#[test]
fn what_is_no_run_stays_literal() {
    let file = noise(1, 20_000);
    let usual = base64(&file, USUAL);
    let too_small = message(&noise(1, MIN_RUN_BYTES - 1), USUAL);
    let odd_lines = message(&file, Style { chars: 75, ..USUAL });
    let one_line = message(&file, Style { chars: 1 << 20, ..USUAL });
    let too_long = message(&file, Style { chars: 1_024, ..USUAL });
    let spaces = String::from_utf8(usual).unwrap().replace("\r\n", " \r\n").into_bytes();
    for message in [too_small, odd_lines, one_line, too_long, spaces] {
        assert_eq!(split(&message, 999), [Event::Literal(message)]);
    }
}

#[test]
fn padding_that_is_not_canonical_is_kept_as_it_is() {
    let mut bytes = base64(&noise(1, 57 * 300 + 1), USUAL);
    let padding = bytes.iter().position(|byte| *byte == b'=').unwrap();
    // Two digits for one byte: the last four bits are zero where it is canonical.
    bytes[padding - 1] = if bytes[padding - 1] == b'B' { b'C' } else { b'B' };
    let events = split(&bytes, usize::MAX);
    assert_eq!(n_runs(&events), 1, "the lines before are a run");
    assert!(rebuild(&events) == bytes);
}

#[test]
fn attached_messages_are_taken_apart_to_a_limit() {
    let mut bytes = message(&noise(1, 30_000), USUAL);
    for n in 1..8 {
        assert_eq!(depth(&split(&bytes, 4_096)), n.min(MAX_DEPTH), "{n} messages in each other");
        assert!(rebuild(&split(&bytes, 4_096)) == bytes);
        bytes = message(&bytes, USUAL);
    }
}

#[test]
fn more_runs_than_the_limit_stay_literal() {
    let run = base64(&noise(1, MIN_RUN_BYTES + 5), USUAL);
    let bytes = [&run[..], b"--x\r\n"].concat().repeat(MAX_RUNS + 10);
    let events = split(&bytes, 1 << 20);
    assert_eq!(n_runs(&events), MAX_RUNS);
    assert!(rebuild(&events) == bytes);
}

#[test]
fn a_message_of_the_most_runs_is_stored_and_comes_back() {
    with_bench(|bench| async move {
        let mut bytes = Vec::new();
        for n in 0..MAX_RUNS as u64 + 5 {
            bytes.extend(base64(&noise(n, MIN_RUN_BYTES + 5), USUAL));
            bytes.extend_from_slice(b"--x\r\n");
        }
        let part = bench.round_trip(&bytes, 60_000).await;
        assert!(part.is_recipe());
        let at = bytes.len() / 2;
        assert!(bench.range(&part, at as u64, 20_000).await == bytes[at..at + 20_000]);
    });
}

#[test]
fn an_attachment_is_stored_as_the_file_it_is_at_any_depth() {
    with_bench(|bench| async move {
        for len in [MIN_RUN_BYTES, 100_000, 6 << 20] {
            let file = noise(len as u64, len);
            let mut writer = crate::content_writer::ContentWriter::of_file(bench.uploader.clone());
            writer.push(file.clone().into()).await.unwrap();
            bench.part(writer.finish().await.unwrap()).await;
            let before = bench.store.n_records();

            let alone = message(&file, USUAL);
            let attached = message(&alone, Style { chars: 60, eol: "\n", ends: true });
            for bytes in [&alone, &attached] {
                assert!(bench.round_trip(bytes, 16_384).await.is_recipe());
            }
            assert_eq!(bench.store.n_records(), before, "nothing of {len} bytes is stored again");
        }
    });
}

#[test]
fn large_literals_around_runs_are_cut_and_come_back() {
    with_bench(|bench| async move {
        let text: Vec<u8> =
            noise(1, 3 << 20).iter().flat_map(|byte| format!("word{byte} ").into_bytes()).collect();
        let inner = [&text[..], b"\r\n", &message(&noise(2, 40_000), USUAL)].concat();
        let bytes = [&text[..5 << 20], b"\r\n", &base64(&inner, USUAL), &text[..2 << 20]].concat();
        assert_eq!(depth(&split(&bytes, usize::MAX)), 2);
        let part = bench.round_trip(&bytes, 300_000).await;
        for (offset, len) in [(0, 5 << 20), ((5 << 20) - 3, 900), (9 << 20, 4 << 20)] {
            let range = bench.range(&part, offset, len).await;
            let (offset, len) = (usize::try_from(offset).unwrap(), usize::try_from(len).unwrap());
            assert!(range == bytes[offset..(offset + len).min(bytes.len())]);
        }
    });
}

#[test]
fn a_recipe_that_makes_another_message_is_not_trusted() {
    with_bench(|bench| async move {
        let bytes = Bytes::from(message(&noise(1, 50_000), USUAL));
        let mut writer = bench.writer();
        writer.push(bytes.clone()).await.unwrap();
        writer.spoil();
        assert!(writer.finish().await.unwrap().is_none());
    });
}

#[test]
fn a_stored_recipe_that_makes_another_message_is_an_error_at_its_end() {
    with_bench(|bench| async move {
        let draft = bench.draft(&message(&noise(1, 50_000), USUAL), 4_096).await;
        let (blob, _) = content_blob(&bench.uploader, vec![draft]).await.unwrap();
        bench.uploader.flush().await.unwrap();
        // version, number of parts, kind, version, length: then the hash.
        let mut forged = blob.to_vec();
        forged[1 + 2 + 1 + 1 + 8] ^= 1;
        let part = blob::decode(&forged.into()).unwrap().remove(0);
        let part = ContentPart::of(&bench.fetcher, part).await.unwrap();
        let whole: Result<Vec<Bytes>, Error> = part.stream(&bench.fetcher, 0, part.len).try_collect().await;
        assert!(matches!(whole, Err(Error::Malformed { what: "mime recipe", .. })), "{whole:?}");
    });
}

#[test]
fn recipes_that_do_not_add_up_or_are_of_another_version_are_refused() {
    with_bench(|bench| async move {
        let draft = bench.draft(&message(&noise(1, 50_000), USUAL), 4_096).await;
        let (blob, refs) = content_blob(&bench.uploader, vec![draft]).await.unwrap();
        assert_eq!(refs.len(), 1, "the attachment");
        let changed = |at: usize, byte: u8| {
            let mut changed = blob.to_vec();
            changed[at] = byte;
            blob::decode(&changed.into())
        };
        assert!(matches!(changed(4, 9), Err(Error::UnknownVersion { what: "mime recipe", found: 9, .. })));
        assert!(matches!(changed(5, blob[5] ^ 1), Err(Error::Malformed { .. })));
        for cut in 0..blob.len() {
            assert!(blob::decode(&blob.slice(..cut)).is_err(), "cut off at {cut}");
        }
        let mut more = blob.to_vec();
        more.push(0);
        assert!(blob::decode(&more.into()).is_err());
        for at in 5..blob.len() {
            let _ = changed(at, !blob[at]);
        }
    });
}

#[test]
fn an_empty_message_and_one_without_runs_have_no_recipe() {
    with_bench(|bench| async move {
        for bytes in [&b""[..], b"Subject: x\r\n\r\nHello", &noise(5, 3 << 20)] {
            assert!(!bench.round_trip(bytes, 70_000).await.is_recipe());
        }
    });
}
