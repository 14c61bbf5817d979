//! What can go wrong in the coordinator, and which of the closed codes it becomes at the gRPC edge.
//!
//! Texts say what to do; they hold no secret, no token and no content.

use std::path::PathBuf;

use holdfast_model::{Fence, JobId, JobState, LayoutError, LayoutVersion, Term};
use holdfast_proto::{convert::WireError, signed::SignedError, status::ErrorCode};
use holdfast_repository::{KeyError, StoreError};
use tonic::Status;

use crate::job::state::Command;

/// Anything the coordinator fails with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The catalog's database refused or is away.
    #[error("the catalog's database failed")]
    Sql(#[from] sqlx::Error),
    /// A column holds what this build cannot read.
    #[error("the catalog holds something unreadable in column '{column}'")]
    CatalogDamaged {
        /// Which column.
        column: &'static str,
    },
    /// Another transaction came first; tried again a bounded number of times.
    #[error("another transaction came first")]
    LostRace,
    /// The term ended or another coordinator has it.
    #[error("term {term} is over: another coordinator may lead")]
    TermLost {
        /// The term that is over.
        term: Term,
    },
    /// A layout that is not newer than the newest.
    #[error("layout {version} is not newer than the newest")]
    LayoutNotNewer {
        /// The version refused.
        version: LayoutVersion,
    },
    /// The layout changed between the plan and its use.
    #[error("the layout has changed to version {version} since it was planned: plan again")]
    LayoutChanged {
        /// The version in use.
        version: LayoutVersion,
    },
    /// A planned layout does not keep its promises.
    #[error("the planned layout cannot be used: {0}")]
    LayoutFault(#[from] holdfast_model::LayoutFault),
    /// The pool's nodes cannot be laid out.
    #[error("the pool cannot be laid out: {0}")]
    Layout(#[from] LayoutError),
    /// There is no layout yet.
    #[error("no layout is stored yet: a coordinator must lead first")]
    NoLayout,
    /// The caller's attempt is over.
    #[error("the fence {fence} of job {job} is not its current one: drop the job")]
    Fenced {
        /// The job.
        job: JobId,
        /// The fence the caller has.
        fence: Fence,
    },
    /// The job's state does not allow it.
    #[error("job {job} is {state}: it cannot be {command}")]
    Transition {
        /// The job.
        job: JobId,
        /// Where it stands.
        state: JobState,
        /// What was asked.
        command: Command,
    },
    /// The caller is not the one who claimed the job.
    #[error(
        "another worker claimed job {job}: the certificate of a job's calls must be the one that claimed it"
    )]
    NotClaimant {
        /// The job.
        job: JobId,
    },
    /// Another pin was prepared for the job already.
    #[error("job {job} has a commit ticket for another pin")]
    OtherPin {
        /// The job.
        job: JobId,
    },
    /// The pin does not belong to the job.
    #[error("the pin does not fit the job: its {field} differs")]
    PinMismatch {
        /// What differs.
        field: &'static str,
    },
    /// What was named does not exist.
    #[error("there is no {what} '{name}': {hint}")]
    NotFound {
        /// The kind of thing.
        what: &'static str,
        /// What was named.
        name: String,
        /// What to do.
        hint: String,
    },
    /// A value is wrong.
    #[error("{field} '{value}' cannot be used: {problem}")]
    Invalid {
        /// Which value.
        field: &'static str,
        /// What it was. Never a secret.
        value: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// Microsoft has not granted what is needed.
    #[error(
        "the app is missing these application permissions: {}; add them in Microsoft Entra, grant admin consent, and connect again",
        missing.join(", ")
    )]
    PermissionsMissing {
        /// `permission (what for)`.
        missing: Vec<String>,
    },
    /// Microsoft refused the app's credentials.
    #[error("Microsoft refused the {app} app ({code}): {advice}")]
    CredentialsRefused {
        /// backup or restore.
        app: &'static str,
        /// Microsoft's code.
        code: String,
        /// What to do.
        advice: &'static str,
    },
    /// Microsoft could not be asked.
    #[error("Microsoft could not be asked for {what} ({code})")]
    Microsoft {
        /// What was asked for.
        what: &'static str,
        /// The code.
        code: String,
        /// Whether it may work later.
        retryable: bool,
        /// Why.
        #[source]
        source: Box<holdfast_graph_client::GraphError>,
    },
    /// The shared quota ledger cannot be reached.
    #[error("the quota ledger cannot be used")]
    Ledger(#[source] Box<holdfast_graph_client::GraphError>),
    /// A key does not open what it should.
    #[error("a key cannot be used: {0}")]
    Key(#[from] KeyError),
    /// Storage nodes failed.
    #[error("the storage nodes failed: {0}")]
    Storage(#[from] StoreError),
    /// A snapshot cannot be read.
    #[error("the snapshot cannot be read: {0}")]
    Snapshot(#[from] holdfast_repository::Error),
    /// More folders than are read at once.
    #[error(
        "the snapshot has more than {limit} folders, more than can be looked at together: `holdfast browse` shows them \
         folder by folder"
    )]
    TooManyFolders {
        /// The limit.
        limit: usize,
    },
    /// A pin cannot be read.
    #[error("the pin cannot be read: {0}")]
    Record(#[from] holdfast_record::Error),
    /// The job queue failed.
    #[error("the job queue failed: {0}")]
    Queue(#[from] holdfast_job_queue::QueueError),
    /// A request cannot be read.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The signing key cannot be read.
    #[error("the signing key cannot be used: {0}")]
    Signing(#[from] SignedError),
    /// A setting is wrong.
    #[error("setting '{option}': {problem}")]
    Option {
        /// Which.
        option: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something of ours does not become JSON.
    #[error("the {what} cannot be encoded")]
    Encode {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The server cannot start or ended badly.
    #[error("the server failed: {0}")]
    Grpc(#[from] holdfast_runtime::GrpcError),
    /// A loop that must not end did.
    #[error("a background part ended unexpectedly")]
    Ended,
}

impl Error {
    /// What a caller can do about it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Sql(_) | Self::LostRace | Self::NoLayout | Self::Queue(_) | Self::Ledger(_) => {
                ErrorCode::Unavailable
            }
            Self::TermLost { .. } | Self::Fenced { .. } => ErrorCode::Fenced,
            Self::Transition { .. }
            | Self::OtherPin { .. }
            | Self::LayoutNotNewer { .. }
            | Self::LayoutChanged { .. } => ErrorCode::Conflict,
            Self::PinMismatch { .. }
            | Self::Invalid { .. }
            | Self::Wire(_)
            | Self::Layout(_)
            | Self::TooManyFolders { .. }
            | Self::CredentialsRefused { .. } => ErrorCode::BadRequest,
            Self::PermissionsMissing { .. } | Self::NotClaimant { .. } => ErrorCode::Forbidden,
            Self::NotFound { .. } => ErrorCode::NotFound,
            Self::Microsoft { retryable: true, .. } => ErrorCode::Unavailable,
            Self::Microsoft { .. } => ErrorCode::BadRequest,
            Self::Storage(error) if error.is_retryable() => ErrorCode::Unavailable,
            Self::Snapshot(error) if error.is_retryable() => ErrorCode::Unavailable,
            _ => ErrorCode::Internal,
        }
    }

    /// Whether the same may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.code().is_retryable()
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let code = error.code();
        match &error {
            // What the caller cannot mend is logged here, where it leaves us; the caller learns its kind.
            Error::Sql(source) => tracing::warn!(%source, "the catalog's database failed"),
            _ if code == ErrorCode::Internal => tracing::error!(%error, "a request failed"),
            _ => {}
        }
        code.status(error.to_string())
    }
}
