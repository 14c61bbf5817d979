//! The keys of a tenant, of a resource, and what a job gets of them.
//!
//! Invariant: a job holds the key of its own resource only; with it alone nothing of another resource opens.

use std::{collections::BTreeMap, fmt};

use holdfast_model::{Random, ResourceId, TenantId};
use zeroize::Zeroizing;

use crate::{
    aead::{self, NONCE_BYTES},
    key_file::KeyError,
    secret::Key,
};

/// Encryption keys in one set: one every 90 days.
pub const MAX_KEY_EPOCHS: usize = 1_024;

const VERSION: u8 = 1;

/// What a tenant's chunks are named, encrypted and cut with.
#[derive(Clone, PartialEq, Eq)]
pub struct TenantKeys {
    /// Names content (K_hash).
    pub hash: Key,
    /// Turns a content hash into what storage sees (K_id).
    pub id: Key,
    /// Derives nonces (K_nonce).
    pub nonce: Key,
    /// Decides where trees and files are cut.
    pub boundary: Key,
    /// Encrypts content (K_enc), by key epoch; the last is the current one.
    pub enc: BTreeMap<u32, Key>,
}

impl TenantKeys {
    /// Makes the keys of a new tenant, with key epoch 1.
    pub fn generate(random: &dyn Random) -> Self {
        let key = || Key::generate(random);
        Self { hash: key(), id: key(), nonce: key(), boundary: key(), enc: [(1, key())].into() }
    }

    /// The bytes a key provider wraps.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(1 + 4 * 32 + 2 + self.enc.len() * 36));
        out.push(VERSION);
        for key in [&self.hash, &self.id, &self.nonce, &self.boundary] {
            out.extend_from_slice(&key.0);
        }
        let count = u16::try_from(self.enc.len()).expect("at most MAX_KEY_EPOCHS keys");
        out.extend_from_slice(&count.to_le_bytes());
        for (epoch, key) in &self.enc {
            out.extend_from_slice(&epoch.to_le_bytes());
            out.extend_from_slice(&key.0);
        }
        out
    }

    /// Reads them back.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let damaged = || KeyError::DamagedBlob { what: "tenant keys".into() };
        let (fixed, rest) = bytes.split_first_chunk::<131>().ok_or_else(damaged)?;
        check_version("tenant keys", fixed[0])?;
        let key = |n: usize| key_at(fixed, 1 + n * 32).ok_or_else(damaged);
        let count = usize::from(u16::from_le_bytes([fixed[129], fixed[130]]));
        if count == 0 || count > MAX_KEY_EPOCHS || rest.len() != count * 36 {
            return Err(damaged());
        }
        let mut enc = BTreeMap::new();
        for entry in rest.as_chunks::<36>().0 {
            let epoch = u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
            enc.insert(epoch, key_at(entry, 4).ok_or_else(damaged)?);
        }
        Ok(Self { hash: key(0)?, id: key(1)?, nonce: key(2)?, boundary: key(3)?, enc })
    }
}

impl fmt::Debug for TenantKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantKeys(redacted, {} key epochs)", self.enc.len())
    }
}

fn check_version(what: &str, found: u8) -> Result<(), KeyError> {
    if found == VERSION {
        return Ok(());
    }
    Err(KeyError::UnknownVersion { what: what.into(), found: found.into(), supported: VERSION.into() })
}

fn key_at(bytes: &[u8], at: usize) -> Option<Key> {
    let slice = bytes.get(at..at + 32)?;
    let mut key = Key([0; 32]);
    key.0.copy_from_slice(slice);
    Some(key)
}

/// Encrypts the manifests of one resource (K_res): without it nothing of the resource opens.
#[derive(Clone, PartialEq, Eq)]
pub struct ResourceKey(pub(crate) Key);

impl ResourceKey {
    /// Makes the key of a new resource.
    pub fn generate(random: &dyn Random) -> Self {
        Self(Key::generate(random))
    }

    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != 32 {
            return None;
        }
        key_at(bytes, 0).map(Self)
    }
}

impl fmt::Debug for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResourceKey(redacted)")
    }
}

/// All that a job can decrypt with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobKeys {
    /// Whose data.
    pub tenant: TenantId,
    /// Which resource.
    pub resource: ResourceId,
    /// The tenant's keys.
    pub tenant_keys: TenantKeys,
    /// The resource's key.
    pub resource_key: ResourceKey,
}

impl JobKeys {
    /// The bytes a lease carries, over mTLS only.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let tenant_keys = self.tenant_keys.to_bytes();
        let mut out = Zeroizing::new(Vec::with_capacity(65 + tenant_keys.len()));
        out.push(VERSION);
        out.extend_from_slice(&self.tenant.0);
        out.extend_from_slice(&self.resource.0);
        out.extend_from_slice(&self.resource_key.0.0);
        out.extend_from_slice(&tenant_keys);
        out
    }

    /// Reads them from a lease.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let damaged = || KeyError::DamagedBlob { what: "job keys".into() };
        let (fixed, rest) = bytes.split_first_chunk::<65>().ok_or_else(damaged)?;
        check_version("job keys", fixed[0])?;
        Ok(Self {
            tenant: TenantId::from_slice(&fixed[1..17]).map_err(|_| damaged())?,
            resource: ResourceId::from_slice(&fixed[17..33]).map_err(|_| damaged())?,
            resource_key: ResourceKey(key_at(fixed, 33).ok_or_else(damaged)?),
            tenant_keys: TenantKeys::from_bytes(rest)?,
        })
    }

    /// Seals something of the job, a job checkpoint for example, with the resource's key: `version 1 · nonce 12 · ciphertext · tag
    /// 16`.
    pub fn seal_blob(&self, context: &str, random: &dyn Random, plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_BYTES];
        random.fill(&mut nonce);
        let mut buffer = plain.to_vec();
        aead::seal(&self.blob_key(context), nonce, &self.blob_aad(context), &mut buffer);
        [&[VERSION][..], &nonce, &buffer].concat()
    }

    /// Opens what [`Self::seal_blob`] made in the same context.
    pub fn open_blob(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>, KeyError> {
        let refused = || KeyError::DamagedBlob { what: context.into() };
        let (version, rest) = sealed.split_first().ok_or_else(refused)?;
        check_version(context, *version)?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>().ok_or_else(refused)?;
        aead::open(&self.blob_key(context), *nonce, &self.blob_aad(context), rest).map_err(|_| refused())
    }

    fn blob_key(&self, context: &str) -> Key {
        self.resource_key.0.derive(&[b"hf-blob-1", context.as_bytes()])
    }

    fn blob_aad(&self, context: &str) -> Vec<u8> {
        [&self.tenant.0[..], &self.resource.0, context.as_bytes()].concat()
    }
}
