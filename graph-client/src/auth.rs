//! Tokens: where they come from and how a request gets one.
//!
//! The one invariant to know: secrets and tokens never show in `Debug`, logs or errors.

mod assertion;
mod client_credentials;
mod held_token;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use aws_lc_rs::digest;
use base64::Engine as _;
use holdfast_model::Millis;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::{Claims, GraphError};

pub use client_credentials::ClientCredentials;
pub use held_token::{HeldToken, MAX_TOKEN_WAIT};

/// How an app registration proves who it is.
#[derive(Clone)]
pub enum Credential {
    /// A client secret.
    Secret(Zeroizing<String>),
    /// A PEM file with a certificate and its RSA private key.
    Certificate {
        /// The text of the file.
        pem: Zeroizing<String>,
    },
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret(redacted)",
            Self::Certificate { .. } => "Certificate(redacted)",
        })
    }
}

/// An app registration.
#[derive(Debug, Clone)]
pub struct AppCredentials {
    /// Its client id.
    pub client_id: String,
    /// How it proves who it is.
    pub secret: Credential,
}

/// A bearer token.
#[derive(Clone)]
pub struct AccessToken {
    /// The token itself.
    pub secret: Arc<Zeroizing<String>>,
    /// After this Microsoft refuses it.
    pub expires_at_ms: Millis,
}

impl AccessToken {
    /// Wraps a token.
    pub fn new(secret: String, expires_at_ms: Millis) -> Self {
        Self { secret: Arc::new(Zeroizing::new(secret)), expires_at_ms }
    }

    /// The application roles in the token, best effort: for telling which permissions are missing, nothing else.
    pub fn roles(&self) -> Vec<String> {
        let payload = self.secret.split('.').nth(1).unwrap_or_default().trim_end_matches('=');
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
        let claims: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let roles = claims.get("roles").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        roles.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// What names the token without being it.
    pub fn fingerprint(&self) -> TokenFingerprint {
        let hash = digest::digest(&digest::SHA256, self.secret.as_bytes());
        let mut prefix = [0; TokenFingerprint::LENGTH];
        prefix.copy_from_slice(&hash.as_ref()[..TokenFingerprint::LENGTH]);
        TokenFingerprint(prefix)
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        *self.secret == *other.secret
    }
}

/// The beginning of a token's SHA-256: says which token is meant, and gives nothing away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenFingerprint(pub [u8; Self::LENGTH]);

impl TokenFingerprint {
    /// Its length in bytes.
    pub const LENGTH: usize = 16;
}

/// Microsoft refused a token that has not expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Which token.
    pub fingerprint: TokenFingerprint,
    /// What the next one must carry, where Microsoft said so.
    pub claims: Option<Claims>,
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken").field("expires_at_ms", &self.expires_at_ms).finish_non_exhaustive()
    }
}

/// Gives the token for a request.
#[async_trait]
pub trait TokenSource: Send + Sync {
    /// A token that is valid for a while yet.
    async fn token(&self) -> Result<AccessToken, GraphError>;

    /// A token other than the one Microsoft has just rejected, with the claims that it demands.
    async fn renew(&self, rejected: &AccessToken, claims: Option<&Claims>)
    -> Result<AccessToken, GraphError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show() {
        let app = AppCredentials {
            client_id: "id".into(),
            secret: Credential::Secret("hunter2".to_owned().into()),
        };
        let token = AccessToken::new("hunter2".into(), 1);
        assert!(!format!("{app:?} {token:?}").contains("hunter2"));
    }

    #[test]
    fn a_fingerprint_tells_tokens_apart_and_holds_nothing_of_them() {
        let (one, two) = (AccessToken::new("hunter2".into(), 1), AccessToken::new("hunter3".into(), 1));
        assert_eq!(one.fingerprint(), AccessToken::new("hunter2".into(), 9).fingerprint());
        assert_ne!(one.fingerprint(), two.fingerprint());
        assert!(!one.fingerprint().0.windows(4).any(|part| part == b"hunt"));
    }

    #[test]
    fn roles_are_read_from_the_payload_and_nonsense_has_none() {
        let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .encode(r#"{"roles":["Mail.Read","User.Read.All"]}"#);
        let token = AccessToken::new(format!("h.{payload}.s"), 1);
        assert_eq!(token.roles(), ["Mail.Read", "User.Read.All"]);
        assert!(AccessToken::new("opaque".into(), 1).roles().is_empty());
    }
}
