//! Which names are allowed, and what happens when one is taken.

use serde_json::Value;

use crate::http::{Call, Refusal, refuse};
use crate::workloads::drive::store::DriveStore;

const FORBIDDEN: [char; 9] = ['"', '*', ':', '<', '>', '?', '/', '\\', '|'];
const RESERVED: [&str; 8] = [".lock", "con", "prn", "aux", "nul", "desktop.ini", "com0", "lpt0"];
const MAX_NAME: usize = 255;
/// From the root of the drive to the name, both included.
const MAX_PATH: usize = 400;
pub(crate) const CONFLICT_BEHAVIOR: &str = "@microsoft.graph.conflictBehavior";

/// What happens when a name is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conflict {
    Fail,
    Replace,
    Rename,
}

impl Conflict {
    /// From a property or a query option; `otherwise` when neither says.
    pub(crate) fn of(call: &Call, body: &Value, otherwise: Self) -> Result<Self, Refusal> {
        let given = body[CONFLICT_BEHAVIOR].as_str().or_else(|| call.query.get(CONFLICT_BEHAVIOR));
        match given.map(str::to_ascii_lowercase).as_deref() {
            None => Ok(otherwise),
            Some("fail") => Ok(Self::Fail),
            Some("replace") => Ok(Self::Replace),
            Some("rename") => Ok(Self::Rename),
            Some(_) => Err(refuse(400, "invalidRequest", "The conflict behavior is not known.")),
        }
    }
}

pub(crate) fn taken() -> Refusal {
    refuse(409, "nameAlreadyExists", "An item with the same name already exists under the parent.")
}

/// Refuses a name that SharePoint does not take in this folder.
pub(crate) fn check(store: &DriveStore, folder: u32, name: &str) -> Result<(), Refusal> {
    let lower = name.to_lowercase();
    let is_wrong = name.is_empty()
        || name.chars().any(|c| FORBIDDEN.contains(&c) || c.is_control())
        || name.trim() != name
        || name.starts_with("~$")
        || name.ends_with('.')
        || lower.contains("_vti_")
        || RESERVED.contains(&lower.as_str())
        || name.chars().count() > MAX_NAME;
    if is_wrong {
        return Err(refuse(400, "invalidRequest", "The provided name is not valid."));
    }
    if store.path(folder).chars().count() + 1 + name.chars().count() > MAX_PATH {
        return Err(refuse(400, "pathIsTooLong", "The path is too long."));
    }
    Ok(())
}

/// A name like this one that is free: `a 1.txt` for `a.txt`.
pub(crate) fn free(store: &mut DriveStore, folder: u32, name: &str) -> String {
    let (stem, extension) = match name.rfind('.') {
        Some(at) if at > 0 => name.split_at(at),
        _ => (name, ""),
    };
    let candidates = (1_u32..).map(|number| format!("{stem} {number}{extension}"));
    let mut free = candidates.filter(|candidate| store.child(folder, candidate).is_none());
    free.next().expect("there are more numbers than items")
}
