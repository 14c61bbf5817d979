//! Session tokens that were found to be signed: the signature of a token is checked once, and not with each call that carries it.
//!
//! Invariant: a token is known by all of its bytes, and whether it has expired is looked at with every call.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use holdfast_model::{Millis, SessionClaims};
use holdfast_proto::{
    signed::{SignedError, Verifier},
    storage::SessionToken,
};

/// So many are remembered, then all are forgotten and checked once more. A node has a few hundred sessions, and the token of each is
/// new every few minutes.
const TOKENS_MAX: usize = 4_096;

/// Believes tokens of the cluster's coordinator.
pub struct Tokens {
    verifier: Verifier,
    signed: Mutex<BTreeMap<(Bytes, Bytes), SessionClaims>>,
}

impl Tokens {
    /// Knows none yet.
    pub fn new(verifier: Verifier) -> Self {
        Self { verifier, signed: Mutex::default() }
    }

    fn signed(&self) -> MutexGuard<'_, BTreeMap<(Bytes, Bytes), SessionClaims>> {
        self.signed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The claims of a token that is signed and has not expired.
    pub fn claims(&self, token: &SessionToken, now_ms: Millis) -> Result<SessionClaims, SignedError> {
        let bytes = (token.body.clone(), token.signature.clone());
        let known = self.signed().get(&bytes).cloned();
        if let Some(claims) = known {
            return if claims.expires_at_ms <= now_ms { Err(SignedError::Expired) } else { Ok(claims) };
        }
        let claims = self.verifier.token(token, now_ms)?;
        let mut signed = self.signed();
        if signed.len() >= TOKENS_MAX {
            signed.clear();
        }
        signed.insert(bytes, claims.clone());
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_proto::signed::Signer;

    use super::*;
    use crate::testing::caller;

    fn signer() -> Signer {
        Signer::from_pkcs8(&Signer::generate().unwrap().0).unwrap()
    }

    #[test]
    fn a_known_token_is_refused_like_a_new_one_when_it_has_expired() {
        let signer = signer();
        let tokens = Tokens::new(signer.verifier());
        let claims = SessionClaims { expires_at_ms: 1_000, ..caller(1).claims };
        let token = signer.token(&claims);
        assert_eq!(tokens.claims(&token, 999), Ok(claims.clone()));
        assert_eq!(tokens.claims(&token, 999), Ok(claims));
        assert_eq!(tokens.claims(&token, 1_000), Err(SignedError::Expired));
    }

    #[test]
    fn one_other_byte_makes_it_another_token() {
        let signer = signer();
        let tokens = Tokens::new(signer.verifier());
        let token = signer.token(&caller(1).claims);
        assert!(tokens.claims(&token, 0).is_ok());
        let flipped = |bytes: &Bytes, at: usize| {
            let mut bytes = bytes.to_vec();
            bytes[at] ^= 1;
            Bytes::from(bytes)
        };
        for at in 0..token.body.len() {
            let other = SessionToken { body: flipped(&token.body, at), ..token.clone() };
            assert_eq!(tokens.claims(&other, 0), Err(SignedError::WrongSignature), "byte {at} of the body");
        }
        for at in 0..token.signature.len() {
            let other = SessionToken { signature: flipped(&token.signature, at), ..token.clone() };
            assert_eq!(
                tokens.claims(&other, 0),
                Err(SignedError::WrongSignature),
                "byte {at} of the signature"
            );
        }
        let of_another_cluster = self::signer().token(&caller(1).claims);
        assert_eq!(tokens.claims(&of_another_cluster, 0), Err(SignedError::WrongSignature));
    }

    #[test]
    fn what_is_remembered_has_a_limit() {
        let signer = signer();
        let tokens = Tokens::new(signer.verifier());
        for attempt in 0..=TOKENS_MAX as u64 {
            let token = signer.token(&caller(attempt).claims);
            assert!(tokens.claims(&token, 0).is_ok());
        }
        assert_eq!(tokens.signed().len(), 1);
    }
}
