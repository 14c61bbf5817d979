//! What the tests share: seeded randomness, keys, a pool.
#![allow(dead_code)]

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use holdfast_model::{Random, ResourceId, TenantId};
use holdfast_repository::{JobKeys, ResourceKey, TenantKeys};

/// The same bytes for the same seed.
pub struct Seeded(AtomicU64, Mutex<()>);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed), Mutex::new(()))
    }
}

impl Random for Seeded {
    fn fill(&self, buffer: &mut [u8]) {
        let _whole = self.1.lock().unwrap();
        for chunk in buffer.chunks_mut(8) {
            let mut x = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
            x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            chunk.copy_from_slice(&(x ^ (x >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Seeded::new(seed).fill(&mut bytes);
    bytes
}

/// Text that compresses.
pub fn prose(seed: u64, len: usize) -> Vec<u8> {
    let words = ["meeting ", "budget ", "please ", "attached ", "regards ", "tomorrow ", "figures ", "\r\n"];
    noise(seed, len).iter().flat_map(|byte| words[usize::from(byte % 8)].bytes()).take(len).collect()
}

pub fn job_keys(seed: u64) -> JobKeys {
    let random = Seeded::new(seed);
    JobKeys {
        tenant: TenantId([1; 16]),
        resource: ResourceId([2; 16]),
        tenant_keys: TenantKeys::generate(&random),
        resource_key: ResourceKey::generate(&random),
    }
}

pub fn pool() -> Arc<rayon::ThreadPool> {
    Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap())
}

/// A message with one attachment, its base64 as mail has it.
pub fn mime(attachment: &[u8]) -> Vec<u8> {
    let mut out =
        b"From: a@b.c\r\nSubject: figures\r\nContent-Type: multipart/mixed; boundary=xyz\r\n\r\n--xyz\r\n\
        Content-Transfer-Encoding: base64\r\n\r\n"
            .to_vec();
    for line in attachment.chunks(57) {
        out.extend_from_slice(STANDARD.encode(line).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"--xyz--\r\n");
    out
}
