//! The transition table of jobs: (state, command) → state. Everything else is refused.

use std::fmt;

use holdfast_model::JobState;

use crate::{catalog::job::JobRow, error::Error};

/// What can be asked of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// A worker takes it.
    Claim,
    /// A worker hands in a pin.
    Prepare,
    /// A majority holds the pin.
    Record,
    /// Its attempt cannot commit any more; another may start.
    Void,
    /// It ended without a snapshot.
    Finish,
    /// It waits for another attempt: deferred, failed, or its lease ended.
    Return,
    /// It is given up.
    Park,
    /// Its worker wants others to help. It stays where it is.
    Split,
    /// The operator tries it again.
    RetryByHand,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Claim => "claimed",
            Self::Prepare => "prepared for commit",
            Self::Record => "recorded",
            Self::Void => "returned after a void commit",
            Self::Finish => "finished",
            Self::Return => "returned",
            Self::Park => "parked",
            Self::Split => "split: only a backup can",
            Self::RetryByHand => "retried: only a parked job can",
        })
    }
}

/// Every legal transition.
pub const TRANSITIONS: &[(JobState, Command, JobState)] = &[
    (JobState::Queued, Command::Claim, JobState::Running),
    (JobState::Running, Command::Prepare, JobState::Committing),
    (JobState::Committing, Command::Record, JobState::Done),
    (JobState::Committing, Command::Void, JobState::Queued),
    (JobState::Running, Command::Finish, JobState::Done),
    (JobState::Running, Command::Return, JobState::Queued),
    (JobState::Running, Command::Park, JobState::Parked),
    (JobState::Running, Command::Split, JobState::Running),
    (JobState::Committing, Command::Park, JobState::Parked),
    (JobState::Parked, Command::RetryByHand, JobState::Queued),
];

/// Where a command leads; `None` when it is not allowed.
pub fn next(state: JobState, command: Command) -> Option<JobState> {
    TRANSITIONS.iter().find(|(from, by, _)| *from == state && *by == command).map(|(_, _, to)| *to)
}

/// Moves a job, or says that it cannot be moved so.
pub fn apply(job: &mut JobRow, command: Command) -> Result<(), Error> {
    job.state =
        next(job.state, command).ok_or(Error::Transition { job: job.id, state: job.state, command })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMANDS: [Command; 9] = [
        Command::Claim,
        Command::Prepare,
        Command::Record,
        Command::Void,
        Command::Finish,
        Command::Return,
        Command::Park,
        Command::Split,
        Command::RetryByHand,
    ];

    #[test]
    fn only_the_listed_transitions_are_legal() {
        let legal = JobState::ALL
            .iter()
            .flat_map(|s| COMMANDS.map(|c| (*s, c)))
            .filter(|(s, c)| next(*s, *c).is_some());
        assert_eq!(legal.count(), TRANSITIONS.len());
    }

    #[test]
    fn nothing_leaves_done_and_nothing_but_a_claim_starts_an_attempt() {
        for command in COMMANDS {
            assert_eq!(next(JobState::Done, command), None);
        }
        let starts: Vec<_> =
            TRANSITIONS.iter().filter(|(from, _, to)| *to == JobState::Running && from != to).collect();
        assert_eq!(starts, [&(JobState::Queued, Command::Claim, JobState::Running)]);
    }

    #[test]
    fn a_job_that_may_have_committed_is_never_claimed() {
        assert_eq!(next(JobState::Committing, Command::Claim), None);
        assert_eq!(next(JobState::Committing, Command::Return), None);
    }
}
