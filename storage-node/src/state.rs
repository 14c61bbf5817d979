//! What must never be lost and is small: highest generation, epoch and layout seen, sessions, fences, pins, job
//! checkpoints, damaged ranges. A redb of its own, every commit durable and in two phases.
//!
//! Invariant: no number in here ever goes down, and a pin that was stored is never replaced, except a void one by the
//! committed pin of its sequence when pins are taken over.

mod damage;
mod disks;
pub(crate) mod file;
mod taken;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
};

use bytes::Bytes;
use holdfast_model::{
    DataFolderId, Epoch, Fence, Generation, Layout, LayoutVersion, Millis, PartitionId, PinHash, ResourceId,
    Sequence, SessionId, TenantId, Workload,
};
use redb::{
    Durability, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, TableDefinition,
    TableHandle as _, WriteTransaction,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Error,
    database::{OpenDatabase, guarded},
    disk::Disk,
    format::check_tables,
    segment::{DamagedRange, is_full},
};

use damage::DAMAGED;

pub use damage::Damage;
pub use disks::KnownDisk;
pub use taken::TakenSpace;

const SPACE_BYTES: usize = 33;
const AUTHORITY: TableDefinition<&str, &[u8]> = TableDefinition::new("authority-1");
const SESSIONS: TableDefinition<u64, &[u8]> = TableDefinition::new("sessions-1");
const FENCES: TableDefinition<&[u8; SPACE_BYTES], (u64, u64)> = TableDefinition::new("fences-1");
const PINS: TableDefinition<(&[u8; SPACE_BYTES], u64), &[u8]> = TableDefinition::new("pins-1");
const CHECKPOINTS: TableDefinition<&[u8; SPACE_BYTES], &[u8]> = TableDefinition::new("checkpoints-1");
const CHECKPOINT_BODIES: TableDefinition<&[u8; SPACE_BYTES], &[u8]> =
    TableDefinition::new("checkpoint-bodies-1");
const CHECKPOINT_ROOTS: TableDefinition<&[u8; SPACE_BYTES], &[u8]> =
    TableDefinition::new("checkpoint-roots-1");

/// Whose pins: one resource and workload of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PinSpace {
    /// The tenant.
    pub tenant: TenantId,
    /// The resource.
    pub resource: ResourceId,
    /// The workload.
    pub workload: Workload,
}

impl PinSpace {
    fn key(&self) -> [u8; SPACE_BYTES] {
        let mut key = [0; SPACE_BYTES];
        key[..16].copy_from_slice(&self.tenant.0);
        key[16..32].copy_from_slice(&self.resource.0);
        key[32] = self.workload.code();
        key
    }

    fn from_key(key: &[u8; SPACE_BYTES]) -> Option<Self> {
        Some(Self {
            tenant: TenantId::from_slice(&key[..16]).ok()?,
            resource: ResourceId::from_slice(&key[16..32]).ok()?,
            workload: Workload::from_code(key[32])?,
        })
    }
}

/// An open session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Whose.
    pub space: PinSpace,
    /// The attempt that opened it.
    pub fence: Fence,
    /// The pin it builds on: a root while the session is open.
    pub base: Option<PinHash>,
    /// The epoch it is in.
    pub epoch: Epoch,
    /// It lapses then, unless it is renewed.
    pub lease_end_ms: Millis,
}

/// What the coordinator has installed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Authority {
    /// The highest generation seen.
    pub generation: Generation,
    /// The highest epoch seen.
    pub epoch: Epoch,
    /// The newest layout.
    #[serde(with = "shared")]
    pub layout: Option<Arc<Layout>>,
}

/// What identifies the newest job checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CheckpointId {
    /// The attempt.
    pub fence: Fence,
    /// Grows within it.
    pub revision: u64,
    /// When it was last put.
    pub put_ms: Millis,
}

/// A job checkpoint to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which.
    pub id: CheckpointId,
    /// Sealed by the worker.
    pub body: Bytes,
}

/// The state of one node.
pub struct State {
    database: OpenDatabase,
    authority: RwLock<Authority>,
    fences: RwLock<BTreeMap<PinSpace, Fence>>,
    sessions: RwLock<BTreeMap<SessionId, Session>>,
    /// Serialises check-then-write; the database itself has one writer anyway.
    deciding: Mutex<()>,
    failure: OnceLock<StateFailure>,
    /// The newest move in which each partition was taken over.
    taken: RwLock<BTreeMap<PartitionId, LayoutVersion>>,
}

/// Why the state takes no more until it is opened again: after a failed write or sync nobody knows what the disk holds, and
/// the same pages are never synced a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateFailure {
    /// There was no room on the disk.
    NoRoom,
    /// The disk failed.
    Broken,
}

