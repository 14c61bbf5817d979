//! Defects that can be planted, to show that the simulation would find them.
//!
//! Most are planted at a seam, where a call does less than it says: for everybody above it that is the same as never having
//! called. None can be reached from a configuration of the product.

use std::{fmt, str::FromStr};

/// A defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Planted {
    /// Records are acknowledged before they are synced.
    AckBeforeFsync,
    /// A listing that broke off is taken for complete.
    TrustPartialListing,
    /// Folders are not synced.
    ForgetDirectoryFsync,
    /// A node remembers that a peer had a record and does not ask again.
    CacheStaleHave,
    /// Touch logs are removed before the index has what they say.
    DeleteBeforeIndex,
    /// A failed sync is tried again, and the second answer believed.
    RetryFsync,
    /// A fence below the highest seen still writes.
    AcceptOldFence,
    /// A pin on a minority is carried to the other owners.
    MinorityPinTravels,
    /// A move is called over before the new owners have everything.
    SettleEarly,
    /// A new owner serves pins without having asked the previous ones.
    ServeBeforeTakeover,
    /// Writes by a layout that is over are accepted.
    AcceptOldLayout,
}

impl Planted {
    /// Every one.
    pub const ALL: &'static [Self] = &[
        Self::AckBeforeFsync,
        Self::TrustPartialListing,
        Self::ForgetDirectoryFsync,
        Self::CacheStaleHave,
        Self::DeleteBeforeIndex,
        Self::RetryFsync,
        Self::AcceptOldFence,
        Self::MinorityPinTravels,
        Self::SettleEarly,
        Self::ServeBeforeTakeover,
        Self::AcceptOldLayout,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::AckBeforeFsync => "ack-before-fsync",
            Self::TrustPartialListing => "trust-partial-listing",
            Self::ForgetDirectoryFsync => "forget-directory-fsync",
            Self::CacheStaleHave => "cache-stale-have",
            Self::DeleteBeforeIndex => "delete-before-index",
            Self::RetryFsync => "retry-fsync",
            Self::AcceptOldFence => "accept-old-fence",
            Self::MinorityPinTravels => "minority-pin-travels",
            Self::SettleEarly => "settle-early",
            Self::ServeBeforeTakeover => "serve-before-takeover",
            Self::AcceptOldLayout => "accept-old-layout",
        }
    }
}

impl fmt::Display for Planted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Planted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|one| one.word() == text).ok_or_else(|| {
            let words: Vec<_> = Self::ALL.iter().map(|one| one.word()).collect();
            format!("'{text}' is not a planted defect: use one of {}", words.join(", "))
        })
    }
}
