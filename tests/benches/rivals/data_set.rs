//! What is backed up: a folder shaped like mail and files, the same for every run of the bench.
//!
//! A quarter of the bytes are small texts of 2 to 60 KB, the rest attachments of 100 KB to 20 MB, two thirds of which do not
//! compress. 15 % of the files are copies of earlier files under another name. A change touches one file in a hundred: it
//! overwrites 4 KiB in the middle and appends a line.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

const SMALL_PERCENT: u64 = 25;
const SMALL_BYTES: (f64, f64) = (2e3, 60e3);
const ATTACHMENT_BYTES: (f64, f64) = (100e3, 20e6);
const COPY_PERCENT: u64 = 15;
const INCOMPRESSIBLE_PERCENT: u64 = 67;
const FILES_PER_FOLDER: usize = 100;
const CHANGE_ONE_IN: u64 = 100;
const OVERWRITTEN_BYTES: u64 = 4 << 10;
const VOCABULARY: u64 = 4_096;
const SYLLABLES: [&str; 32] = [
    "ba", "con", "der", "en", "fi", "ger", "ho", "in", "ju", "kal", "lo", "men", "nu", "or", "per", "qua",
    "re", "sta", "ti", "un", "ver", "wi", "xa", "yo", "zen", "al", "be", "ci", "du", "es", "for", "gra",
];

/// A generated folder.
pub struct DataSet {
    pub folder: PathBuf,
    pub files: Vec<PathBuf>,
    pub bytes: u64,
}

impl DataSet {
    /// Writes about this many bytes.
    pub fn generate(folder: &Path, bytes: u64) -> Self {
        let mut made = Self { folder: folder.to_owned(), files: Vec::new(), bytes: 0 };
        let small = bytes / 100 * SMALL_PERCENT;
        let mut dice = Dice::new("rivals");
        let words: Vec<String> = (0..VOCABULARY).map(|_| dice.word()).collect();
        made.fill("mail", small, SMALL_BYTES, |dice, len| text(dice, &words, len), &mut dice);
        let attachment = |dice: &mut Dice, len: usize| {
            if dice.percent(INCOMPRESSIBLE_PERCENT) { dice.bytes(len) } else { text(dice, &words, len) }
        };
        made.fill("attachments", bytes - small, ATTACHMENT_BYTES, attachment, &mut dice);
        made
    }

    fn fill(
        &mut self,
        name: &str,
        total: u64,
        (least, most): (f64, f64),
        content: impl Fn(&mut Dice, usize) -> Vec<u8>,
        dice: &mut Dice,
    ) {
        let mut paths: Vec<PathBuf> = Vec::new();
        let mut written = 0;
        while written < total {
            let parent = self.folder.join(name).join(format!("{:03}", paths.len() / FILES_PER_FOLDER));
            fs::create_dir_all(&parent).expect("make a folder");
            let path = parent.join(format!("{:05}.dat", paths.len()));
            if !paths.is_empty() && dice.percent(COPY_PERCENT) {
                let original = &paths[dice.below(paths.len() as u64) as usize];
                written += fs::copy(original, &path).expect("copy a file");
            } else {
                let len = (least * (most / least).powf(dice.share())) as usize;
                let bytes = content(dice, len);
                fs::File::create(&path).and_then(|mut file| file.write_all(&bytes)).expect("write a file");
                written += bytes.len() as u64;
            }
            paths.push(path);
        }
        self.files.extend(paths);
        self.bytes += written;
    }

    /// Changes some of the files, others in each round.
    pub fn change(&self, round: usize) {
        let mut dice = Dice::new(&format!("change {round}"));
        for path in &self.files {
            if dice.below(CHANGE_ONE_IN) > 0 {
                continue;
            }
            let file = fs::OpenOptions::new().write(true).open(path).expect("open a file");
            let len = file.metadata().expect("a size").len();
            let over = dice.bytes(OVERWRITTEN_BYTES.min(len / 2) as usize);
            file.write_all_at(&over, len / 2 - over.len() as u64 / 2).expect("overwrite");
            file.write_all_at(b"changed later on\n", len).expect("append");
        }
    }
}

fn text(dice: &mut Dice, words: &[String], len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 32);
    while out.len() < len {
        // Squared: the first words are the frequent ones.
        let at = dice.share().powi(2) * words.len() as f64;
        out.extend_from_slice(words[at as usize].as_bytes());
        out.push(if dice.percent(8) { b'\n' } else { b' ' });
    }
    out.truncate(len);
    out
}

/// The same numbers each time.
struct Dice {
    stream: blake3::OutputReader,
    buffer: Vec<u8>,
    at: usize,
}

impl Dice {
    fn new(seed: &str) -> Self {
        let stream = blake3::Hasher::new().update(seed.as_bytes()).finalize_xof();
        Self { stream, buffer: vec![0; 64 << 10], at: 64 << 10 }
    }

    fn next(&mut self) -> u64 {
        if self.at + 8 > self.buffer.len() {
            self.stream.fill(&mut self.buffer);
            self.at = 0;
        }
        let bytes = self.buffer[self.at..self.at + 8].try_into().expect("eight bytes");
        self.at += 8;
        u64::from_le_bytes(bytes)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// From 0 to just below 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        self.stream.fill(&mut out);
        out
    }

    fn word(&mut self) -> String {
        let n = 1 + self.below(4);
        (0..n).map(|_| SYLLABLES[self.below(SYLLABLES.len() as u64) as usize]).collect()
    }
}
