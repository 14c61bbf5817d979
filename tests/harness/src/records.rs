//! Records that are a function of a seed and a number: what was written need not be remembered to compare what comes back.

use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_model::{ChunkId, Random, TenantId};
use holdfast_record::{Chunker, Codec, Placement, RecordKind, SealedHeader, SealedRecord, hash_refs};

const KIB: usize = 1 << 10;
/// Sizes double so often from the smallest on.
const DOUBLINGS: u64 = 8;

/// The records of one writer.
#[derive(Debug, Clone, Copy)]
pub struct Records {
    pub tenant: TenantId,
    pub seed: u64,
    pub sizes: Sizes,
}

/// How large they are.
#[derive(Debug, Clone, Copy)]
pub enum Sizes {
    /// All the same.
    Fixed(usize),
    /// From 4 KiB to 1 MiB, small ones more often: 110 KiB on average.
    Mixed,
}

impl Records {
    /// Which id the record of a number has.
    pub fn id(&self, number: u64) -> ChunkId {
        ChunkId(*self.hasher("id", number).finalize().as_bytes())
    }

    /// The record of a number. Nothing below a client with a key looks into its ciphertext.
    pub fn record(&self, number: u64) -> SealedRecord {
        let mut ciphertext = vec![0; self.size(number)];
        self.hasher("content", number).finalize_xof().fill(&mut ciphertext);
        let mut nonce = [0; 12];
        self.hasher("nonce", number).finalize_xof().fill(&mut nonce);
        let header = SealedHeader {
            kind: RecordKind::Data,
            codec: Codec::None,
            chunker: Chunker::Fcdc1,
            key_epoch: 1,
            tenant: self.tenant,
            id: self.id(number),
            pt_len: u32::try_from(ciphertext.len()).expect("records are small"),
            refs_hash: hash_refs(&[]),
        };
        SealedRecord {
            header,
            nonce,
            ct: *blake3::hash(&ciphertext).as_bytes(),
            refs: Vec::new(),
            placement: Placement::default(),
            ciphertext: ciphertext.into(),
        }
    }

    /// Whether this is the record of that number, in all that no node may change.
    pub fn is(&self, number: u64, found: &SealedRecord) -> bool {
        let own = self.record(number);
        let sealed =
            |record: &SealedRecord| (record.header.clone(), record.nonce, record.ct, record.refs.clone());
        sealed(&own) == sealed(found) && own.ciphertext == found.ciphertext
    }

    fn size(&self, number: u64) -> usize {
        match self.sizes {
            Sizes::Fixed(bytes) => bytes,
            Sizes::Mixed => {
                let mut drawn = [0; 24];
                self.hasher("size", number).finalize_xof().fill(&mut drawn);
                let word = |at: usize| u64::from_le_bytes(drawn[at..at + 8].try_into().expect("8 bytes"));
                let doublings = (word(0) % (DOUBLINGS + 1)).min(word(8) % (DOUBLINGS + 1));
                let least = (4 * KIB) << doublings;
                let more = usize::try_from(word(16) % least as u64).expect("below 1 MiB");
                (least + more).min(KIB * KIB)
            }
        }
    }

    fn hasher(&self, what: &str, number: u64) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new();
        hasher.update(what.as_bytes()).update(&self.tenant.0);
        hasher.update(&self.seed.to_le_bytes()).update(&number.to_le_bytes());
        hasher
    }
}

/// Randomness that a printed seed gives back.
#[derive(Debug)]
pub struct Seeded {
    seed: u64,
    drawn: AtomicU64,
}

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self { seed, drawn: AtomicU64::new(0) }
    }

    /// A number below a limit.
    pub fn below(&self, limit: u64) -> u64 {
        self.next_u64() % limit.max(1)
    }
}

impl Random for Seeded {
    fn fill(&self, buffer: &mut [u8]) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(&self.drawn.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        hasher.finalize_xof().fill(buffer);
    }
}
