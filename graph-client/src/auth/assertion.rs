//! The certificate's proof: a PS256 assertion for one token request.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use holdfast_model::Millis;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::GraphError;

/// How long an assertion is valid. Microsoft allows ten minutes at most.
const LIFETIME: Duration = Duration::from_mins(5);

const BEGIN_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
const END_CERTIFICATE: &str = "-----END CERTIFICATE-----";

/// A certificate that signs assertions.
pub(super) struct Signer {
    key: EncodingKey,
    thumbprint: String,
}

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    iss: &'a str,
    sub: &'a str,
    jti: String,
    nbf: u64,
    iat: u64,
    exp: u64,
}

impl Signer {
    /// Reads the first certificate and the RSA key of a PEM text.
    pub fn from_pem(pem: &str) -> Result<Self, GraphError> {
        let bad = |reason| GraphError::Config { setting: "certificate", reason };
        let start = pem.find(BEGIN_CERTIFICATE).ok_or(bad("it holds no certificate"))?;
        let rest = &pem[start + BEGIN_CERTIFICATE.len()..];
        let body = &rest[..rest.find(END_CERTIFICATE).ok_or(bad("the certificate is cut off"))?];
        let text: String = body.chars().filter(|c| !c.is_whitespace()).collect();
        let der = base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(|_| bad("the certificate is not base64"))?;
        let key = private_key(pem).ok_or(bad("it holds no private key"))?;
        let key = EncodingKey::from_rsa_pem(key.as_bytes())
            .map_err(|_| bad("the private key is not an RSA key"))?;
        let hash = digest::digest(&digest::SHA256, &der);
        Ok(Self { key, thumbprint: base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(hash) })
    }

    /// Signs an assertion for one request.
    pub fn sign(
        &self,
        audience: &str,
        client_id: &str,
        id: uuid::Uuid,
        now_ms: Millis,
    ) -> Result<Zeroizing<String>, GraphError> {
        let now = now_ms / 1000;
        let mut header = Header::new(Algorithm::PS256);
        header.x5t_s256 = Some(self.thumbprint.clone());
        let claims = Claims {
            aud: audience,
            iss: client_id,
            sub: client_id,
            jti: id.to_string(),
            nbf: now,
            iat: now,
            exp: now + LIFETIME.as_secs(),
        };
        let signed = jsonwebtoken::encode(&header, &claims, &self.key);
        signed.map(Zeroizing::new).map_err(|source| GraphError::Signing { source })
    }
}

/// The first block whose label ends in `PRIVATE KEY`.
fn private_key(pem: &str) -> Option<Zeroizing<String>> {
    let label_end = pem.find("PRIVATE KEY-----")?;
    let start = pem[..label_end].rfind("-----BEGIN ")?;
    let label = &pem[start + "-----BEGIN ".len()..label_end + "PRIVATE KEY".len()];
    let end_line = format!("-----END {label}-----");
    let end = start + pem[start..].find(&end_line)? + end_line.len();
    Some(Zeroizing::new(pem[start..end].to_owned()))
}
