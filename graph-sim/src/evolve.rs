//! Makes time pass in the tenant, one workload at a time.

use serde::{Deserialize, Serialize};

use crate::rng::Rng;
use crate::workloads::{self, Changes};
use crate::world::World;

/// How much happens, over all chosen people together.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Evolution {
    pub seed: u64,
    pub new: u64,
    pub edited: u64,
    pub moved: u64,
    pub deleted: u64,
    pub flags: u64,
    pub restored: u64,
    /// Ids or principal names; empty = everybody.
    pub users: Vec<String>,
    /// Whose items change; none = mail.
    pub workload: Option<String>,
}

/// What did happen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Evolved {
    #[serde(flatten)]
    pub changes: Changes,
    pub users: u64,
}

/// Nobody, or nothing, by this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    User(String),
    Workload(String),
}

impl Evolution {
    /// What falls to the person at a place among so many.
    fn share(&self, at: u64, people: u64) -> Changes {
        let part = |total: u64| total / people + u64::from(at < total % people);
        Changes {
            new: part(self.new),
            edited: part(self.edited),
            moved: part(self.moved),
            deleted: part(self.deleted),
            flags: part(self.flags),
            restored: part(self.restored),
        }
    }
}

/// Lets it happen.
pub(crate) fn evolve(world: &World, evolution: &Evolution) -> Result<Evolved, Unknown> {
    let name = evolution.workload.as_deref().unwrap_or(workloads::DEFAULT);
    let workload = workloads::find(name).ok_or_else(|| Unknown::Workload(name.into()))?;
    let mut users = Vec::new();
    for name in &evolution.users {
        users.push(world.people.find(name).ok_or_else(|| Unknown::User(name.clone()))?);
    }
    if evolution.users.is_empty() {
        users = (0..world.people.len() as u32).collect();
    }
    let mut done = Evolved { users: users.len() as u64, ..Evolved::default() };
    for (at, user) in users.iter().enumerate() {
        let mut rng = Rng::new(&[evolution.seed, 0x6576_6f6c, u64::from(*user)]);
        let wanted = evolution.share(at as u64, users.len() as u64);
        done.changes.add(&workload.evolve(world, *user, &wanted, &mut rng));
    }
    Ok(done)
}
