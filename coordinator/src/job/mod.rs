//! What happens to a job: the transition table, and one file per command.
//!
//! The race to know: a worker that lost its lease still believes in it. Every command of a worker therefore carries its
//! fence, and is refused unless the row has the same fence, a state that allows it, and the caller's certificate.

pub mod attempt;
pub mod claim;
pub mod expire;
pub mod finish;
pub mod heartbeat;
pub mod prepare_commit;
pub mod record_commit;
pub mod release;
pub mod spec;
pub mod state;
pub mod sync_shards;
