//! Exchange-shaped ids: opaque, case-sensitive, ending in `=`, in an immutable and a mutable form.
//!
//! Invariant: a mutable id carries the number of moves the message has made, so it dies with the next move.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;

use crate::rng::mix;

const LENGTH: usize = 41;
const IMMUTABLE: [u8; 3] = [0x00, 0x09, 0x00];
const MUTABLE: [u8; 3] = [0x00, 0x03, 0x24];
const FOLDER: [u8; 3] = [0x00, 0x03, 0x25];
const ATTACHMENT: [u8; 3] = [0x00, 0x03, 0x26];
/// Tags below are mail's.
pub(crate) const FIRST_TAG: u8 = 0x40;

/// Which kind of message id a request asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Immutable,
    Mutable,
}

/// A decoded id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Id {
    /// `moves` is none for the immutable form.
    Message {
        user: u32,
        key: u64,
        moves: Option<u32>,
    },
    Folder {
        user: u32,
        key: u32,
    },
    Attachment {
        user: u32,
        message: u64,
        key: u32,
    },
    /// What another workload keeps; `tag` is its own mark of the kind, from [`FIRST_TAG`].
    Object {
        tag: u8,
        user: u32,
        key: u64,
        /// Which part of the object, such as one occurrence of a series.
        extra: u32,
        /// None for the immutable form, and for what has no other.
        moves: Option<u32>,
    },
}

/// Why an id names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Malformed,
    Gone,
}

impl Id {
    pub(crate) fn encode(self) -> String {
        let (tag, user, key, moves, extra) = match self {
            Self::Message { user, key, moves: None } => (IMMUTABLE, user, key, 0, 0),
            Self::Message { user, key, moves: Some(moves) } => (MUTABLE, user, key, moves, 0),
            Self::Folder { user, key } => (FOLDER, user, u64::from(key), 0, 0),
            Self::Attachment { user, message, key } => (ATTACHMENT, user, message, 0, key),
            Self::Object { tag, user, key, extra, moves: None } => ([0x00, 0x09, tag], user, key, 0, extra),
            Self::Object { tag, user, key, extra, moves: Some(moves) } => {
                ([0x00, 0x03, tag], user, key, moves, extra)
            }
        };
        let mut bytes = [0; LENGTH];
        bytes[..3].copy_from_slice(&tag);
        bytes[3..7].copy_from_slice(&user.to_be_bytes());
        bytes[7..15].copy_from_slice(&key.to_be_bytes());
        bytes[15..19].copy_from_slice(&moves.to_be_bytes());
        bytes[19..23].copy_from_slice(&extra.to_be_bytes());
        let filler = mix(u64::from(user) ^ 0x4578_6368);
        bytes[23..31].copy_from_slice(&filler.to_be_bytes());
        bytes[31..39].copy_from_slice(&mix(filler ^ key).to_be_bytes());
        URL_SAFE.encode(bytes)
    }

    pub(crate) fn decode(text: &str) -> Option<Self> {
        let bytes = URL_SAFE.decode(text).ok()?;
        let bytes: [u8; LENGTH] = bytes.try_into().ok()?;
        let user = u32::from_be_bytes(bytes[3..7].try_into().ok()?);
        let key = u64::from_be_bytes(bytes[7..15].try_into().ok()?);
        let moves = u32::from_be_bytes(bytes[15..19].try_into().ok()?);
        let extra = u32::from_be_bytes(bytes[19..23].try_into().ok()?);
        match [bytes[0], bytes[1], bytes[2]] {
            IMMUTABLE => Some(Self::Message { user, key, moves: None }),
            MUTABLE => Some(Self::Message { user, key, moves: Some(moves) }),
            FOLDER => Some(Self::Folder { user, key: u32::try_from(key).ok()? }),
            ATTACHMENT => Some(Self::Attachment { user, message: key, key: extra }),
            [0x00, 0x09, tag] if tag >= FIRST_TAG => {
                Some(Self::Object { tag, user, key, extra, moves: None })
            }
            [0x00, 0x03, tag] if tag >= FIRST_TAG => {
                Some(Self::Object { tag, user, key, extra, moves: Some(moves) })
            }
            _ => None,
        }
    }
}
