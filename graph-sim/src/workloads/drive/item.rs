//! What a drive's items are made of.
//!
//! Invariant: an item that nobody touched costs little: its name is a number, its content a recipe, and what few items
//! have hangs apart.

use bytes::Bytes;

use crate::blob::{Data, Hash, Synthetic};
use crate::workloads::drive::generate;

/// When the client says it was made and changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    pub created_ms: u64,
    pub modified_ms: u64,
}

/// Who wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Owner,
    /// An app that came through the API.
    App,
}

/// A name, as short as it can be kept.
#[derive(Clone, Debug)]
pub(crate) enum Name {
    /// Of a generated file, by its number.
    File(u32),
    /// Of a generated folder, by its number.
    Folder(u32),
    Own(Box<str>),
}

impl Name {
    pub(crate) fn own(name: &str) -> Self {
        Self::Own(name.into())
    }

    pub(crate) fn text(&self, seed: u64) -> String {
        match self {
            Self::File(index) => generate::file_name(seed, *index),
            Self::Folder(index) => generate::folder_name(seed, *index),
            Self::Own(name) => name.to_string(),
        }
    }
}

/// Bytes of a file.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Recipe(Synthetic),
    Kept(Box<(Hash, Bytes)>),
}

impl Content {
    pub(crate) fn of(data: Data) -> Self {
        match data {
            Data::Generated(recipe) => Self::Recipe(recipe),
            Data::Kept { hash, bytes } => Self::Kept(Box::new((hash, bytes))),
        }
    }

    pub(crate) fn data(&self) -> Data {
        match self {
            Self::Recipe(recipe) => Data::Generated(*recipe),
            Self::Kept(kept) => Data::Kept { hash: kept.0, bytes: kept.1.clone() },
        }
    }

    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Recipe(recipe) => recipe.size,
            Self::Kept(kept) => kept.1.len() as u64,
        }
    }
}

/// What an item is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// A folder, the root too.
    Folder(Holds),
    /// A notebook: its parts are in it.
    Notebook(Holds),
    File(Content),
    /// A link to an item of another person's drive.
    Shortcut {
        owner: u32,
        target: u32,
    },
}

/// What is in a folder, all levels together for the bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Holds {
    pub children: u32,
    pub bytes: u64,
}

impl Kind {
    pub(crate) fn holds(&self) -> Option<&Holds> {
        match self {
            Self::Folder(holds) | Self::Notebook(holds) => Some(holds),
            Self::File(_) | Self::Shortcut { .. } => None,
        }
    }

    pub(crate) fn holds_mut(&mut self) -> Option<&mut Holds> {
        match self {
            Self::Folder(holds) | Self::Notebook(holds) => Some(holds),
            Self::File(_) | Self::Shortcut { .. } => None,
        }
    }

    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Folder(holds) | Self::Notebook(holds) => holds.bytes,
            Self::File(content) => content.len(),
            Self::Shortcut { .. } => 0,
        }
    }
}

/// Why content cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Malware,
    Locked,
}

/// Content that a file had before.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub number: u32,
    pub content: Content,
    pub changed_ms: u64,
    pub by: By,
}

/// Whom a permission is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Person(u32),
    /// Somebody outside the tenant.
    Guest(String),
    Link(Link),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub kind: String,
    pub scope: String,
    pub has_password: bool,
    /// Whom it was given to, where it is for certain people.
    pub people: Vec<To>,
}

/// A permission of an item's own.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub number: u32,
    pub role: &'static str,
    pub to: To,
    /// As it was given.
    pub expires: Option<String>,
}

/// What few items have.
#[derive(Clone, Debug, Default)]
pub(crate) struct More {
    /// Oldest first.
    pub versions: Vec<Version>,
    pub grants: Vec<Grant>,
    /// The number of the next permission.
    pub next_grant: u32,
    /// Whether it once had permissions of its own: then it says `shared` even when nobody is left.
    pub is_unique: bool,
    /// Number of the last change of its permissions.
    pub sharing_seq: u64,
    pub fate: Option<Fate>,
}

#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub key: u32,
    /// The root's is nothing.
    pub parent: u32,
    /// Number of the last change of anything but permissions.
    pub seq: u64,
    /// Counts changes.
    pub etag: u32,
    /// Counts changes of the content.
    pub ctag: u32,
    /// Who made it.
    pub made_by: By,
    /// Who wrote it last.
    pub by: By,
    /// When the service made it.
    pub made_ms: u64,
    /// When the service saw the last change.
    pub changed_ms: u64,
    pub times: Times,
    pub name: Name,
    pub kind: Kind,
    pub more: Option<Box<More>>,
}

impl Item {
    pub(crate) fn more_mut(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    pub(crate) fn fate(&self) -> Option<Fate> {
        self.more.as_ref().and_then(|more| more.fate)
    }

    pub(crate) fn grants(&self) -> &[Grant] {
        self.more.as_ref().map_or(&[], |more| &more.grants)
    }

    pub(crate) fn versions(&self) -> &[Version] {
        self.more.as_ref().map_or(&[], |more| &more.versions)
    }

    pub(crate) fn content(&self) -> Option<&Content> {
        match &self.kind {
            Kind::File(content) => Some(content),
            _ => None,
        }
    }

    pub(crate) fn is_folder(&self) -> bool {
        self.kind.holds().is_some()
    }

    /// The number of the version that is current.
    pub(crate) fn version_number(&self) -> u32 {
        self.versions().last().map_or(1, |version| version.number + 1)
    }
}
