//! Messages that are taken apart, those that must not be, and content blobs that no reader may accept.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::TryStreamExt as _;
use holdfast_record::RecordKind;
use serde_json::{Value, json};

use super::{Named, bytes_of, keys, stored, with_runtime};
use crate::{
    blob::{self, Leaf, Part},
    content_blob::content_blob,
    content_reader::ContentPart,
    error::Error,
    fetch::Fetcher,
    memory_store::MemoryStore,
    recipe::MimeWriter,
    seal::{SealOptions, Sealer},
    secret::ContentHash,
    snapshot_writer::WriterOptions,
    upload::Uploader,
};

/// What a run decodes to: long enough, and small when compressed.
fn file(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from(n / 97 % 251).unwrap()).collect()
}

/// Lines of so many characters.
fn lines(bytes: &[u8], chars: usize, eol: &str) -> Vec<u8> {
    let text = STANDARD.encode(bytes);
    text.as_bytes().chunks(chars).flat_map(|line| [line, eol.as_bytes()].concat()).collect()
}

/// The same without the last line break.
fn open_lines(bytes: &[u8], chars: usize, eol: &str) -> Vec<u8> {
    let mut out = lines(bytes, chars, eol);
    out.truncate(out.len() - eol.len());
    out
}

fn mail(body: &[u8]) -> Vec<u8> {
    [b"Subject: figures\r\nMIME-Version: 1.0\r\n\r\n--b\r\n\r\n", body, b"--b--\r\n"].concat()
}

fn nested(depth: usize) -> Vec<u8> {
    (1..depth).fold(mail(&lines(&file(9_000), 76, "\r\n")), |inner, _| mail(&lines(&inner, 76, "\r\n")))
}

/// Changes one byte of a message.
fn with_byte(mut message: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    message[at] = byte;
    message
}

/// Name, message, and how many runs are taken out of it.
fn messages() -> Vec<(String, Vec<u8>, usize)> {
    let usual = || mail(&lines(&file(12_000), 76, "\r\n"));
    let mut all: Vec<(String, Vec<u8>, usize)> = Vec::new();
    for chars in [4, 60, 64, 72, 76, 80, 1_020] {
        all.push((format!("lines of {chars}"), mail(&lines(&file(12_000), chars, "\r\n")), 1));
    }
    for (rest, len) in [("no padding", 12_000), ("one pad", 12_001), ("two pads", 12_002)] {
        all.push((rest.to_owned(), mail(&lines(&file(len), 76, "\r\n")), 1));
    }
    for depth in 1..=4 {
        all.push((format!("nested to depth {depth}"), nested(depth), depth));
    }
    let two = [lines(&file(9_000), 76, "\r\n"), b"--b\r\n".to_vec(), lines(&file(10_001), 64, "\n")].concat();
    let noise = Named::bytes("hostile", 12_000);
    let mut add = |name: &str, message: Vec<u8>, runs: usize| all.push((name.to_owned(), message, runs));
    add("unix line breaks", mail(&lines(&file(12_000), 76, "\n")), 1);
    add("two runs of different forms", mail(&two), 2);
    add("nothing but a run", lines(&file(12_000), 76, "\r\n"), 1);
    add("a run that ends without a line break", open_lines(&file(12_000), 76, "\r\n"), 1);
    add("the shortest run", mail(&lines(&file(8_192), 76, "\r\n")), 1);
    add("a full last line", mail(&lines(&file(57 * 200), 76, "\r\n")), 1);
    add("deeper than is taken apart", nested(5), 4);
    add("empty", Vec::new(), 0);
    add("no base64", mail(b"hello\r\n"), 0);
    add("bytes of any value", noise.clone(), 0);
    add("a run that is too short", mail(&lines(&file(8_191), 76, "\r\n")), 0);
    add("lines that are too long", mail(&lines(&file(12_000), 1_024, "\r\n")), 0);
    add("lines of no whole groups", mail(&lines(&file(12_000), 77, "\r\n")), 0);
    add("blanks at the ends of lines", mail(&lines(&file(12_000), 76, " \r\n")), 0);
    add("line breaks of CR alone", mail(&lines(&file(12_000), 76, "\r")), 0);
    add("an alphabet for addresses", with_byte(usual(), 8_000, b'-'), 0);
    add("padding in the middle", with_byte(usual(), 8_000, b'='), 0);
    add("bits that padding does not use", unused_bits(), 1);
    add("a NUL in a line", with_byte(usual(), 8_000, 0), 0);
    all
}

