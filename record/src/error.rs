//! What can be wrong with stored bytes. Every variant says what was found, none carries content.

/// Why something of another format version is refused, and what to do about it.
pub fn version_refusal(found: u32, supported: u32) -> String {
    if found > supported {
        format!("format {found} is newer than this holdfast reads ({supported}): use a newer holdfast")
    } else {
        format!(
            "format {found} is a preview and is not read by this version: read it with the build that wrote it, \
             and back up again into a new data folder"
        )
    }
}

/// The bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Written in a format this build does not read.
    #[error("{}", version_refusal((*found).into(), (*supported).into()))]
    UnknownVersion {
        /// The version in the bytes.
        found: u8,
        /// The only version read.
        supported: u8,
    },
    /// Another kind of thing, or nothing at all.
    #[error("not a holdfast {what}")]
    BadMagic {
        /// What was expected.
        what: &'static str,
    },
    /// Written with a feature that this build does not have.
    #[error(
        "{what} needs the {verb} features {bits:#x}, which this holdfast does not know: use a newer holdfast"
    )]
    UnknownFeatures {
        /// What carries them.
        what: &'static str,
        /// What cannot be done with it: read, write, check or gc.
        verb: &'static str,
        /// Those that are not known.
        bits: u64,
    },
    /// Cut off.
    #[error("{what} is cut off: {need} bytes needed, {have} there")]
    TooShort {
        /// What was read.
        what: &'static str,
        /// How many bytes it takes.
        need: usize,
        /// How many there are.
        have: usize,
    },
    /// The bytes changed since they were written, or stand where they were not written.
    #[error("the checksum of the {what} does not match")]
    BadChecksum {
        /// What was read.
        what: &'static str,
    },
    /// A length that contradicts the others, or a limit exceeded.
    #[error("the field {field} is {found}, which is out of range (at most {limit})")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// What stands there.
        found: u64,
        /// The largest value allowed.
        limit: u64,
    },
    /// A code that this version does not define.
    #[error("the field {field} has the unknown code {code}: a newer holdfast may know it")]
    UnknownCode {
        /// The field.
        field: &'static str,
        /// What stands there.
        code: u64,
    },
    /// Bytes that must be zero are not, or bytes follow where none may.
    #[error("unexpected bytes in the {what}")]
    Trailing {
        /// Where.
        what: &'static str,
    },
    /// The ciphertext is not the one the header names.
    #[error("the ciphertext does not match its hash")]
    CiphertextMismatch,
    /// The references are not the ones that were sealed.
    #[error("the references do not match their hash, or are not in order")]
    RefsMismatch,
}
