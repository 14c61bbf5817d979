//! What is damaged on one disk: ranges of its segments that cannot be served. The state keeps it, so that it outlives the disk's
//! index.
//!
//! Invariant: each disk has a table of its own. What its index was made with is compared with the damage of that disk, and
//! damage elsewhere makes no index be built anew.

use super::*;

/// The damage of the data folder's own segments, pin segments among them.
pub(super) const DAMAGED: Table<'static> = Table::new("damaged-1");

type Table<'a> = TableDefinition<'a, (&'static [u8; 16], u64), u64>;

/// The damaged ranges of one disk.
pub struct Damage {
    state: Arc<State>,
    table: String,
}

impl Damage {
    /// Of the disk that also holds the state.
    pub fn of_data(state: Arc<State>) -> Self {
        Self { state, table: DAMAGED.name().to_owned() }
    }

    /// Of another disk of the node.
    pub fn of_disk(state: Arc<State>, disk: DataFolderId) -> Result<Self, Error> {
        let damage = Self { state, table: format!("damaged-{}-1", hex::encode(disk.0)) };
        if !damage.state.has_tables([damage.table.as_str()])? {
            damage.state.commit(|write| write.open_table(damage.table()).map(drop).map_err(Into::into))?;
        }
        Ok(damage)
    }

    fn table(&self) -> Table<'_> {
        Table::new(&self.table)
    }

    /// Remembers ranges that cannot be served; says how many were not known.
    pub fn add(&self, ranges: &[DamagedRange]) -> Result<u64, Error> {
        if ranges.is_empty() {
            return Ok(0);
        }
        let before = self.n_ranges()?;
        self.state.commit(|write| {
            let mut table = write.open_table(self.table())?;
            for range in ranges {
                table.insert((&range.segment, range.offset), range.len)?;
            }
            Ok(())
        })?;
        Ok(self.n_ranges()?.saturating_sub(before))
    }

    /// Every range that cannot be served, in order.
    pub fn ranges(&self) -> Result<Vec<DamagedRange>, Error> {
        let read = self.state.database.begin_read().map_err(Error::database)?;
        let table = read.open_table(self.table()).map_err(Error::database)?;
        let rows = table.iter().map_err(Error::database)?;
        rows.map(|row| {
            let (key, len) = row.map_err(Error::database)?;
            let (segment, offset) = key.value();
            Ok(DamagedRange { segment: *segment, offset, len: len.value() })
        })
        .collect()
    }

    /// How many ranges cannot be served.
    pub fn n_ranges(&self) -> Result<u64, Error> {
        let read = self.state.database.begin_read().map_err(Error::database)?;
        read.open_table(self.table()).map_err(Error::database)?.len().map_err(Error::database)
    }
}
