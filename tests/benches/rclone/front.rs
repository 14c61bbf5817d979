//! The simulator at the names of Microsoft's hosts: TLS in front of it.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use holdfast_model::Role;
use holdfast_runtime::Pki;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// Loopback, but nobody else's.
pub const ADDRESS: &str = "127.0.0.2";
pub const HOSTS: [&str; 2] = ["graph.microsoft.com", "login.microsoftonline.com"];
/// Where the authority's files lie.
pub const CA_FILE: &str = "front/ca.crt";
const HTTPS: u16 = 443;

/// Passes on until it is dropped.
pub struct Front {
    accepting: JoinHandle<()>,
}

impl Front {
    pub async fn start(folder: &Path, simulator: &str) -> anyhow::Result<Self> {
        let to = simulator.trim_start_matches("http://").to_owned();
        let acceptor = acceptor(folder)?;
        let listener = TcpListener::bind((ADDRESS, HTTPS)).await.context("port 443: are you root?")?;
        let accept = async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass_on(stream, acceptor.clone(), to.clone()));
            }
        };
        Ok(Self { accepting: tokio::spawn(accept) })
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn acceptor(folder: &Path) -> anyhow::Result<TlsAcceptor> {
    let authority = folder.join(CA_FILE);
    let pki = Pki::create(authority.parent().context("a folder")?, "front")?;
    let files = pki.issue(Role::Operator, "front", &HOSTS)?;
    let chain = CertificateDer::pem_file_iter(&files.cert)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&files.key)?;
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn pass_on(from: TcpStream, acceptor: TlsAcceptor, to: String) -> std::io::Result<()> {
    from.set_nodelay(true)?;
    let mut from = acceptor.accept(from).await?;
    let mut to = TcpStream::connect(to).await?;
    to.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut from, &mut to).await.map(drop)
}
