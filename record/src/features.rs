//! Feature sets: what a build must know before it may read, append to, condemn or check something.
//!
//! Four sets of bits, as in the superblock and the marker of a data folder. A later build that writes something this one
//! cannot know sets a bit in each set that it matters to; this one then leaves the segment alone in that respect and no more.
//! Invariant: nothing is done with a segment while a bit of the set of that deed is unknown.

use crate::Error;

/// The bits of one segment or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// Needed to read it.
    pub read: u64,
    /// Needed to append to it.
    pub write: u64,
    /// Needed to condemn or drop anything in it.
    pub gc: u64,
    /// Needed to say whether it is intact.
    pub check: u64,
}

impl Features {
    /// How many bytes the four sets take.
    pub const BYTES: usize = 32;
    /// What this build knows: format 1 starts without any.
    pub const KNOWN: Self = Self { read: 0, write: 0, gc: 0, check: 0 };

    /// Both together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            read: self.read | other.read,
            write: self.write | other.write,
            gc: self.gc | other.gc,
            check: self.check | other.check,
        }
    }

    /// Refuses to read what needs something unknown.
    pub fn check_read(&self, what: &'static str) -> Result<(), Error> {
        known(what, "read", self.read & !Self::KNOWN.read)
    }

    /// Refuses to append to what needs something unknown.
    pub fn check_write(&self, what: &'static str) -> Result<(), Error> {
        known(what, "write", self.write & !Self::KNOWN.write)
    }

    /// Refuses to condemn or drop what needs something unknown.
    pub fn check_gc(&self, what: &'static str) -> Result<(), Error> {
        known(what, "gc", self.gc & !Self::KNOWN.gc)
    }

    /// Refuses to judge whether something is intact that needs something unknown.
    pub fn check_check(&self, what: &'static str) -> Result<(), Error> {
        known(what, "check", self.check & !Self::KNOWN.check)
    }

    /// The four sets, 8 bytes each, little-endian.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for set in [self.read, self.write, self.gc, self.check] {
            out.extend_from_slice(&set.to_le_bytes());
        }
    }
}

fn known(what: &'static str, verb: &'static str, bits: u64) -> Result<(), Error> {
    if bits == 0 { Ok(()) } else { Err(Error::UnknownFeatures { what, verb, bits }) }
}