/// The last group of the run decodes to one byte; its second character has bits that are not zero.
fn unused_bits() -> Vec<u8> {
    let mut body = lines(&file(12_001), 76, "\r\n");
    let at = body.iter().position(|byte| *byte == b'=').unwrap() - 1;
    body[at] += 1;
    mail(&body)
}

struct Bench {
    uploader: Arc<Uploader>,
    fetcher: Fetcher,
    store: Arc<MemoryStore>,
}

impl Bench {
    /// Call it within a runtime.
    fn new() -> Self {
        let (store, sealer) = (Arc::new(MemoryStore::new()), Arc::new(Sealer::new(&keys())));
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap());
        let fetcher = Fetcher::new(store.clone(), sealer.clone());
        let uploader = Arc::new(Uploader::start(store.clone(), sealer, pool, WriterOptions::default()));
        Self { uploader, fetcher, store }
    }

    /// The content blob of a message, and the plaintexts it names.
    async fn write(&self, message: &[u8]) -> (Bytes, BTreeMap<String, Bytes>) {
        let mut writer = MimeWriter::new(self.uploader.clone());
        writer.push(Bytes::copy_from_slice(message)).await.unwrap();
        let draft = writer.finish().await.unwrap().unwrap();
        let (blob, _) = content_blob(&self.uploader, vec![draft]).await.unwrap();
        self.uploader.flush().await.unwrap();
        let mut named = BTreeMap::new();
        for part in blob::decode(&blob).unwrap() {
            for h in hashes_of(&part) {
                named.insert(hex::encode(h.0), self.fetcher.fetch_one(h).await.unwrap());
            }
        }
        (blob, named)
    }

    /// Every part of a content blob, given the plaintexts that it names.
    async fn read(&self, blob: &[u8], plaintexts: &[Bytes]) -> Result<Vec<Bytes>, Error> {
        use crate::chunk_store::ChunkStore as _;
        let sealer = &self.fetcher.sealer;
        for plain in plaintexts {
            let h = sealer.hash(RecordKind::Data, plain);
            let record = sealer.seal(RecordKind::Data, h, plain, Vec::new(), SealOptions::default())?;
            self.store.put(vec![record]).await?;
        }
        let mut parts = Vec::new();
        for part in blob::decode(&Bytes::copy_from_slice(blob))? {
            let part = ContentPart::of(&self.fetcher, part).await?;
            let pieces: Vec<Bytes> = part.stream(&self.fetcher, 0, part.len).try_collect().await?;
            parts.push(Bytes::from(pieces.concat()));
        }
        Ok(parts)
    }
}

fn hashes_of(part: &Part) -> Vec<ContentHash> {
    let mut leaves = Vec::new();
    match part {
        Part::Leaf(leaf) => leaves.push(leaf),
        Part::Recipe(recipe) => recipe.layer.leaves(&mut leaves),
    }
    let pieces = leaves.into_iter().flat_map(|leaf| match leaf {
        Leaf::Inline(_) => Vec::new(),
        Leaf::Chunks(_, pieces) | Leaf::Pages(_, pieces) => pieces.clone(),
    });
    pieces.map(|(h, _)| h).collect()
}

fn n_runs(blob: &Bytes) -> usize {
    let mut leaves = Vec::new();
    for part in blob::decode(blob).unwrap() {
        if let Part::Recipe(recipe) = part {
            count_runs(&recipe.layer, &mut leaves);
        }
    }
    leaves.len()
}

fn count_runs(layer: &crate::recipe::Layer<Leaf>, found: &mut Vec<()>) {
    for run in &layer.runs {
        found.push(());
        if let crate::recipe::Content::Layer(layer) = &run.content {
            count_runs(layer, found);
        }
    }
}

