//! Makes a certificate authority and certificates for `up`, the demo and tests. A real cluster brings its own files.
//!
//! Private keys are written with mode 0600 and never replaced: an existing file is an error or is reused.

use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use holdfast_model::Role;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SanType, date_time_ymd,
};

use crate::{PeerIdentity, TlsOptions, grpc::INTERNAL_DNS_NAME, identity::is_plain_name};

const CA_CERT_FILE: &str = "ca.crt";
const CA_KEY_FILE: &str = "ca.key";
const CLUSTER_FILE: &str = "cluster";
const SIGNING_KEY_FILE: &str = "session-signing.pk8";
const SIGNING_PUBLIC_FILE: &str = "session-signing.pub";
/// Names every certificate carries besides those asked for.
const DEFAULT_SANS: [&str; 4] = [INTERNAL_DNS_NAME, "localhost", "127.0.0.1", "::1"];

/// A certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("cannot access {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A key or certificate cannot be made or read.
    #[error("cannot make the certificate")]
    Certificate(#[from] rcgen::Error),
    /// A name cannot stand in a certificate.
    #[error("'{name}' cannot stand in a certificate: use letters, digits, '-', '_' and '.'")]
    Name {
        /// The name.
        name: String,
    },
}

/// The certificate files of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM certificate.
    pub cert: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
    /// PEM certificate authority.
    pub ca: PathBuf,
}

impl TlsFiles {
    /// The files as configuration.
    pub fn options(&self) -> TlsOptions {
        TlsOptions { cert_file: self.cert.clone(), key_file: self.key.clone(), ca_file: self.ca.clone() }
    }
}

impl From<TlsFiles> for TlsOptions {
    fn from(files: TlsFiles) -> Self {
        files.options()
    }
}

/// The files of an Ed25519 key that signs session tokens and commit tickets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKeyFiles {
    /// Private key, PKCS#8 DER.
    pub private: PathBuf,
    /// Public key, 32 raw bytes.
    pub public: PathBuf,
}

/// A certificate authority in a folder.
pub struct Pki {
    dir: PathBuf,
    cluster: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki").field("dir", &self.dir).field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Pki {
    /// Makes a new authority in `dir`, which must not have one.
    pub fn create(dir: &Path, cluster: &str) -> Result<Self, PkiError> {
        check_name(cluster)?;
        std::fs::create_dir_all(dir).map_err(|source| file_error(dir, source))?;
        let key = KeyPair::generate()?;
        let mut params = base_params(&format!("Holdfast {cluster} authority"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        write_new(&dir.join(CA_KEY_FILE), key.serialize_pem().as_bytes(), Secrecy::Secret)?;
        write_new(&dir.join(CLUSTER_FILE), cluster.as_bytes(), Secrecy::Public)?;
        // Last: an authority without its certificate is one that was never finished.
        write_new(&dir.join(CA_CERT_FILE), certificate.pem().as_bytes(), Secrecy::Public)?;
        Self::open(dir)
    }

    /// Opens the authority in `dir`.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        let cluster = read(&dir.join(CLUSTER_FILE))?.trim().to_owned();
        check_name(&cluster)?;
        let key = KeyPair::from_pem(&read(&dir.join(CA_KEY_FILE))?)?;
        let issuer = Issuer::from_ca_cert_pem(&read(&dir.join(CA_CERT_FILE))?, key)?;
        Ok(Self { dir: dir.to_owned(), cluster, issuer })
    }

    /// Opens the authority in `dir`, or makes one if there is none.
    pub fn open_or_create(dir: &Path, cluster: &str) -> Result<Self, PkiError> {
        if dir.join(CA_CERT_FILE).exists() { Self::open(dir) } else { Self::create(dir, cluster) }
    }

    /// The cluster it makes certificates for.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Makes a certificate for a process, for `localhost`, `127.0.0.1`, `::1` and the given names.
    ///
    /// Files of the same role and name are kept and returned as they are.
    pub fn issue(&self, role: Role, name: &str, sans: &[&str]) -> Result<TlsFiles, PkiError> {
        check_name(name)?;
        let files = TlsFiles {
            cert: self.dir.join(format!("{role}-{name}.crt")),
            key: self.dir.join(format!("{role}-{name}.key")),
            ca: self.dir.join(CA_CERT_FILE),
        };
        if files.cert.exists() && files.key.exists() {
            return Ok(files);
        }
        let key = KeyPair::generate()?;
        let identity = PeerIdentity { cluster: self.cluster.clone(), role, name: name.to_owned() };
        let mut params = base_params(name);
        for san in DEFAULT_SANS.iter().chain(sans.iter().filter(|san| !DEFAULT_SANS.contains(*san))) {
            params.subject_alt_names.push(match san.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*san).try_into()?),
            });
        }
        params.subject_alt_names.push(SanType::URI(identity.to_string().as_str().try_into()?));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        write_new(&files.key, key.serialize_pem().as_bytes(), Secrecy::Secret)?;
        write_new(&files.cert, certificate.pem().as_bytes(), Secrecy::Public)?;
        Ok(files)
    }
}

