//! Containers that have no order among them: to-do lists, calendars. Found by well-known name or by name, made where they are
//! missing.

use std::collections::HashMap;

use super::{FolderMaker, KnownFolder, make_once};
use crate::{JobError, workload::snapshot_folders::SnapshotFolder};

/// The containers of the target.
pub struct TargetLists {
    /// What the names of all begin with that are restored into.
    into: Option<String>,
    by_well_known: HashMap<String, String>,
    /// By lower-case name; of several the first.
    by_name: HashMap<String, String>,
}

impl TargetLists {
    /// Those that are there. With `into` everything goes into containers of their own, `INTO / NAME`.
    pub fn new(known: impl IntoIterator<Item = KnownFolder>, into: &str) -> Self {
        let into = into.trim_matches('/').trim();
        let into = (!into.is_empty()).then(|| into.to_owned());
        let mut lists = Self { into, by_well_known: HashMap::new(), by_name: HashMap::new() };
        for list in known {
            if let Some(name) = &list.well_known {
                lists.by_well_known.insert(name.to_lowercase(), list.id.clone());
            }
            lists.by_name.entry(list.name.to_lowercase()).or_insert(list.id);
        }
        lists
    }

    /// The target's container for one of the snapshot, made where it is missing.
    pub async fn resolve(
        &mut self,
        list: &SnapshotFolder,
        maker: &dyn FolderMaker,
    ) -> Result<String, JobError> {
        let well_known = list.well_known.as_ref().filter(|_| self.into.is_none());
        if let Some(id) = well_known.and_then(|name| self.by_well_known.get(&name.to_lowercase())) {
            return Ok(id.clone());
        }
        let name = match &self.into {
            Some(into) => format!("{into} / {}", list.name),
            None => list.name.clone(),
        };
        let slot = name.to_lowercase();
        if let Some(id) = self.by_name.get(&slot) {
            return Ok(id.clone());
        }
        let id = make_once(maker, ("", &name), false).await?;
        self.by_name.insert(slot, id.clone());
        Ok(id)
    }
}
