//! What can go wrong: starting a worker ([`Error`]), and doing one job ([`JobError`]).
//!
//! The one thing to know: a [`JobError`] says how its job is given back. Losing the fence gives nothing back: somebody else
//! has the job.

use std::{path::PathBuf, time::Duration};

use holdfast_graph_client::{ErrorClass, GraphError};
use holdfast_job_queue::QueueError;
use holdfast_proto::{convert::WireError, coordinator::ReleaseReason};
use holdfast_repository::StoreError;
use holdfast_runtime::GrpcError;

/// A worker cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting makes no sense.
    #[error("the setting '{setting}' is {problem}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What is wrong, and what would be right.
        problem: &'static str,
    },
    /// A certificate or an address cannot be used.
    #[error(transparent)]
    Grpc(#[from] GrpcError),
    /// The queue cannot be used.
    #[error("the job queue cannot be used")]
    Queue(#[from] QueueError),
    /// The quota ledger cannot be reached.
    #[error("the quota ledger cannot be used")]
    Ledger(#[from] GraphError),
    /// The compute threads cannot be started.
    #[error("the compute threads cannot be started")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// No coordinator answered as it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CoordinatorError {
    /// The fence is not the job's current one.
    #[error("the coordinator knows a newer attempt of this job")]
    Fenced,
    /// None answered.
    #[error("no coordinator answers: {reason}")]
    Unavailable {
        /// The last answer.
        reason: String,
    },
    /// It refused for good.
    #[error("the coordinator refuses: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
}

/// One job cannot be done, or not now.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The coordinator said stop, or a newer attempt exists: drop everything.
    #[error("the job was taken from this worker")]
    Stopped,
    /// The worker ends.
    #[error("the worker is shutting down")]
    ShuttingDown,
    /// Microsoft.
    #[error("microsoft: {0}")]
    Graph(#[from] GraphError),
    /// The storage nodes.
    #[error("storage: {0}")]
    Store(#[from] StoreError),
    /// A snapshot cannot be read or written.
    #[error("snapshot: {0}")]
    Repository(#[from] holdfast_repository::Error),
    /// The coordinator.
    #[error(transparent)]
    Coordinator(#[from] CoordinatorError),
    /// A lease that cannot be read.
    #[error("the lease cannot be read: {0}")]
    Lease(#[from] WireError),
    /// A pin that cannot be read.
    #[error("the pin cannot be read: {0}")]
    Pin(#[from] holdfast_record::Error),
    /// A listed item has no outcome. A defect.
    #[error("{listed} items were listed, {accounted} are accounted for")]
    DoesNotAddUp {
        /// Distinct ids listed.
        listed: u64,
        /// Ids with an outcome.
        accounted: u64,
    },
    /// More items failed than a snapshot may list.
    #[error("{failed} items failed, a snapshot lists at most {limit}")]
    TooManyFailed {
        /// How many.
        failed: usize,
        /// The limit.
        limit: usize,
    },
    /// More folders than are read at once.
    #[error("the snapshot has more than {limit} folders")]
    TooManyFolders {
        /// The limit.
        limit: usize,
    },
    /// What was stored by us cannot be read back.
    #[error("the stored {what} cannot be read")]
    Stored {
        /// Which part.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// A stored attachment is not as long as it says. A defect.
    #[error("a stored attachment is shorter than announced")]
    ShortAttachment,
    /// A file of an export cannot be written.
    #[error("cannot write {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Somebody had a drive when they were backed up last, and has none.
    #[error("microsoft has no drive for this person any more")]
    DriveGone,
    /// A shard of a workload that has none. A defect, or the job of a newer version.
    #[error("this version does not split this workload")]
    NotSplit,
    /// Storage knows a newer attempt of the job that a shard is a part of.
    #[error("another attempt of the backup has begun")]
    ParentFenced,
    /// The operator named something that is not in the snapshot.
    #[error("'{path}' is not in the snapshot")]
    NoSuchPath {
        /// What was named.
        path: String,
    },
}

/// A deferred job is not started again before this.
const DEFER_LEAST: Duration = Duration::from_secs(5);

/// And not before this when storage is away or full.
const DEFER_FOR_STORAGE: Duration = Duration::from_secs(30);

/// How a job is given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Deferred, to be tried again, or for good.
    pub reason: ReleaseReason,
    /// Not before.
    pub delay: Duration,
    /// For machines.
    pub code: String,
    /// For people: what to do.
    pub message: String,
}

impl JobError {
    /// How the job is given back; none when it belongs to somebody else.
    pub fn release(&self) -> Option<Release> {
        let release = |reason, code: &str, message: String| {
            Some(Release { reason, delay: Duration::ZERO, code: code.to_owned(), message })
        };
        match self {
            Self::Stopped | Self::Coordinator(CoordinatorError::Fenced) | Self::Store(StoreError::Fenced) => {
                None
            }
            Self::Repository(holdfast_repository::Error::Store(StoreError::Fenced)) => None,
            Self::ShuttingDown => release(ReleaseReason::Deferred, "shutdown", self.to_string()),
            Self::Graph(error) => Some(release_graph(error)),
            Self::Store(error) | Self::Repository(holdfast_repository::Error::Store(error))
                if error.is_retryable() =>
            {
                // Storage that is away or full is not the job's failure: it waits as long as it takes.
                let (code, delay) = match error {
                    StoreError::Full => ("storage-full", DEFER_FOR_STORAGE),
                    // The next lease brings the new one.
                    StoreError::LayoutChanged => ("layout-changed", Duration::ZERO),
                    _ => ("storage-unavailable", DEFER_FOR_STORAGE),
                };
                let (reason, code, message) = (ReleaseReason::Deferred, code.to_owned(), self.to_string());
                Some(Release { reason, delay, code, message })
            }
            Self::NoSuchPath { .. } => release(
                ReleaseReason::Permanent,
                "no-such-path",
                format!("{self}: look with `holdfast browse`"),
            ),
            Self::TooManyFolders { .. } => release(
                ReleaseReason::Permanent,
                "too-many-folders",
                format!(
                    "{self}, more than a job holds: please report this; `tests/reader` reads it without a limit"
                ),
            ),
            Self::DriveGone => release(
                ReleaseReason::Permanent,
                "drive-gone",
                format!("{self}: check the person's licence; what is stored stays and can be restored"),
            ),
            // The next lease has the new attempt's token. Nobody else has the shard.
            Self::ParentFenced => release(ReleaseReason::Deferred, "parent-fenced", self.to_string()),
            Self::NotSplit => release(ReleaseReason::Permanent, "not-split", self.to_string()),
            Self::DoesNotAddUp { .. } => release(ReleaseReason::Retry, "does-not-add-up", self.to_string()),
            Self::File { source, .. } => release(
                ReleaseReason::Permanent,
                "file",
                format!("{self}: {source}: check the export folder"),
            ),
            Self::Lease(_) | Self::Stored { .. } => release(ReleaseReason::Retry, "defect", self.to_string()),
            Self::Coordinator(_) => release(ReleaseReason::Retry, "coordinator", self.to_string()),
            _ => release(ReleaseReason::Retry, "storage", self.to_string()),
        }
    }

    /// For a shard: what storage refuses to its parent's fence does not mean that another worker has the shard.
    pub(crate) fn in_shard(self) -> Self {
        match self {
            Self::Store(StoreError::Fenced)
            | Self::Repository(holdfast_repository::Error::Store(StoreError::Fenced)) => Self::ParentFenced,
            other => other,
        }
    }

    /// Whether the whole job must stop because of an error on one item.
    pub(crate) fn is_fatal_for_job(error: &GraphError) -> bool {
        matches!(
            error.class(),
            ErrorClass::Wait
                | ErrorClass::ReAuth
                | ErrorClass::FailResource
                | ErrorClass::FailTenant
                | ErrorClass::Programming
        )
    }
}

fn release_graph(error: &GraphError) -> Release {
    let code = error.code().to_owned();
    let say = |advice: &str| format!("{error}: {advice}");
    let (reason, message) = match error.class() {
        ErrorClass::Wait => (ReleaseReason::Deferred, say("the job goes on by itself")),
        // Nothing is wrong with the mailbox.
        _ if matches!(error, GraphError::TooMany { .. }) => {
            (ReleaseReason::Permanent, say("that is more than a job holds: please report this"))
        }
        ErrorClass::FailResource => (
            ReleaseReason::Permanent,
            say("check that the user has an active mailbox in Exchange Online and room in it"),
        ),
        // It says itself what to do, and connecting again would not help.
        _ if matches!(error, GraphError::ClaimsDemanded { .. }) => {
            (ReleaseReason::Permanent, error.to_string())
        }
        ErrorClass::FailTenant | ErrorClass::ReAuth => (
            ReleaseReason::Permanent,
            say("run `holdfast tenant connect` again: it says which permission or secret is missing"),
        ),
        ErrorClass::Programming => (ReleaseReason::Permanent, say("please report this as a defect")),
        _ => (ReleaseReason::Retry, say("it will be tried again")),
    };
    let least = if reason == ReleaseReason::Deferred { DEFER_LEAST } else { Duration::ZERO };
    Release { reason, delay: error.retry_after().unwrap_or_default().max(least), code, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttled_job_is_deferred_for_as_long_as_microsoft_says() {
        let error =
            GraphError::Throttled { retry_after: Duration::from_secs(90), code: None, request_id: None };
        let release = JobError::from(error).release().unwrap();
        assert_eq!((release.reason, release.delay), (ReleaseReason::Deferred, Duration::from_secs(90)));
    }

    #[test]
    fn a_job_waits_for_storage_that_is_away_or_full_without_spending_attempts() {
        let away = StoreError::Unavailable { reason: "not stored in site b: node-2".into() };
        for error in [
            JobError::from(away.clone()),
            JobError::from(StoreError::Full),
            holdfast_repository::Error::Store(away).into(),
        ] {
            let release = error.release().unwrap();
            assert_eq!((release.reason, release.delay), (ReleaseReason::Deferred, DEFER_FOR_STORAGE));
        }
        let release = JobError::from(StoreError::LayoutChanged).release().unwrap();
        assert_eq!((release.reason, release.delay), (ReleaseReason::Deferred, Duration::ZERO));
        let release = JobError::from(StoreError::SessionLost).release().unwrap();
        assert_eq!(release.reason, ReleaseReason::Retry);
    }

    #[test]
    fn a_lost_fence_gives_nothing_back() {
        assert_eq!(JobError::from(StoreError::Fenced).release(), None);
        assert_eq!(JobError::Stopped.release(), None);
    }

    #[test]
    fn a_dead_token_endpoint_says_what_to_do() {
        let error =
            GraphError::TokenRefused { status: 401, error: "invalid_client".into(), codes: vec![7_000_215] };
        let release = JobError::from(error).release().unwrap();
        assert_eq!(release.reason, ReleaseReason::Permanent);
        assert!(release.message.contains("holdfast tenant connect"));
    }

    #[test]
    fn a_blocked_app_is_not_told_to_connect_again() {
        let release = JobError::from(GraphError::ClaimsDemanded { request_id: None }).release().unwrap();
        assert_eq!(release.reason, ReleaseReason::Permanent);
        assert!(
            release.message.contains("conditional access") && !release.message.contains("tenant connect")
        );
    }
}
