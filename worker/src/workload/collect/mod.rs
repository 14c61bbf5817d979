//! Brings a manifest up to date with what Microsoft lists: the engine that is the same for every workload.
//!
//! A workload is a [`Source`]: it names its containers (mail folders, calendars, to-do lists, a drive), lists their items page
//! by page, judges whether a stored version still holds, and fetches content. The engine does the rest: it lists ahead
//! ([`lister`]), fetches with a bounded pool ([`fetches`]), keeps the account ([`ledger`]), retries what failed, removes what
//! is gone ([`reconcile`]), and writes job checkpoints ([`checkpoint`]). Where there is much to fetch, other workers help: the
//! run is the *parent* of shards ([`split`], [`merge`]), and a shard runs here too ([`shard`]).
//!
//! Two invariants: an item that is being fetched is settled before anything newer of it is looked at; and at a job checkpoint
//! nothing is in flight.

mod by_id;
mod checkpoint;
mod consider;
mod failed;
mod fetches;
mod ledger;
mod lister;
mod merge;
mod reconcile;
mod run;
mod shard;
mod shares;
mod source;
mod split;
mod state;

pub use failed::{ItemFailure, PARKED_AFTER};
pub(super) use ledger::id_hash;
pub use run::Collector;
pub(super) use shard::fetch_shard;
pub use shares::{DueShares, Shares};
pub use source::{Container, Content, FetchError, Found, Held, ItemChange, ItemPage, Judgement, Source};
pub use state::State;

/// Whether a job can go on from this body of a job checkpoint.
pub(super) fn can_resume(checkpoint: &[u8]) -> bool {
    checkpoint::Checkpoint::read(checkpoint).is_some()
}