impl State {
    /// Opens the file, or the one that was just made. A damaged one is an error: nothing may be assumed about what it held.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self, Error> {
        let database = file::open(disk, path)?;
        check_tables(&database, path)?;
        // A file that was just made is lost in a power loss, with all that is synced in it, until its name is durable too.
        let folder = path.parent().unwrap_or(path);
        disk.sync_dir(folder).map_err(Error::io("sync", folder))?;
        // The process before this one may have ended over a failed sync.
        disk.write_again(path).map_err(Error::io("write", path))?;
        let state = Self {
            database: OpenDatabase::new(database, path),
            authority: RwLock::default(),
            fences: RwLock::default(),
            sessions: RwLock::default(),
            deciding: Mutex::default(),
            failure: OnceLock::new(),
            taken: RwLock::default(),
        };
        // Only then: a full disk takes no write, and what is there can be read all the same.
        if !state.has_its_tables()? {
            state.commit(|write| {
                write.open_table(AUTHORITY)?;
                write.open_table(SESSIONS)?;
                write.open_table(FENCES)?;
                write.open_table(PINS)?;
                write.open_table(CHECKPOINTS)?;
                write.open_table(CHECKPOINT_BODIES)?;
                write.open_table(CHECKPOINT_ROOTS)?;
                write.open_table(DAMAGED)?;
                Ok(())
            })?;
        }
        state.load()?;
        state.load_taken()?;
        Ok(state)
    }

    fn has_its_tables(&self) -> Result<bool, Error> {
        self.has_tables([
            AUTHORITY.name(),
            SESSIONS.name(),
            FENCES.name(),
            PINS.name(),
            CHECKPOINTS.name(),
            CHECKPOINT_BODIES.name(),
            CHECKPOINT_ROOTS.name(),
            DAMAGED.name(),
        ])
    }

    fn has_tables<const N: usize>(&self, wanted: [&str; N]) -> Result<bool, Error> {
        let read = self.database.begin_read().map_err(Error::database)?;
        let tables = read.list_tables().map_err(Error::database)?;
        let found: BTreeSet<String> = tables.map(|table| table.name().to_owned()).collect();
        Ok(wanted.into_iter().all(|name| found.contains(name)))
    }

    fn load(&self) -> Result<(), Error> {
        let read = self.database.begin_read().map_err(Error::database)?;
        let table = read.open_table(AUTHORITY).map_err(Error::database)?;
        if let Some(value) = table.get("authority").map_err(Error::database)? {
            *write_lock(&self.authority) = parse(value.value(), "authority")?;
        }
        for row in read.open_table(FENCES).map_err(Error::database)?.iter().map_err(Error::database)? {
            let (key, value) = row.map_err(Error::database)?;
            let space = PinSpace::from_key(key.value()).ok_or(Error::DamagedState("fence"))?;
            let (generation, attempt) = value.value();
            let fence = Fence { generation: Generation(generation), attempt };
            write_lock(&self.fences).insert(space, fence);
        }
        for row in read.open_table(SESSIONS).map_err(Error::database)?.iter().map_err(Error::database)? {
            let (id, value) = row.map_err(Error::database)?;
            write_lock(&self.sessions).insert(SessionId(id.value()), parse(value.value(), "session")?);
        }
        Ok(())
    }

    /// Runs a check and the writes that depend on it without another decision in between.
    pub fn deciding<T>(&self, decide: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let _guard = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        decide()
    }

    fn commit(&self, change: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>) -> Result<(), Error> {
        let damaged = || redb::Error::Corrupted("its pages cannot be read".to_owned());
        guarded(|| self.try_commit(change)).unwrap_or_else(|| Err(damaged())).map_err(|error| {
            let failure = match &error {
                redb::Error::Io(source) if is_full(source) => Some(StateFailure::NoRoom),
                redb::Error::Io(_) | redb::Error::PreviousIo | redb::Error::Corrupted(_) => {
                    Some(StateFailure::Broken)
                }
                _ => None,
            };
            // The first counts: what follows only says that there was one.
            failure.map(|failure| *self.failure.get_or_init(|| failure));
            Error::database(error)
        })
    }

    fn try_commit(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), redb::Error> {
        let mut write = self.database.begin_write()?;
        write.set_durability(Durability::Immediate)?;
        write.set_two_phase_commit(true);
        change(&write)?;
        Ok(write.commit()?)
    }

    /// Why it takes no more, if so.
    pub fn failure(&self) -> Option<StateFailure> {
        self.failure.get().copied()
    }

    // === Authority ===

    /// What the coordinator has installed.
    pub fn authority(&self) -> Authority {
        read_lock(&self.authority).clone()
    }

    /// The newest layout.
    pub fn layout(&self) -> Option<Arc<Layout>> {
        read_lock(&self.authority).layout.clone()
    }

    /// The node's epoch.
    pub fn epoch(&self) -> Epoch {
        read_lock(&self.authority).epoch
    }

    /// Installs what the coordinator says; the caller has checked that no number goes down.
    pub fn set_authority(&self, authority: Authority) -> Result<(), Error> {
        let json = to_json(&authority)?;
        self.commit(|write| {
            write.open_table(AUTHORITY)?.insert("authority", json.as_slice())?;
            Ok(())
        })?;
        *write_lock(&self.authority) = authority;
        Ok(())
    }

    // === Fences ===

    /// The highest fence seen.
    pub fn highest_fence(&self, space: &PinSpace) -> Fence {
        read_lock(&self.fences).get(space).copied().unwrap_or_default()
    }

    /// Raises the fence if it is higher; durable when this returns.
    pub fn raise_fence(&self, space: &PinSpace, fence: Fence) -> Result<Fence, Error> {
        let highest = self.highest_fence(space);
        if fence <= highest {
            return Ok(highest);
        }
        self.commit(|write| put_fence(write, space, fence))?;
        self.saw_fence(space, fence);
        Ok(fence)
    }

    fn saw_fence(&self, space: &PinSpace, fence: Fence) {
        let mut fences = write_lock(&self.fences);
        let highest = fences.entry(*space).or_default();
        *highest = fence.max(*highest);
    }

    // === Sessions ===

    /// An open session.
    pub fn session(&self, id: SessionId) -> Option<Session> {
        read_lock(&self.sessions).get(&id).cloned()
    }

    /// How many sessions there are.
    pub fn n_sessions(&self) -> usize {
        read_lock(&self.sessions).len()
    }

    /// Sessions whose lease has ended.
    pub fn lapsed_sessions(&self, now_ms: Millis) -> Vec<SessionId> {
        let sessions = read_lock(&self.sessions);
        sessions.iter().filter(|(_, one)| one.lease_end_ms <= now_ms).map(|(id, _)| *id).collect()
    }

    /// Stores a session and the fence that came with it.
    pub fn put_session(&self, id: SessionId, session: Session) -> Result<(), Error> {
        let json = to_json(&session)?;
        let raises = session.fence > self.highest_fence(&session.space);
        self.commit(|write| {
            write.open_table(SESSIONS)?.insert(id.0, json.as_slice())?;
            if raises { put_fence(write, &session.space, session.fence) } else { Ok(()) }
        })?;
        self.saw_fence(&session.space, session.fence);
        write_lock(&self.sessions).insert(id, session);
        Ok(())
    }

    /// Ends sessions.
    pub fn remove_sessions(&self, ids: &[SessionId]) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        self.commit(|write| {
            let mut table = write.open_table(SESSIONS)?;
            for id in ids {
                table.remove(id.0)?;
            }
            Ok(())
        })?;
        let mut sessions = write_lock(&self.sessions);
        for id in ids {
            sessions.remove(id);
        }
        Ok(())
    }

    // === Pins ===

    /// The pin at a sequence.
    pub fn pin(&self, space: &PinSpace, sequence: Sequence) -> Result<Option<Bytes>, Error> {
        let read = self.database.begin_read().map_err(Error::database)?;
        let table = read.open_table(PINS).map_err(Error::database)?;
        let found = table.get((&space.key(), sequence.0)).map_err(Error::database)?;
        Ok(found.map(|value| Bytes::copy_from_slice(value.value())))
    }

    /// Stores a pin and its fence together.
    pub fn put_pin(
        &self,
        space: &PinSpace,
        sequence: Sequence,
        fence: Fence,
        pin: &[u8],
    ) -> Result<(), Error> {
        self.commit(|write| {
            write.open_table(PINS)?.insert((&space.key(), sequence.0), pin)?;
            put_fence(write, space, fence)
        })?;
        self.saw_fence(space, fence);
        Ok(())
    }

    /// Stores pins that were found elsewhere, with their fences.
    pub fn put_pins(&self, pins: &[(PinSpace, Sequence, Fence, Bytes)]) -> Result<(), Error> {
        self.commit(|write| {
            let mut table = write.open_table(PINS)?;
            for (space, sequence, fence, pin) in pins {
                table.insert((&space.key(), sequence.0), &pin[..])?;
                put_fence(write, space, *fence)?;
            }
            Ok(())
        })?;
        pins.iter().for_each(|(space, _, fence, _)| self.saw_fence(space, *fence));
        Ok(())
    }

    /// Goes through all pins.
    pub fn each_pin(
        &self,
        mut visit: impl FnMut(PinSpace, Sequence, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let read = self.database.begin_read().map_err(Error::database)?;
        let table = read.open_table(PINS).map_err(Error::database)?;
        for row in table.iter().map_err(Error::database)? {
            let (key, pin) = row.map_err(Error::database)?;
            let (space, sequence) = key.value();
            let space = PinSpace::from_key(space).ok_or(Error::DamagedState("pin"))?;
            visit(space, Sequence(sequence), pin.value())?;
        }
        Ok(())
    }

    /// The newest pins of a space, oldest first; `0` for all.
    pub fn pins(&self, space: &PinSpace, newest: usize) -> Result<Vec<(Sequence, Bytes)>, Error> {
        let read = self.database.begin_read().map_err(Error::database)?;
        let table = read.open_table(PINS).map_err(Error::database)?;
        let key = space.key();
        let rows = table.range((&key, 0)..=(&key, u64::MAX)).map_err(Error::database)?;
        let limit = if newest == 0 { usize::MAX } else { newest };
        let mut pins = Vec::new();
        for row in rows.rev().take(limit) {
            let (key, value) = row.map_err(Error::database)?;
            pins.push((Sequence(key.value().1), Bytes::copy_from_slice(value.value())));
        }
        pins.reverse();
        Ok(pins)
    }

    /// How many pins there are.
    pub fn n_pins(&self) -> Result<u64, Error> {
        let read = self.database.begin_read().map_err(Error::database)?;
        read.open_table(PINS).map_err(Error::database)?.len().map_err(Error::database)
    }

    // === Job checkpoints ===

    /// Which job checkpoint is the newest.
    pub fn checkpoint_id(&self, space: &PinSpace) -> Result<Option<CheckpointId>, Error> {
        let read = self.database.begin_read().map_err(Error::database)?;
        let table = read.open_table(CHECKPOINTS).map_err(Error::database)?;
        let found = table.get(&space.key()).map_err(Error::database)?;
        found.map(|value| parse(value.value(), "job checkpoint")).transpose()
    }

    /// The newest job checkpoint.
    pub fn checkpoint(&self, space: &PinSpace) -> Result<Option<Checkpoint>, Error> {
        let read = self.database.begin_read().map_err(Error::database)?;
        let ids = read.open_table(CHECKPOINTS).map_err(Error::database)?;
        let Some(id) = ids.get(&space.key()).map_err(Error::database)? else { return Ok(None) };
        let bodies = read.open_table(CHECKPOINT_BODIES).map_err(Error::database)?;
        let body = bodies.get(&space.key()).map_err(Error::database)?;
        let body = body.ok_or(Error::DamagedState("job checkpoint"))?;
        let id = parse(id.value(), "job checkpoint")?;
        Ok(Some(Checkpoint { id, body: Bytes::copy_from_slice(body.value()) }))
    }

    /// Stores a job checkpoint with its roots and rolls the session into an epoch.
    pub fn put_checkpoint(
        &self,
        checkpoint: &Checkpoint,
        roots: &[u8],
        rolled: (SessionId, Session),
    ) -> Result<(), Error> {
        let (session_id, session) = rolled;
        let (space, fence) = (session.space, checkpoint.id.fence);
        let (id_json, session_json) = (to_json(&checkpoint.id)?, to_json(&session)?);
        let raises = fence > self.highest_fence(&space);
        self.commit(|write| {
            let key = space.key();
            write.open_table(CHECKPOINTS)?.insert(&key, id_json.as_slice())?;
            write.open_table(CHECKPOINT_BODIES)?.insert(&key, &checkpoint.body[..])?;
            write.open_table(CHECKPOINT_ROOTS)?.insert(&key, roots)?;
            write.open_table(SESSIONS)?.insert(session_id.0, session_json.as_slice())?;
            if raises { put_fence(write, &space, fence) } else { Ok(()) }
        })?;
        self.saw_fence(&space, fence);
        write_lock(&self.sessions).insert(session_id, session);
        Ok(())
    }
}

/// Never lowers: the caller's fence may be one that was seen already.
fn put_fence(write: &WriteTransaction, space: &PinSpace, fence: Fence) -> Result<(), redb::Error> {
    let mut table = write.open_table(FENCES)?;
    let key = space.key();
    let seen = table.get(&key)?.map(|value| value.value());
    let offered = (fence.generation.0, fence.attempt);
    if seen.is_none_or(|seen| seen < offered) {
        table.insert(&key, offered)?;
    }
    Ok(())
}

fn parse<T: DeserializeOwned>(json: &[u8], what: &'static str) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(|_| Error::DamagedState(what))
}

fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|_| Error::DamagedState("value to store"))
}

fn read_lock<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write_lock<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// A shared layout is stored like a layout.
mod shared {
    use std::sync::Arc;

    use holdfast_model::Layout;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub fn serialize<S: Serializer>(layout: &Option<Arc<Layout>>, serializer: S) -> Result<S::Ok, S::Error> {
        layout.as_deref().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<Layout>>, D::Error> {
        Ok(Option::<Layout>::deserialize(deserializer)?.map(Arc::new))
    }
}
