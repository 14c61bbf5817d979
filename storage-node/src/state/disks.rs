//! Which disks the node had beside its data folder when it last started.

use std::path::PathBuf;

use super::*;

/// A row of the table of what the coordinator has installed, which has room for what else is kept once per node.
const DISKS: &str = "disks";

/// A disk of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownDisk {
    /// Its own random id.
    pub id: DataFolderId,
    /// Where it was.
    pub path: PathBuf,
    /// How much it may keep, which is its share of the partitions.
    pub capacity_bytes: u64,
}

impl State {
    /// The disks that the node had beside its data folder.
    pub fn disks(&self) -> Result<Vec<KnownDisk>, Error> {
        let read = self.database.begin_read().map_err(Error::database)?;
        let table = read.open_table(AUTHORITY).map_err(Error::database)?;
        let found = table.get(DISKS).map_err(Error::database)?;
        found.map_or(Ok(Vec::new()), |value| parse(value.value(), "list of disks"))
    }

    /// Remembers them.
    pub fn set_disks(&self, disks: &[KnownDisk]) -> Result<(), Error> {
        let json = to_json(&disks)?;
        self.commit(|write| {
            write.open_table(AUTHORITY)?.insert(DISKS, json.as_slice())?;
            Ok(())
        })
    }
}