/// Makes an Ed25519 signing key in `dir`; an existing one is kept and returned as it is.
pub fn issue_signing_key(dir: &Path) -> Result<SigningKeyFiles, PkiError> {
    let files =
        SigningKeyFiles { private: dir.join(SIGNING_KEY_FILE), public: dir.join(SIGNING_PUBLIC_FILE) };
    if files.private.exists() && files.public.exists() {
        return Ok(files);
    }
    std::fs::create_dir_all(dir).map_err(|source| file_error(dir, source))?;
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    write_new(&files.private, key.serialized_der(), Secrecy::Secret)?;
    write_new(&files.public, key.public_key_raw(), Secrecy::Public)?;
    Ok(files)
}

fn base_params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, common_name);
    // For one machine and for tests: they do not expire, and no clock is needed to make them.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    params
}

fn check_name(name: &str) -> Result<(), PkiError> {
    if is_plain_name(name) { Ok(()) } else { Err(PkiError::Name { name: name.to_owned() }) }
}

fn file_error(path: &Path, source: std::io::Error) -> PkiError {
    PkiError::File { path: path.to_owned(), source }
}

fn read(path: &Path) -> Result<String, PkiError> {
    std::fs::read_to_string(path).map_err(|source| file_error(path, source))
}

#[derive(Clone, Copy)]
enum Secrecy {
    Secret,
    Public,
}

fn write_new(path: &Path, bytes: &[u8], secrecy: Secrecy) -> Result<(), PkiError> {
    let mode = match secrecy {
        Secrecy::Secret => 0o600,
        Secrecy::Public => 0o644,
    };
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .map_err(|source| file_error(path, source))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn certificates_carry_their_identity_and_survive_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let made = Pki::create(dir.path(), "demo").unwrap().issue(Role::Worker, "w1", &["w1.lan"]).unwrap();
        let pki = Pki::open_or_create(dir.path(), "ignored").unwrap();
        assert_eq!(pki.cluster(), "demo");
        assert_eq!(pki.issue(Role::Worker, "w1", &[]).unwrap(), made, "kept");
        let identity = made.options().identity().unwrap();
        assert_eq!(identity.to_string(), "holdfast://demo/worker/w1");
        for secret in [&made.key, &dir.path().join(CA_KEY_FILE)] {
            assert_eq!(std::fs::metadata(secret).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(Pki::create(dir.path(), "demo").is_err(), "an authority is never replaced");
        assert!(matches!(pki.issue(Role::Worker, "../w", &[]), Err(PkiError::Name { .. })));
    }

    #[test]
    fn a_signing_key_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let files = issue_signing_key(dir.path()).unwrap();
        let public = std::fs::read(&files.public).unwrap();
        assert_eq!(public.len(), 32);
        assert_eq!(issue_signing_key(dir.path()).unwrap(), files);
        assert_eq!(std::fs::read(&files.public).unwrap(), public);
        let private = std::fs::read(&files.private).unwrap();
        assert!(KeyPair::try_from(private.as_slice()).is_ok_and(|key| key.public_key_raw() == public));
    }
}
