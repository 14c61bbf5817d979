//! Session tokens and commit tickets: signed by the coordinator with Ed25519, checked by the storage nodes.
//!
//! Each kind signs its own prefix with the body, so that one can never be taken for the other.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use holdfast_model::{LayoutVersion, Millis, SessionClaims};
use prost::Message as _;

use crate::{
    convert::{Ticket, WireError},
    storage,
};

const TOKEN_PREFIX: &[u8] = b"holdfast session token 1\0";
const TICKET_PREFIX: &[u8] = b"holdfast commit ticket 1\0";

/// A token or ticket cannot be believed, or a key cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// Not signed by the coordinator of this cluster.
    #[error("the signature does not belong to this cluster's coordinator")]
    WrongSignature,
    /// Its time is over.
    #[error("the session token has expired")]
    Expired,
    /// It does not decode.
    #[error("the signed body cannot be read: {0}")]
    Malformed(#[from] WireError),
    /// The file holds no Ed25519 key.
    #[error("not an Ed25519 {0} key")]
    BadKey(&'static str),
}

impl From<prost::DecodeError> for SignedError {
    fn from(_: prost::DecodeError) -> Self {
        Self::Malformed(WireError { field: "body", problem: "not decodable" })
    }
}

/// Signs, in the coordinator only.
pub struct Signer(Ed25519KeyPair);

impl Signer {
    /// Reads a PKCS#8 private key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, SignedError> {
        Ed25519KeyPair::from_pkcs8(der).map(Self).map_err(|_| SignedError::BadKey("private"))
    }

    /// Makes a fresh key: (PKCS#8 private key, raw public key).
    pub fn generate() -> Result<(Vec<u8>, Vec<u8>), SignedError> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new())
            .map_err(|_| SignedError::BadKey("private"))?;
        let signer = Self::from_pkcs8(pkcs8.as_ref())?;
        Ok((pkcs8.as_ref().to_vec(), signer.verifier().0))
    }

    /// The key that checks what this one signs.
    pub fn verifier(&self) -> Verifier {
        Verifier(self.0.public_key().as_ref().to_vec())
    }

    /// Signs a session token.
    pub fn token(&self, claims: &SessionClaims) -> storage::SessionToken {
        let body = storage::SessionTokenBody::from(claims).encode_to_vec();
        let signature = self.sign(TOKEN_PREFIX, &body);
        storage::SessionToken { body: body.into(), signature: signature.into() }
    }

    /// Signs a commit ticket.
    pub fn ticket(&self, ticket: &Ticket) -> storage::CommitTicket {
        let body = storage::CommitTicketBody::from(ticket).encode_to_vec();
        let signature = self.sign(TICKET_PREFIX, &body);
        storage::CommitTicket { body: body.into(), signature: signature.into() }
    }

    fn sign(&self, prefix: &[u8], body: &[u8]) -> Vec<u8> {
        self.0.sign(&[prefix, body].concat()).as_ref().to_vec()
    }
}

/// Checks, in every storage node: the coordinator's public key.
#[derive(Debug, Clone)]
pub struct Verifier(Vec<u8>);

impl Verifier {
    /// Takes the 32 bytes of a raw public key.
    pub fn from_public_key(bytes: &[u8]) -> Result<Self, SignedError> {
        if bytes.len() == 32 { Ok(Self(bytes.to_vec())) } else { Err(SignedError::BadKey("public")) }
    }

    /// The claims of a token that is signed and has not expired.
    pub fn token(&self, token: &storage::SessionToken, now_ms: Millis) -> Result<SessionClaims, SignedError> {
        self.check(TOKEN_PREFIX, &token.body, &token.signature)?;
        let claims = SessionClaims::try_from(storage::SessionTokenBody::decode(token.body.clone())?)?;
        if claims.expires_at_ms <= now_ms { Err(SignedError::Expired) } else { Ok(claims) }
    }

