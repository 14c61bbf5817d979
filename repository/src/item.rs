//! What the manifest says of an item: keys and values of the two trees.
//!
//! Invariant: the encoding of a value is canonical, so equal entries are equal bytes and equal trees have equal roots.

use bytes::Bytes;

use crate::{error::Error, secret::ContentHash, wire::Reader};

/// Keys longer than this are refused: Microsoft's immutable ids are about 150 bytes.
pub const MAX_KEY_BYTES: usize = 1_024;

/// Names an item within its resource: Microsoft's id, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemKey(pub Vec<u8>);

/// Names the folder an item is in; the workload derives it from the folder's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FolderKey(pub [u8; 16]);

/// What an entry of a manifest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// A folder.
    Folder,
    /// A message in a mailbox.
    MailMessage,
    /// An event in a calendar; a series with all its occurrences is one.
    CalendarEvent,
    /// A contact.
    Contact,
    /// A task in a to-do list.
    Task,
    /// A file in a drive.
    DriveFile,
    /// A folder in a drive, which is an item of its own there.
    DriveFolder,
}

impl EntryKind {
    /// Every kind.
    const ALL: [Self; 7] = [
        Self::Folder,
        Self::MailMessage,
        Self::CalendarEvent,
        Self::Contact,
        Self::Task,
        Self::DriveFile,
        Self::DriveFolder,
    ];

    /// Whether it holds others: such an entry has no content.
    pub fn is_container(self) -> bool {
        matches!(self, Self::Folder | Self::DriveFolder)
    }

    /// The code in the bytes. Never reused.
    pub fn code(self) -> u8 {
        match self {
            Self::Folder => 1,
            Self::MailMessage => 2,
            Self::CalendarEvent => 3,
            Self::Contact => 4,
            Self::Task => 5,
            Self::DriveFile => 6,
            Self::DriveFolder => 7,
        }
    }

    /// Reads the code back.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// What is worth knowing of an item without decrypting more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct EntryFlags(pub u16);

impl EntryFlags {
    /// The newest version could not be read; this is the one before.
    pub const STALE: Self = Self(1);
    /// It has attachments.
    pub const HAS_ATTACHMENTS: Self = Self(1 << 1);
    /// It is read.
    pub const IS_READ: Self = Self(1 << 2);
    /// It is a draft.
    pub const IS_DRAFT: Self = Self(1 << 3);

    /// Whether all of these are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and the others.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without the others.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// What the caller says of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ItemFields {
    /// What it is.
    pub kind: EntryKind,
    /// What is worth knowing.
    pub flags: EntryFlags,
    /// The hash of the change key: equal means unchanged.
    pub change: [u8; 16],
    /// Its size as Microsoft counts.
    pub size: u64,
    /// The folder it is in.
    pub parent: FolderKey,
    /// Its place in the folder, ascending; for newest first, store the complement of the time.
    pub sort: u64,
}

/// Where bytes are: a slice of a bundle, or a whole record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlobRef {
    /// The record.
    pub h: ContentHash,
    /// Where in its plaintext they start.
    pub offset: u32,
    /// How many.
    pub len: u32,
}

/// An item as the manifest has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ItemEntry {
    /// What it is.
    pub kind: EntryKind,
    /// What is worth knowing.
    pub flags: EntryFlags,
    /// The hash of the change key.
    pub change: [u8; 16],
    /// Its size as Microsoft counts.
    pub size: u64,
    /// The folder it is in.
    pub parent: FolderKey,
    /// Its place in the folder.
    pub sort: u64,
    /// Its properties.
    pub meta: BlobRef,
    /// Its content blob.
    pub content: Option<BlobRef>,
}

impl ItemEntry {
    /// The fields without the places.
    pub fn fields(&self) -> ItemFields {
        ItemFields {
            kind: self.kind,
            flags: self.flags,
            change: self.change,
            size: self.size,
            parent: self.parent,
            sort: self.sort,
        }
    }

    pub(crate) fn new(fields: ItemFields, meta: BlobRef, content: Option<BlobRef>) -> Self {
        let ItemFields { kind, flags, change, size, parent, sort } = fields;
        Self { kind, flags, change, size, parent, sort, meta, content }
    }

    /// `kind 1 · flags 2 · change 16 · size 8 · parent 16 · sort 8 · meta 40 · has content 1 · [content 40]`
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(132);
        out.push(self.kind.code());
        out.extend_from_slice(&self.flags.0.to_le_bytes());
        out.extend_from_slice(&self.change);
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.parent.0);
        out.extend_from_slice(&self.sort.to_le_bytes());
        self.meta.encode(&mut out);
        out.push(u8::from(self.content.is_some()));
        if let Some(content) = self.content {
            content.encode(&mut out);
        }
        out.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new("manifest entry", bytes);
        let kind = EntryKind::from_code(reader.u8()?).ok_or_else(|| reader.malformed("unknown kind"))?;
        let flags = EntryFlags(reader.u16()?);
        let change = reader.array()?;
        let size = reader.u64()?;
        let parent = FolderKey(reader.array()?);
        let sort = reader.u64()?;
        let meta = BlobRef::decode(&mut reader)?;
        let content = match reader.u8()? {
            0 => None,
            1 => Some(BlobRef::decode(&mut reader)?),
            _ => return Err(reader.malformed("bad option")),
        };
        reader.end()?;
        Ok(Self { kind, flags, change, size, parent, sort, meta, content })
    }
}

impl BlobRef {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.h.as_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self { h: ContentHash(reader.array()?), offset: reader.u32()?, len: reader.u32()? })
    }
}

/// The key in the children tree: `parent 16 · sort 8 big-endian · item key`.
pub(crate) fn child_key(parent: FolderKey, sort: u64, key: &[u8]) -> Bytes {
    [&parent.0[..], &sort.to_be_bytes(), key].concat().into()
}

/// One entry of a folder's listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildEntry {
    /// Its place.
    pub sort: u64,
    /// The item.
    pub key: ItemKey,
    /// What it is.
    pub kind: EntryKind,
}

impl ChildEntry {
    pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new("folder entry", key);
        reader.take(16)?;
        let sort = u64::from_be_bytes(reader.array()?);
        let kind = value.first().copied().and_then(EntryKind::from_code);
        let kind = kind.ok_or_else(|| reader.malformed("unknown kind"))?;
        Ok(Self { sort, key: ItemKey(reader.rest().to_vec()), kind })
    }
}
