//! The key file and the provider on top of it: what wraps the tenants' and resources' keys before the catalog keeps them.
//!
//! Invariant: every wrapped blob names the fingerprint of the key that wrapped it, so that the wrong key file is told
//! apart from a damaged blob.

use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use holdfast_model::{Random, ResourceId, TenantId};
use holdfast_record::version_refusal;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    aead::{self, NONCE_BYTES},
    keys::{ResourceKey, TenantKeys},
    secret::Key,
};

const FILE_VERSION: u32 = 1;
const BLOB_VERSION: u8 = 1;
const FINGERPRINT_BYTES: usize = 8;
const BLOB_PREFIX_BYTES: usize = 1 + FINGERPRINT_BYTES + NONCE_BYTES;
/// A key file is never larger.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Keys cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyError {
    /// No such file.
    #[error("there is no key file at {}: make one with 'holdfast key init', or point to the one that was made", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file is not a key file, or not all of it.
    #[error("the key file {} is damaged ({reason}): restore it from the key kit", path.display())]
    DamagedFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A key file is never overwritten.
    #[error("{} exists: a key file is never overwritten", path.display())]
    AlreadyExists {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be read or written.
    #[error("cannot access the key file {} ({kind})", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        kind: io::ErrorKind,
    },
    /// Another key wrapped it.
    #[error("the key file does not open {what}: use the key file the tenant was connected with")]
    WrongKey {
        /// What was to be opened.
        what: String,
    },
    /// The right key, and still it does not open.
    #[error("{what} does not open: it is damaged, or belongs somewhere else")]
    DamagedBlob {
        /// What was to be opened.
        what: String,
    },
    /// Made by another build.
    #[error("{what}: {}", version_refusal(*found, *supported))]
    UnknownVersion {
        /// What was to be read.
        what: String,
        /// What stands there.
        found: u32,
        /// What is read.
        supported: u32,
    },
}

/// The keys that the operator keeps. Serialised as JSON, readable by the owner only.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    version: u32,
    kek: FileKey,
    shred: Vec<FileKey>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKey {
    version: u32,
    #[serde(with = "hex_key")]
    key: Key,
}

#[derive(Deserialize)]
struct FileVersion {
    version: u32,
}

mod hex_key {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use zeroize::Zeroizing;

    use crate::secret::Key;

    pub(super) fn serialize<S: Serializer>(key: &Key, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(hex::encode(key.0)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let mut key = Key([0; 32]);
        hex::decode_to_slice(text.as_bytes(), &mut key.0)
            .map_err(|_| D::Error::custom("a key is 64 hexadecimal digits"))?;
        Ok(key)
    }
}

impl KeyFile {
    /// Makes new keys, version 1 of each.
    pub fn generate(random: &dyn Random) -> Self {
        let key = || FileKey { version: 1, key: Key::generate(random) };
        Self { version: FILE_VERSION, kek: key(), shred: vec![key()] }
    }

    /// Writes the file for its owner only, durably; never over an existing one.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        let io_error = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => KeyError::AlreadyExists { path: path.into() },
            kind => KeyError::Io { path: path.into(), kind },
        };
        let json = serde_json::to_vec_pretty(self).expect("keys are serialisable");
        let json = Zeroizing::new(json);
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io_error)?;
        file.write_all(&json).and_then(|()| file.write_all(b"\n")).map_err(io_error)?;
        file.sync_all().map_err(io_error)?;
        match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => fs::File::open(parent).and_then(|folder| folder.sync_all()).map_err(io_error),
            None => Ok(()),
        }
    }

    /// Reads the file. Permissions that let others read it are warned about, not refused.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let io_error = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => KeyError::Missing { path: path.into() },
            kind => KeyError::Io { path: path.into(), kind },
        };
        let damaged = |reason: &str| KeyError::DamagedFile { path: path.into(), reason: reason.into() };
        let metadata = fs::metadata(path).map_err(io_error)?;
        if metadata.len() > MAX_FILE_BYTES {
            return Err(damaged("too large"));
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            tracing::warn!(path = %path.display(), "others may read the key file: chmod 600 it");
        }
        let json = Zeroizing::new(fs::read(path).map_err(io_error)?);
        // The parser's own message may quote the input, so only its position is shown.
        let unreadable =
            |error: serde_json::Error| damaged(&format!("line {}, column {}", error.line(), error.column()));
        // First the version alone: another one may have other fields.
        let FileVersion { version } = serde_json::from_slice(&json).map_err(unreadable)?;
        if version != FILE_VERSION {
            let what = format!("the key file {}", path.display());
            return Err(KeyError::UnknownVersion { what, found: version, supported: FILE_VERSION });
        }
        let file: Self = serde_json::from_slice(&json).map_err(unreadable)?;
        if file.shred.is_empty() {
            return Err(damaged("no shred key"));
        }
        Ok(file)
    }

    /// Names the file without giving anything away: what an operator compares.
    pub fn fingerprint(&self) -> String {
        let shred = self.shred.iter().map(|key| fingerprint(&key.key)).collect::<Vec<_>>();
        let all = self.kek.key.hash(&[b"hf-key-file-1", shred.as_flattened()]);
        hex::encode(&all[..FINGERPRINT_BYTES])
    }

    fn current_shred(&self) -> &Key {
        let newest = self.shred.iter().max_by_key(|key| key.version);
        &newest.expect("a key file has a shred key").key
    }
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFile({})", self.fingerprint())
    }
}

fn fingerprint(key: &Key) -> [u8; FINGERPRINT_BYTES] {
    let mut short = [0; FINGERPRINT_BYTES];
    short.copy_from_slice(&key.hash(&[b"hf-fingerprint-1"])[..FINGERPRINT_BYTES]);
    short
}

