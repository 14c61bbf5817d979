//! What a person has in each workload, made on first touch.
//!
//! Invariant: a state's lock is never held across an await, and never two at once.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::workloads::ALL;
use crate::world::World;

/// What one workload keeps of one person.
pub(crate) trait UserState: Send + Sized + 'static {
    /// The state before anybody touched it, from the seed.
    fn populate(world: &World, user: u32) -> Self;
}

type Slots<S> = Vec<OnceLock<Mutex<S>>>;

/// The states of all workloads, by their type.
pub(crate) struct States {
    users: usize,
    by_type: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
}

impl States {
    pub(crate) fn new(users: usize) -> Self {
        let mut states = Self { users, by_type: HashMap::new() };
        for workload in ALL {
            workload.add_states(&mut states);
        }
        states
    }

    /// Makes room for a state per user.
    pub(crate) fn add<S: UserState>(&mut self) {
        let slots: Slots<S> = (0..self.users).map(|_| OnceLock::new()).collect();
        self.by_type.insert(TypeId::of::<S>(), Box::new(slots));
    }

    /// The state of a user.
    pub(crate) fn lock<'a, S: UserState>(&'a self, world: &World, user: u32) -> MutexGuard<'a, S> {
        let slots: &Slots<S> = self
            .by_type
            .get(&TypeId::of::<S>())
            .and_then(|slots| slots.downcast_ref())
            .expect("a workload adds its states when the world is made");
        slots[user as usize]
            .get_or_init(|| Mutex::new(S::populate(world, user)))
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
