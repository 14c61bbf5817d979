//! SyncShards: the shards of a running backup become those that its worker wants, and it hears how they stand.
//!
//! Level-triggered: the worker names all it wants every time, so that a lost answer, a repeated call and an attempt that went
//! on from a job checkpoint all end in the same rows. Shards stay while their parent waits for another attempt; they end with
//! its last one (see [`job::delete_shards`]).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use holdfast_model::{Account, JobId, JobKind, JobState};

use crate::{
    catalog::{
        Catalog, Tx, job,
        job::{JobRow, NewJob},
    },
    error::Error,
    job::{attempt::Attempt, spec::JobSpec, state::Command},
};

/// Shards that one job may have at a time: several times what a worker asks for.
pub const SHARDS_PER_JOB_MAX: usize = 256;
/// What a worker may write for a shard: sealed roots of a tree, which are below 200 bytes.
pub const SHARD_INPUT_BYTES_MAX: usize = 1 << 10;
/// Results in one answer, together; at least one is in it. The rest comes with later ones.
const ANSWERED_RESULT_BYTES_MAX: usize = 8 << 20;

/// A shard that a worker wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedShard {
    /// Its name, made by the worker at random.
    pub id: JobId,
    /// What it is to do.
    pub input: Vec<u8>,
}

/// How far a shard is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardStanding {
    /// Nobody has it.
    Queued,
    /// A worker has it, or its result did not fit into this answer.
    Running,
    /// It is done.
    Done {
        /// What it hands to its parent.
        result: Vec<u8>,
    },
    /// It was given up.
    Failed,
}

/// How a shard stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardState {
    /// Which one.
    pub id: JobId,
    /// How far it is.
    pub standing: ShardStanding,
    /// What became of its items so far.
    pub progress: Account,
}

/// Makes the shards of a job those that are wanted; says how these stand.
pub async fn sync_shards(
    catalog: &Catalog,
    attempt: &Attempt,
    wanted: &[WantedShard],
) -> Result<Vec<ShardState>, Error> {
    check_limits(wanted)?;
    crate::catalog::write!(catalog, tx => {
        let parent = attempt.load(&mut tx, &[JobState::Running]).await?;
        if parent.kind == JobKind::Backup {
            let rows = make_it_so(&mut tx, &parent, wanted).await?;
            Ok(answer(rows))
        } else {
            Err(Error::Transition { job: parent.id, state: parent.state, command: Command::Split })
        }
    })
}

fn check_limits(wanted: &[WantedShard]) -> Result<(), Error> {
    let invalid = |field, value: usize, problem: String| {
        Err(Error::Invalid { field, value: value.to_string(), problem })
    };
    if wanted.len() > SHARDS_PER_JOB_MAX {
        let problem = format!("a job has at most {SHARDS_PER_JOB_MAX} shards");
        return invalid("shards", wanted.len(), problem);
    }
    match wanted.iter().map(|shard| shard.input.len()).max() {
        Some(longest) if longest > SHARD_INPUT_BYTES_MAX => {
            let problem = format!("the input of a shard has at most {SHARD_INPUT_BYTES_MAX} bytes");
            invalid("input", longest, problem)
        }
        _ => Ok(()),
    }
}

/// Deletes and inserts; the wanted rows, in the order in which they were named.
async fn make_it_so(tx: &mut Tx, parent: &JobRow, wanted: &[WantedShard]) -> Result<Vec<JobRow>, Error> {
    let mut there = job::load_shards(tx, parent.id).await?;
    for shard in there.iter().filter(|shard| wanted.iter().all(|wanted| wanted.id != shard.id)) {
        tracing::info!(shard = %shard.id, state = %shard.state, "a shard is not wanted any more");
        job::delete_shard(tx, shard.id).await?;
    }
    let mut rows = Vec::with_capacity(wanted.len());
    for shard in wanted {
        let row = match there.iter().position(|row| row.id == shard.id) {
            Some(index) => there.swap_remove(index),
            None => insert(tx, parent, shard).await?,
        };
        rows.push(row);
    }
    Ok(rows)
}

async fn insert(tx: &mut Tx, parent: &JobRow, shard: &WantedShard) -> Result<JobRow, Error> {
    if job::find(tx, shard.id).await?.is_some() {
        let problem = "another job has this id, or it is named twice".to_owned();
        return Err(Error::Invalid { field: "shard", value: shard.id.to_string(), problem });
    }
    let new = NewJob {
        tenant: parent.tenant,
        resource: parent.resource,
        workload: parent.workload,
        kind: JobKind::BackupShard,
        class: parent.class,
        spec: JobSpec::Shard { parent: parent.id, input: STANDARD.encode(&shard.input) },
        snapshot: String::new(),
        parent: Some(parent.id),
    };
    job::insert(tx, shard.id, parent.run, &new).await?;
    job::load(tx, shard.id).await
}

fn answer(rows: Vec<JobRow>) -> Vec<ShardState> {
    let mut room = ANSWERED_RESULT_BYTES_MAX;
    let mut standing = |row: &mut JobRow| match row.state {
        JobState::Queued => ShardStanding::Queued,
        JobState::Parked => ShardStanding::Failed,
        JobState::Done if row.result.len() <= room => {
            room -= row.result.len();
            ShardStanding::Done { result: std::mem::take(&mut row.result) }
        }
        JobState::Running | JobState::Committing | JobState::Done => ShardStanding::Running,
    };
    rows.into_iter()
        .map(|mut row| ShardState { id: row.id, standing: standing(&mut row), progress: row.account })
        .collect()
}
