//! What was taken over from the owners that pin partitions had before.
//!
//! Invariant: a partition is noted as taken over after everything of it is durable here, never before.

use std::ops::Bound;

use super::*;

const TAKEN: &str = "taken-over/";

/// What is stored of a space in one commit.
#[derive(Debug, Clone, Default)]
pub struct TakenSpace {
    /// The highest fence that its owners before had seen.
    pub fence: Fence,
    /// Pins to be here.
    pub pins: Vec<(Sequence, Bytes)>,
    /// The newest job checkpoint, with its roots.
    pub checkpoint: Option<(Checkpoint, Bytes)>,
    /// Open sessions.
    pub sessions: Vec<(SessionId, Session)>,
}

impl State {
    pub(super) fn load_taken(&self) -> Result<(), Error> {
        let read = self.database.begin_read().map_err(Error::database)?;
        let table = read.open_table(AUTHORITY).map_err(Error::database)?;
        for row in table.range(TAKEN..).map_err(Error::database)? {
            let (key, value) = row.map_err(Error::database)?;
            let Some(partition) = key.value().strip_prefix(TAKEN) else { break };
            let partition = partition.parse().map_err(|_| Error::DamagedState("partition taken over"))?;
            let version = parse(value.value(), "partition taken over")?;
            write_lock(&self.taken).insert(PartitionId(partition), version);
        }
        Ok(())
    }

    /// The newest move in which a partition was taken over.
    pub fn taken_over(&self, partition: PartitionId) -> LayoutVersion {
        read_lock(&self.taken).get(&partition).copied().unwrap_or(LayoutVersion(0))
    }

    /// Notes that everything of these partitions is here.
    pub fn set_taken_over(&self, partitions: &[PartitionId], moved_in: LayoutVersion) -> Result<(), Error> {
        let version = to_json(&moved_in)?;
        self.commit(|write| {
            let mut table = write.open_table(AUTHORITY)?;
            for partition in partitions {
                table.insert(format!("{TAKEN}{:04}", partition.0).as_str(), version.as_slice())?;
            }
            Ok(())
        })?;
        write_lock(&self.taken).extend(partitions.iter().map(|one| (*one, moved_in)));
        Ok(())
    }

    /// The spaces of partitions from one on, in order; at most so many.
    pub fn spaces_of(
        &self,
        partitions: &BTreeSet<PartitionId>,
        from: Option<PinSpace>,
        at_most: usize,
    ) -> Vec<PinSpace> {
        let fences = read_lock(&self.fences);
        let is_of =
            |space: &&PinSpace| partitions.contains(&PartitionId::of_pins(space.tenant, space.resource));
        let start = from.map_or(Bound::Unbounded, Bound::Included);
        let spaces = fences.range((start, Bound::Unbounded)).map(|(space, _)| space);
        spaces.filter(is_of).take(at_most).copied().collect()
    }

    /// The pins of a space behind a sequence, oldest first; at most so many.
    pub fn pins_behind(
        &self,
        space: &PinSpace,
        behind: Option<Sequence>,
        at_most: usize,
    ) -> Result<Vec<(Sequence, Bytes)>, Error> {
        let key = space.key();
        let start = match behind {
            Some(Sequence(last)) => Bound::Excluded((&key, last)),
            None => Bound::Included((&key, 0)),
        };
        let read = self.database.begin_read().map_err(Error::database)?;
        let table = read.open_table(PINS).map_err(Error::database)?;
        let rows = table.range((start, Bound::Included((&key, u64::MAX)))).map_err(Error::database)?;
        let pins = rows.take(at_most).map(|row| {
            let (key, pin) = row.map_err(Error::database)?;
            Ok((Sequence(key.value().1), Bytes::copy_from_slice(pin.value())))
        });
        pins.collect()
    }

    /// The sessions of a space.
    pub fn sessions_of(&self, space: &PinSpace) -> Vec<(SessionId, Session)> {
        let sessions = read_lock(&self.sessions);
        let of_space = sessions.iter().filter(|(_, session)| session.space == *space);
        of_space.map(|(id, session)| (*id, session.clone())).collect()
    }

    /// The roots of the newest job checkpoint, as they were stored.
    pub fn checkpoint_roots(&self, space: &PinSpace) -> Result<Bytes, Error> {
        let read = self.database.begin_read().map_err(Error::database)?;
        let table = read.open_table(CHECKPOINT_ROOTS).map_err(Error::database)?;
        let found = table.get(&space.key()).map_err(Error::database)?;
        Ok(found.map(|value| Bytes::copy_from_slice(value.value())).unwrap_or_default())
    }

    /// Stores what was decided about spaces, all at once. A void pin gives way to the one that takes its sequence.
    pub fn take_over(&self, spaces: &[(PinSpace, TakenSpace)]) -> Result<(), Error> {
        let encoded = spaces.iter().map(|(_, taken)| {
            let id = taken.checkpoint.as_ref().map(|(checkpoint, _)| to_json(&checkpoint.id)).transpose()?;
            let sessions = taken.sessions.iter().map(|(id, session)| Ok((id.0, to_json(session)?)));
            Ok((id, sessions.collect::<Result<Vec<_>, Error>>()?))
        });
        let encoded = encoded.collect::<Result<Vec<_>, Error>>()?;
        self.commit(|write| {
            for ((space, taken), (id, sessions)) in spaces.iter().zip(&encoded) {
                put_taken(write, space, taken, id.as_deref())?;
                let mut table = write.open_table(SESSIONS)?;
                for (id, session) in sessions {
                    table.insert(*id, session.as_slice())?;
                }
            }
            Ok(())
        })?;
        for (space, taken) in spaces {
            self.saw_fence(space, taken.fence);
            write_lock(&self.sessions).extend(taken.sessions.iter().cloned());
        }
        Ok(())
    }
}

fn put_taken(
    write: &WriteTransaction,
    space: &PinSpace,
    taken: &TakenSpace,
    checkpoint_id: Option<&[u8]>,
) -> Result<(), redb::Error> {
    let key = space.key();
    let mut pins = write.open_table(PINS)?;
    for (sequence, pin) in &taken.pins {
        pins.insert((&key, sequence.0), &pin[..])?;
    }
    if let (Some((checkpoint, roots)), Some(id)) = (&taken.checkpoint, checkpoint_id) {
        write.open_table(CHECKPOINTS)?.insert(&key, id)?;
        write.open_table(CHECKPOINT_BODIES)?.insert(&key, &checkpoint.body[..])?;
        write.open_table(CHECKPOINT_ROOTS)?.insert(&key, &roots[..])?;
    }
    put_fence(write, space, taken.fence)
}

impl PinSpace {
    /// Tenant, resource and code of the workload.
    pub(crate) fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.key())
    }

    /// The opposite; none when it is no space.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::from_key(bytes.try_into().ok()?)
    }
}
