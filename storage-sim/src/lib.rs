//! Deterministic simulation of the storage node's core and the storage client.
//!
//! A world is made from one seed: nodes in sites with simulated disks, a network, writers that are real storage client
//! sessions, a coordinator's authority, in some worlds an operator who changes owners, at any time or at the worst, and
//! everything that goes wrong. It runs on one thread in simulated time, so that a seed is a whole run. What a run must show is
//! in [`oracle`]; defects that it must find are in [`planted`].
//!
//! The real code under test: `storage-client` whole; `storage-node` without `server` (TCP, TLS, the admin port); the
//! encoding of every message. Not under test: HTTP/2 and its flow control, TLS, threads.

mod authority;
mod chaos;
mod clock;
mod content;
mod disk;
mod event_log;
mod moves;
mod net;
mod node;
mod oracle;
mod panics;
mod planted;
mod random;
mod run;
mod shape;
mod supervisor;
mod world;
mod writer;

pub use event_log::Trace;
pub use oracle::Violation;
pub use planted::Planted;
pub use random::SimRandom;
pub use run::{Options, Outcome, run};
