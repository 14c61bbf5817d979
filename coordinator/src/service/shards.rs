//! The shards of a backup on the wire.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use holdfast_proto::{
    convert::{WireError, id},
    coordinator as wire,
};

use crate::{
    error::Error,
    job::sync_shards::{ShardStanding, ShardState, WantedShard},
};

/// What a worker wants.
pub(super) fn wanted(shards: Vec<wire::Shard>) -> Result<Vec<WantedShard>, WireError> {
    shards
        .into_iter()
        .map(|shard| Ok(WantedShard { id: id("wanted.id", &shard.id)?, input: shard.input.to_vec() }))
        .collect()
}

/// What it hears.
pub(super) fn answer(states: Vec<ShardState>) -> wire::SyncShardsResponse {
    wire::SyncShardsResponse { shards: states.into_iter().map(state).collect() }
}

fn state(state: ShardState) -> wire::ShardState {
    let (standing, result) = match state.standing {
        ShardStanding::Queued => (wire::ShardStanding::Queued, Vec::new()),
        ShardStanding::Running => (wire::ShardStanding::Running, Vec::new()),
        ShardStanding::Done { result } => (wire::ShardStanding::Done, result),
        ShardStanding::Failed => (wire::ShardStanding::Failed, Vec::new()),
    };
    wire::ShardState {
        id: state.id.0.to_vec().into(),
        standing: standing.into(),
        progress: Some(state.progress.into()),
        result: result.into(),
    }
}

/// What a shard's lease says.
pub(super) fn spec(input: &str) -> Result<wire::ShardSpec, Error> {
    let input = STANDARD.decode(input).map_err(|_| Error::CatalogDamaged { column: "spec" })?;
    Ok(wire::ShardSpec { input: input.into() })
}
