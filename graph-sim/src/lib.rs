//! A stateful simulator of Microsoft Graph, with its limits and its faults: for the demo, tests, benches.
//!
//! # Code map
//!
//! `world` is the state · `workloads` are what people have, one module each behind one trait: mail, contacts, To Do,
//! calendars, drives, the directory · `words`, `people`, `blob`, `pieces` are what generation draws from · `http` speaks
//! Graph, `control` speaks to tests · `delta`, `ids`, `query`, `json`, `quick_xor` are Graph's manners · `token`, `limits`,
//! `faults`, `counters` are what their names say · `openapi` checks calls against Microsoft's description.
//!
//! Invariant: the same seed gives the same people with the same things; bytes of content are generated whenever they
//! are read, and memory holds only those that were created through the API and are not generated ones come back.

mod blob;
mod compare;
mod control;
mod counters;
mod delta;
mod evolve;
mod faults;
mod http;
mod ids;
mod json;
mod limits;
mod openapi;
mod options;
mod people;
mod pieces;
mod query;
mod quick_xor;
mod rng;
mod serve;
#[cfg(test)]
mod tests;
mod token;
mod words;
mod workloads;
mod world;

use std::net::SocketAddr;
use std::sync::Arc;

use holdfast_model::Clock;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use compare::{differences, differences_of};
pub use counters::CountersSnapshot;
pub use openapi::{OpenApi, OpenApiError, Violation};
pub use options::{FaultOptions, Population, SimApp, SimLimits, SimOptions};
pub use people::SimUser;
pub use workloads::mail::truth::{TruthAttachment, TruthMessage, TruthPerson};

use crate::workloads::Slice;
use crate::workloads::mail::truth;
use crate::world::World;

/// Why a simulator did not start or answer.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// The address is taken or wrong.
    #[error("listen on {address}")]
    Listen {
        /// What was asked for.
        address: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A message file was not readable.
    #[error("read {path}")]
    Read {
        /// The file or folder.
        path: std::path::PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The folder of messages is larger than the simulator is willing to hold.
    #[error("the message files hold more than {limit} bytes")]
    EmlTooLarge {
        /// The limit.
        limit: u64,
    },
    /// The OpenAPI description was not usable.
    #[error("load the openapi description")]
    OpenApi(#[from] OpenApiError),
    /// No workload by this name.
    #[error("no such workload: {workload}")]
    NoSuchWorkload {
        /// What was asked for.
        workload: String,
    },
    /// Nobody by this name.
    #[error("no such user: {user}")]
    NoSuchUser {
        /// Id or user principal name.
        user: String,
    },
}

/// The simulator; [`Sim::start`] is all it does.
pub struct Sim;

impl Sim {
    /// Starts a simulated tenant and listens.
    ///
    /// Mailboxes are made on first touch, so a start is quick whatever the population.
    pub async fn start(options: SimOptions, clock: Arc<dyn Clock>) -> Result<SimHandle, SimError> {
        let listener = tokio::net::TcpListener::bind(&options.listen)
            .await
            .map_err(|source| SimError::Listen { address: options.listen.clone(), source })?;
        let addr = listener
            .local_addr()
            .map_err(|source| SimError::Listen { address: options.listen.clone(), source })?;
        let world = tokio::task::spawn_blocking(move || World::new(options, clock))
            .await
            .expect("making a world does not panic")?;
        let world = Arc::new(world);
        tracing::info!(%addr, "the graph simulator listens");
        let cancel = CancellationToken::new();
        let server = tokio::spawn(serve::run(listener, Arc::clone(&world), cancel.clone()));
        Ok(SimHandle { addr, world, cancel, server })
    }
}

/// A running simulator; dropping it stops the server without waiting.
pub struct SimHandle {
    addr: SocketAddr,
    world: Arc<World>,
    cancel: CancellationToken,
    server: JoinHandle<()>,
}

impl SimHandle {
    /// Where it listens, as a URL: Graph root, login host and `/_control` all hang below it.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The people of the tenant, in order.
    pub fn users(&self) -> Vec<SimUser> {
        self.world.people.users().cloned().collect()
    }

    /// Everything a mailbox holds, by user id or principal name. Hashes every attachment: not for the hot path.
    pub async fn truth(&self, user: &str) -> Result<Vec<TruthMessage>, SimError> {
        let index = self.world.people.find(user).ok_or_else(|| SimError::NoSuchUser { user: user.into() })?;
        let world = Arc::clone(&self.world);
        Ok(tokio::task::spawn_blocking(move || truth::list(&world, index, &Slice::ALL))
            .await
            .expect("listing does not panic"))
    }

    /// Everything a person has in a workload (`contacts`, `todo`, `calendar`, `onedrive`), one record per item; compare two
    /// with [`differences_of`]. Hashes attachments and files: not for the hot path.
    pub async fn truth_of(&self, workload: &str, user: &str) -> Result<Vec<serde_json::Value>, SimError> {
        let index = self.world.people.find(user).ok_or_else(|| SimError::NoSuchUser { user: user.into() })?;
        let found = workloads::find(workload);
        let found = found.ok_or_else(|| SimError::NoSuchWorkload { workload: workload.into() })?;
        let world = Arc::clone(&self.world);
        Ok(tokio::task::spawn_blocking(move || found.truth(&world, index, &Slice::ALL))
            .await
            .expect("listing does not panic"))
    }

    /// What was counted since the start or the last reset.
    pub fn counters(&self) -> CountersSnapshot {
        self.world.counters.snapshot()
    }

    /// Stops listening, drops open connections after a short grace, and waits for the server to end.
    pub async fn shutdown(mut self) {
        self.cancel.cancel();
        if let Err(error) = (&mut self.server).await {
            tracing::warn!(%error, "the simulator's server ended badly");
        }
    }
}

impl Drop for SimHandle {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
