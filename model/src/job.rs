//! What a job is asked to do and where it stands.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Workload;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant),+
        }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in the catalog, on the wire and on the screen.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("'{text}' is not one of: {}", [$($word),+].join(", "))),
                }
            }
        }
    };
}

words!(
    /// What a job does.
    JobKind {
        /// Reads from Microsoft, writes a snapshot.
        Backup = "backup",
        /// Fetches a part of a backup's content for the job that commits it.
        BackupShard = "backup-shard",
        /// Reads a snapshot, writes to Microsoft.
        Restore = "restore",
        /// Reads a snapshot, writes files.
        Export = "export",
        /// Reads a snapshot back and proves it.
        Verify = "verify",
    }
);

words!(
    /// Who goes first when slots or quota are short: the order of the values.
    JobClass {
        /// Somebody waits for it.
        Restore = "restore",
        /// An incremental that is past its time.
        Late = "late",
        /// An incremental.
        Incremental = "incremental",
        /// The first backup of a resource.
        FirstFull = "first-full",
        /// Proving what is stored.
        Verify = "verify",
    }
);

words!(
    /// Where a job stands.
    ///
    /// ```text
    /// queued ──claim──▶ running ──PrepareCommit──▶ committing ──RecordCommit──▶ done
    ///    ▲                │  │                          │
    ///    │   lease ended, │  └──finish──▶ done          └─(worker gone: the same ticket is sent again,
    ///    └── deferred ────┘                                or a higher fence is stored first)
    ///                     └──N attempts──▶ parked ──retry──▶ queued
    /// ```
    JobState {
        /// Waits for a worker.
        Queued = "queued",
        /// Leased by a worker.
        Running = "running",
        /// A commit ticket is out; no new attempt starts until its outcome is known.
        Committing = "committing",
        /// Finished; exceptions stand in its account.
        Done = "done",
        /// Given up after its attempts; retryable by hand.
        Parked = "parked",
    }
);

words!(
    /// What a restore does where the target already has the item.
    ConflictPolicy {
        /// Leave what is there.
        Skip = "skip",
        /// Restore beside it.
        Rename = "rename",
        /// Put the restored item in its place.
        Replace = "replace",
    }
);

words!(
    /// What an export writes.
    ExportFormat {
        /// One `.eml` file per message, in folders.
        Eml = "eml",
        /// One `.mbox` file per folder.
        Mbox = "mbox",
        /// One `.ics` file per event; a series is one.
        Ics = "ics",
        /// One `.vcf` file per contact.
        Vcf = "vcf",
        /// The files of a drive, in folders, with their times.
        Files = "files",
        /// Everything that is stored of an item: its properties as JSON, and beside it what hangs on it as files.
        Json = "json",
        /// One zip archive of the files that the workload's own format has.
        Zip = "zip",
    }
);

impl ExportFormat {
    /// Whether items of a workload can be written so.
    pub fn holds(self, workload: Workload) -> bool {
        match self {
            Self::Eml | Self::Mbox => workload == Workload::Mail,
            Self::Ics => workload == Workload::Calendar,
            Self::Vcf => workload == Workload::Contacts,
            Self::Files => workload == Workload::OneDrive,
            Self::Json | Self::Zip => true,
        }
    }

    /// The format that other programs read items of a workload in: what a zip archive holds.
    pub fn natural(workload: Workload) -> Self {
        match workload {
            Workload::Mail => Self::Eml,
            Workload::Calendar => Self::Ics,
            Workload::Contacts => Self::Vcf,
            Workload::OneDrive => Self::Files,
            Workload::Tasks => Self::Json,
        }
    }
}
