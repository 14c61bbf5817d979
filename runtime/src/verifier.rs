//! The client's check of a server: the certificate chain as usual, then cluster and role from its name.
//!
//! A worker whose certificate was stolen must not be able to pose as a storage node, although the same
//! authority signed both.

use std::sync::Arc;

use holdfast_model::Role;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::{IdentityError, PeerIdentity};

/// The server is genuine and not the one that was wanted.
#[derive(Debug, thiserror::Error)]
enum WrongServer {
    #[error("the server is {found}, expected role {expected} of cluster {cluster}")]
    Identity { found: PeerIdentity, expected: Role, cluster: String },
    #[error("the server's certificate does not say who it is")]
    Unnamed(#[source] IdentityError),
}

/// Accepts a server only with the expected role in the expected cluster.
#[derive(Debug)]
pub(crate) struct RoleVerifier {
    chain: Arc<WebPkiServerVerifier>,
    cluster: String,
    role: Role,
}

impl RoleVerifier {
    pub(crate) fn new(
        roots: RootCertStore,
        cluster: String,
        role: Role,
    ) -> Result<Self, rustls::client::VerifierBuilderError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Self { chain, cluster, role })
    }
}

fn refuse(reason: WrongServer) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(reason))))
}

impl ServerCertVerifier for RoleVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        let found = PeerIdentity::from_certificate(end_entity)
            .map_err(|error| refuse(WrongServer::Unnamed(error)))?;
        if found.role != self.role || found.cluster != self.cluster {
            let cluster = self.cluster.clone();
            return Err(refuse(WrongServer::Identity { found, expected: self.role, cluster }));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