fn packed(plaintexts: &BTreeMap<String, Bytes>) -> Value {
    let pack = |plain: &Bytes| STANDARD.encode(zstd::bulk::compress(plain, 19).unwrap());
    plaintexts
        .iter()
        .map(|(h, plain)| (h.clone(), json!(pack(plain))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn unpacked(records: &Value) -> Vec<Bytes> {
    let unpack = |text: &Value| {
        let packed = STANDARD.decode(text.as_str().unwrap()).unwrap();
        Bytes::from(zstd::bulk::decompress(&packed, 16 << 20).unwrap())
    };
    records.as_object().unwrap().values().map(unpack).collect()
}

pub(super) async fn vector() -> Value {
    let mut samples = Vec::new();
    for (name, message, runs) in messages() {
        let (blob, named) = Bench::new().write(&message).await;
        samples.push(json!({
            "name": name, "runs": runs, "length": message.len(), "blake3": blake3::hash(&message).to_hex().as_str(),
            "blob": hex::encode(&blob), "records": packed(&named),
        }));
    }
    let refused = hostile().into_iter();
    let refused =
        refused.map(|(name, blob)| json!({ "name": name, "blob": hex::encode(blob), "records": {} }));
    let mut refused: Vec<Value> = refused.collect();
    let record = Bytes::from(file(9_000));
    let h = Bench::new().fetcher.sealer.hash(RecordKind::Data, &record);
    for (name, total, listed) in [
        ("a chunk shorter than its list says", 9_001_u64, 9_001_u32),
        ("chunks that do not add up", 9_001, 9_000),
    ] {
        let blob =
            [&[1, 1, 0, 1][..], &total.to_le_bytes(), &1_u32.to_le_bytes(), &h.0, &listed.to_le_bytes()]
                .concat();
        let named = [(hex::encode(h.0), record.clone())].into();
        refused.push(json!({ "name": name, "blob": hex::encode(blob), "records": packed(&named) }));
    }
    json!({ "keys": "keys.json", "messages": samples, "refused": refused })
}

/// A recipe of one run of three bytes between literals, with what is wrong put in.
struct Crafted {
    version: u8,
    recipe_version: u8,
    literals: Vec<u8>,
    n_runs: u16,
    before: u64,
    cells: u8,
    form: u8,
    content: Vec<u8>,
    message: Vec<u8>,
    len_off_by: u64,
    behind: Vec<u8>,
}

impl Default for Crafted {
    /// Nothing wrong.
    fn default() -> Self {
        Self {
            version: 1,
            recipe_version: 1,
            literals: b"ab".to_vec(),
            n_runs: 1,
            before: 1,
            cells: 1,
            form: 2,
            content: inline(b"xyz"),
            message: b"aeHl6\nb".to_vec(),
            len_off_by: 0,
            behind: Vec::new(),
        }
    }
}

fn inline(bytes: &[u8]) -> Vec<u8> {
    [&[0][..], &u32::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat()
}

impl Crafted {
    fn blob(&self) -> Vec<u8> {
        let len = self.message.len() as u64 + self.len_off_by;
        let run = [&self.before.to_le_bytes()[..], &[self.cells, self.form], &self.content].concat();
        [
            &[self.version, 1, 0, 3, self.recipe_version][..],
            &len.to_le_bytes(),
            blake3::hash(&self.message).as_bytes(),
            &inline(&self.literals),
            &self.n_runs.to_le_bytes(),
            &run.repeat(self.n_runs.into()),
            &self.behind,
        ]
        .concat()
    }
}

/// A layer around a content: for runs within runs.
fn layer(content: &[u8]) -> Vec<u8> {
    [&[3][..], &inline(b""), &1_u16.to_le_bytes(), &0_u64.to_le_bytes(), &[1, 2], content].concat()
}

/// Blobs that must be refused.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let crafted = |change: fn(&mut Crafted)| {
        let mut crafted = Crafted::default();
        change(&mut crafted);
        crafted.blob()
    };
    let good = Crafted::default().blob();
    let many_parts = [&[1][..], &1_001_u16.to_le_bytes(), &inline(b"").repeat(1_001)].concat();
    let list = |n: u32, len: u32| {
        let piece = [&[7; 32][..], &len.to_le_bytes()].concat();
        [&[1, 1, 0, 1][..], &u64::from(len).to_le_bytes(), &n.to_le_bytes(), &piece].concat()
    };
    let mut all = vec![
        ("format 0", crafted(|it| it.version = 0)),
        ("a newer format", crafted(|it| it.version = 2)),
        ("a recipe of format 0", crafted(|it| it.recipe_version = 0)),
        ("a recipe of a newer format", crafted(|it| it.recipe_version = 2)),
        ("no runs", crafted(|it| it.n_runs = 0)),
        (
            "more runs than are allowed",
            crafted(|it| {
                it.n_runs = 1_001;
                it.before = 0;
                it.message = [&b"eHl6\n".repeat(1_001)[..], b"ab"].concat();
            }),
        ),
        ("lines without characters", crafted(|it| it.cells = 0)),
        ("an unknown form", crafted(|it| it.form = 6)),
        ("an empty run", crafted(|it| it.content = inline(b""))),
        ("more literals than there are", crafted(|it| it.before = 3)),
        ("literals without end", crafted(|it| it.before = u64::MAX)),
        ("another length", crafted(|it| it.len_off_by = 1)),
        ("another message of that length", crafted(|it| it.message[0] ^= 1)),
        ("bytes behind its end", crafted(|it| it.behind = vec![0])),
        ("an unknown kind of content", crafted(|it| it.content[0] = 4)),
        ("a length that reaches behind the end", crafted(|it| it.content[1] = 200)),
        (
            "runs within runs, too deep",
            crafted(|it| {
                it.content = (0..4).fold(inline(b"xyz"), |content, _| layer(&content));
            }),
        ),
        ("too many parts", many_parts),
        ("an unknown kind of part", [&[1, 1, 0, 9][..], &[0; 8]].concat()),
        ("more chunks than bytes", list(u32::MAX, 5)),
        ("a chunk that is nowhere", list(1, 5)),
        ("an empty chunk", list(1, 0)),
        ("nothing", Vec::new()),
    ];
    for at in [1, 4, 20, 50, good.len() - 1] {
        all.push(("cut off", good[..at].to_vec()));
    }
    all
}

#[test]
fn messages_of_the_vectors_come_back_bit_by_bit() {
    let vector = stored("recipe.json");
    let (samples, messages) = (vector["messages"].as_array().unwrap(), messages());
    assert_eq!(samples.len(), messages.len());
    for (sample, (name, message, runs)) in samples.iter().zip(messages) {
        assert_eq!((&sample["name"], &sample["runs"]), (&json!(name), &json!(runs)));
        with_runtime(async {
            let (blob, named) = Bench::new().write(&message).await;
            assert_eq!(n_runs(&blob), runs, "{name}");
            assert_eq!(hex::encode(&blob), sample["blob"].as_str().unwrap(), "{name}");
            assert_eq!(named.values().cloned().collect::<Vec<_>>(), unpacked(&sample["records"]), "{name}");
            let parts = Bench::new().read(&blob, &unpacked(&sample["records"])).await.unwrap();
            assert!(parts == [message], "{name}");
        });
    }
}

#[test]
fn hostile_blobs_of_the_vectors_are_refused() {
    let vector = stored("recipe.json");
    let refused = vector["refused"].as_array().unwrap();
    assert!(vector["messages"].as_array().unwrap().len() + refused.len() >= 60);
    for case in refused {
        let read = with_runtime(async {
            Bench::new().read(&bytes_of(&case["blob"]), &unpacked(&case["records"])).await
        });
        assert!(read.is_err(), "{}", case["name"]);
    }
    let good = with_runtime(async { Bench::new().read(&Crafted::default().blob(), &[]).await }).unwrap();
    assert_eq!(good, [Bytes::from_static(b"aeHl6\nb")]);
    let deep = Crafted {
        content: (0..3).fold(inline(b"xyz"), |content, _| layer(&content)),
        message: {
            let text = |bytes: &[u8]| [&STANDARD.encode(bytes).into_bytes()[..], b"\n"].concat();
            let lines = |bytes: &[u8]| bytes.chunks(3).flat_map(text).collect::<Vec<u8>>();
            [b"a", &(0..4).fold(b"xyz".to_vec(), |bytes, _| lines(&bytes))[..], b"b"].concat()
        },
        ..Crafted::default()
    };
    let read = with_runtime(async { Bench::new().read(&deep.blob(), &[]).await }).unwrap();
    assert!(read == [deep.message], "as deep as is allowed");
}