    /// What a ticket allows. Tickets do not expire: the fence ends them.
    pub fn ticket(&self, ticket: &storage::CommitTicket) -> Result<Ticket, SignedError> {
        self.check(TICKET_PREFIX, &ticket.body, &ticket.signature)?;
        Ok(Ticket::try_from(storage::CommitTicketBody::decode(ticket.body.clone())?)?)
    }

    fn check(&self, prefix: &[u8], body: &[u8], signature: &[u8]) -> Result<(), SignedError> {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(&[prefix, body].concat(), signature)
            .map_err(|_| SignedError::WrongSignature)
    }
}

/// Attaches a session token to a call.
pub fn attach_token<T>(request: &mut tonic::Request<T>, token: &storage::SessionToken) {
    let value = tonic::metadata::MetadataValue::from_bytes(&token.encode_to_vec());
    request.metadata_mut().insert_bin(crate::SESSION_TOKEN_METADATA, value);
}

/// Says by which layout the caller works.
pub fn attach_layout_version<T>(request: &mut tonic::Request<T>, version: LayoutVersion) {
    request.metadata_mut().insert(crate::LAYOUT_VERSION_METADATA, version.0.into());
}

/// By which layout the caller works; 0 when it does not say.
pub fn read_layout_version(metadata: &tonic::metadata::MetadataMap) -> LayoutVersion {
    let text = metadata.get(crate::LAYOUT_VERSION_METADATA).and_then(|value| value.to_str().ok());
    LayoutVersion(text.and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// Reads the session token of a call.
pub fn read_token(metadata: &tonic::metadata::MetadataMap) -> Result<storage::SessionToken, SignedError> {
    let missing =
        || SignedError::Malformed(WireError { field: crate::SESSION_TOKEN_METADATA, problem: "missing" });
    let value = metadata.get_bin(crate::SESSION_TOKEN_METADATA).ok_or_else(missing)?;
    let bytes = value.to_bytes().map_err(|_| missing())?;
    Ok(storage::SessionToken::decode(bytes)?)
}

#[cfg(test)]
mod tests {
    use holdfast_model::{
        Epoch, Fence, JobId, PinHash, PoolId, ResourceId, Sequence, TenantId, Verb, Workload,
    };

    use super::*;

    fn claims() -> SessionClaims {
        SessionClaims {
            tenant: TenantId([1; 16]),
            pool: PoolId("p".to_owned()),
            resource: ResourceId([2; 16]),
            workload: Workload::Mail,
            job: JobId([3; 16]),
            fence: Fence::default(),
            epoch: Epoch(4),
            verbs: vec![Verb::Read, Verb::Write],
            expires_at_ms: 100,
        }
    }

    fn signer() -> Signer {
        Signer::from_pkcs8(&Signer::generate().unwrap().0).unwrap()
    }

    #[test]
    fn a_token_is_believed_until_it_expires() {
        let signer = signer();
        let token = signer.token(&claims());
        assert_eq!(signer.verifier().token(&token, 99), Ok(claims()));
        assert_eq!(signer.verifier().token(&token, 100), Err(SignedError::Expired));
    }

    #[test]
    fn another_coordinators_token_is_refused() {
        let token = signer().token(&claims());
        assert_eq!(signer().verifier().token(&token, 0), Err(SignedError::WrongSignature));
    }

    #[test]
    fn a_ticket_cannot_be_used_as_a_token() {
        let signer = signer();
        let ticket = Ticket {
            tenant: TenantId([1; 16]),
            resource: ResourceId([2; 16]),
            workload: Workload::Mail,
            sequence: Sequence(1),
            fence: Fence::default(),
            pin_hash: PinHash([9; 32]),
        };
        let signed = signer.ticket(&ticket);
        assert_eq!(signer.verifier().ticket(&signed), Ok(ticket));
        let disguised = storage::SessionToken { body: signed.body, signature: signed.signature };
        assert_eq!(signer.verifier().token(&disguised, 0), Err(SignedError::WrongSignature));
    }
}
