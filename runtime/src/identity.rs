//! Who is at the other end of a connection: read from the URI name of a certificate that TLS has already verified.

use std::{fmt, str::FromStr};

use holdfast_model::Role;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

const SCHEME: &str = "holdfast://";

/// The certificate does not say who its holder is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The bytes are not a certificate.
    #[error("not an X.509 certificate")]
    NotACertificate,
    /// There is not exactly one name of the right form.
    #[error(
        "the certificate carries {found} names of the form holdfast://<cluster>/<role>/<name>, expected 1"
    )]
    NameCount {
        /// How many there are.
        found: usize,
    },
    /// The name is not well-formed.
    #[error("the name in the certificate is not holdfast://<cluster>/<role>/<name>")]
    Malformed,
}

/// Who a verified certificate belongs to; stands in the extensions of every request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerIdentity {
    /// The cluster it was made for.
    pub cluster: String,
    /// What it may do.
    pub role: Role,
    /// Which one of its role.
    pub name: String,
}

impl PeerIdentity {
    /// Reads the identity from a DER certificate. Verifies nothing: TLS has done so.
    pub fn from_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| IdentityError::NotACertificate)?;
        let names = certificate.subject_alternative_name().map_err(|_| IdentityError::NotACertificate)?;
        let uris: Vec<&str> = names
            .iter()
            .flat_map(|extension| &extension.value.general_names)
            .filter_map(|name| match name {
                GeneralName::URI(uri) if uri.starts_with(SCHEME) => Some(*uri),
                _ => None,
            })
            .collect();
        match uris.as_slice() {
            [uri] => uri.parse(),
            _ => Err(IdentityError::NameCount { found: uris.len() }),
        }
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}/{}", self.cluster, self.role, self.name)
    }
}

impl FromStr for PeerIdentity {
    type Err = IdentityError;

    fn from_str(uri: &str) -> Result<Self, IdentityError> {
        let path = uri.strip_prefix(SCHEME).ok_or(IdentityError::Malformed)?;
        let parts: Vec<&str> = path.split('/').collect();
        let [cluster, role, name] = parts.as_slice() else { return Err(IdentityError::Malformed) };
        if !is_plain_name(cluster) || !is_plain_name(name) {
            return Err(IdentityError::Malformed);
        }
        let role = role.parse().map_err(|_| IdentityError::Malformed)?;
        Ok(Self { cluster: (*cluster).to_owned(), role, name: (*name).to_owned() })
    }
}

/// Whether a cluster or process name may stand in a certificate: letters, digits, `-`, `_`, `.`; at most 128.
pub(crate) fn is_plain_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_name_is_an_identity() {
        let identity: PeerIdentity = "holdfast://prod/storage-node/node-1".parse().unwrap();
        assert_eq!((identity.cluster.as_str(), identity.role), ("prod", Role::StorageNode));
        assert_eq!(identity.to_string(), "holdfast://prod/storage-node/node-1");
        for wrong in [
            "https://prod/worker/a",
            "holdfast://prod/worker",
            "holdfast://prod/root/a",
            "holdfast://prod/worker/a/b",
            "holdfast:///worker/a",
            "holdfast://prod/worker/",
        ] {
            assert_eq!(wrong.parse::<PeerIdentity>(), Err(IdentityError::Malformed), "{wrong}");
        }
        assert_eq!(PeerIdentity::from_certificate(b"junk"), Err(IdentityError::NotACertificate));
    }
}