/// Wraps keys and secrets, so that the catalog holds none in the clear. A remote key service fits behind it.
#[async_trait]
pub trait KeyProvider: Send + Sync + 'static {
    /// Wraps the keys of a tenant.
    async fn wrap_tenant_keys(&self, tenant: TenantId, keys: &TenantKeys) -> Result<Vec<u8>, KeyError>;
    /// Unwraps them.
    async fn unwrap_tenant_keys(&self, tenant: TenantId, wrapped: &[u8]) -> Result<TenantKeys, KeyError>;
    /// Wraps the key of a resource under the key that an erase destroys.
    async fn wrap_resource_key(
        &self,
        tenant: TenantId,
        resource: ResourceId,
        key: &ResourceKey,
    ) -> Result<Vec<u8>, KeyError>;
    /// Unwraps it.
    async fn unwrap_resource_key(
        &self,
        tenant: TenantId,
        resource: ResourceId,
        wrapped: &[u8],
    ) -> Result<ResourceKey, KeyError>;
    /// Seals a secret of the catalog; it opens only in the same context.
    async fn seal_secret(&self, context: &str, secret: &[u8]) -> Result<Vec<u8>, KeyError>;
    /// Opens it.
    async fn open_secret(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError>;
}

/// A [`KeyProvider`] on a key file. An old copy of the file defeats an erase.
#[derive(Debug, Clone)]
pub struct KeyFileProvider {
    file: KeyFile,
}

impl KeyFileProvider {
    /// Uses the keys of a file.
    pub fn new(file: KeyFile) -> Self {
        Self { file }
    }
}

/// `version 1 · fingerprint 8 · nonce 12 · ciphertext · tag 16`. The nonce is a keyed hash of context and plaintext: two
/// plaintexts never share it, and nothing but equality within one context can be seen.
fn wrap(master: &Key, context: &str, plain: &[u8]) -> Vec<u8> {
    let key = master.derive(&[b"hf-wrap-1"]);
    let hash =
        master.hash(&[b"hf-wrap-nonce-1", &(context.len() as u64).to_le_bytes(), context.as_bytes(), plain]);
    let mut nonce = [0; NONCE_BYTES];
    nonce.copy_from_slice(&hash[..NONCE_BYTES]);
    let mut buffer = Vec::with_capacity(plain.len() + aead::TAG_BYTES);
    buffer.extend_from_slice(plain);
    aead::seal(&key, nonce, context.as_bytes(), &mut buffer);
    [&[BLOB_VERSION][..], &fingerprint(master), &nonce, &buffer].concat()
}

fn unwrap<'k>(
    mut masters: impl Iterator<Item = &'k Key>,
    context: &str,
    what: &str,
    wrapped: &[u8],
) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let damaged = || KeyError::DamagedBlob { what: what.into() };
    let (prefix, sealed) = wrapped.split_first_chunk::<BLOB_PREFIX_BYTES>().ok_or_else(damaged)?;
    if prefix[0] != BLOB_VERSION {
        let found = u32::from(prefix[0]);
        return Err(KeyError::UnknownVersion {
            what: what.into(),
            found,
            supported: u32::from(BLOB_VERSION),
        });
    }
    let (name, nonce) = prefix[1..].split_at(FINGERPRINT_BYTES);
    let master = masters
        .find(|key| fingerprint(key) == name)
        .ok_or_else(|| KeyError::WrongKey { what: what.into() })?;
    let nonce = nonce.try_into().expect("the prefix ends with a nonce");
    let key = master.derive(&[b"hf-wrap-1"]);
    aead::open(&key, nonce, context.as_bytes(), sealed).map(Zeroizing::new).map_err(|_| damaged())
}

#[async_trait]
impl KeyProvider for KeyFileProvider {
    async fn wrap_tenant_keys(&self, tenant: TenantId, keys: &TenantKeys) -> Result<Vec<u8>, KeyError> {
        Ok(wrap(&self.file.kek.key, &format!("tenant-keys {tenant}"), &keys.to_bytes()))
    }

    async fn unwrap_tenant_keys(&self, tenant: TenantId, wrapped: &[u8]) -> Result<TenantKeys, KeyError> {
        let kek = std::iter::once(&self.file.kek.key);
        let plain = unwrap(kek, &format!("tenant-keys {tenant}"), "the keys of the tenant", wrapped)?;
        TenantKeys::from_bytes(&plain)
    }

    async fn wrap_resource_key(
        &self,
        tenant: TenantId,
        resource: ResourceId,
        key: &ResourceKey,
    ) -> Result<Vec<u8>, KeyError> {
        Ok(wrap(self.file.current_shred(), &format!("resource-key {tenant} {resource}"), &key.0.0))
    }

    async fn unwrap_resource_key(
        &self,
        tenant: TenantId,
        resource: ResourceId,
        wrapped: &[u8],
    ) -> Result<ResourceKey, KeyError> {
        let shred = self.file.shred.iter().map(|key| &key.key);
        let what = "the key of the resource";
        let plain = unwrap(shred, &format!("resource-key {tenant} {resource}"), what, wrapped)?;
        ResourceKey::from_slice(&plain).ok_or_else(|| KeyError::DamagedBlob { what: what.into() })
    }

    async fn seal_secret(&self, context: &str, secret: &[u8]) -> Result<Vec<u8>, KeyError> {
        Ok(wrap(&self.file.kek.key, &format!("secret {context}"), secret))
    }

    async fn open_secret(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        unwrap(std::iter::once(&self.file.kek.key), &format!("secret {context}"), "the secret", sealed)
    }
}
