//! Writes what was selected of a snapshot back to Microsoft: the engine that is the same for every workload.
//!
//! A workload is a [`Target`]: it finds or makes the place that a folder's items go to, tells what is in that place, creates
//! one item and completes it. The engine does the rest: it walks the selection, leaves what an earlier attempt created, skips or
//! replaces what is there already, and keeps the account.
//!
//! Two invariants: before anything is created in a place, what this restore created there before is known by its restore key;
//! and a create whose outcome is unknown is looked up by that key before it is repeated.

mod attachments;
mod copied;
mod existing;
mod flat;
mod folders;
mod restore_key;
mod run;
mod target;

pub use attachments::{AttachTo, Attachment, SESSION_FROM_BYTES, attach_all};
pub use copied::copied;
pub use flat::TargetLists;
pub use folders::{FolderMaker, KnownFolder, TargetFolders, make_once};
pub use restore_key::{RESTORE_KEY_PROPERTY, restore_key, restore_key_property, restore_prefix};
pub use run::WriteBack;
pub(super) use run::{Written, count, create_once, occupants};
pub use target::{ContainerLoss, Created, ItemToWrite, Occupant, Place, Target};

/// How often a create of unknown outcome is repeated.
pub(super) const CREATE_ATTEMPTS: u32 = 4;
