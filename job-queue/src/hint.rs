//! What is sent, and where to.

use std::{fmt, str::FromStr};

use holdfast_model::{JobClass, JobId};
use serde::{Deserialize, Serialize};

use crate::QueueError;

/// The version of hints this build writes and understands.
pub const HINT_VERSION: u32 = 1;
const QUEUE_PREFIX: &str = "jobs.v1.";
const REGION_CHARS_MAX: usize = 64;

/// Says that a job waits. All else stands in the job row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobHint {
    /// Version of this message.
    pub version: u32,
    /// The job that waits.
    pub job: JobId,
    /// The trace it belongs to, as W3C `traceparent`; may be empty. Travels as a header, not in the body.
    #[serde(skip)]
    pub traceparent: String,
}

impl JobHint {
    /// Makes a hint of the current version.
    pub fn new(job: JobId, traceparent: String) -> Self {
        Self { version: HINT_VERSION, job, traceparent }
    }
}

/// The queue of one region and class: `jobs.v1.<region>.<class>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueName {
    /// Where the workers are.
    pub region: String,
    /// What goes first.
    pub class: JobClass,
}

impl QueueName {
    /// Makes a name after checking the region.
    pub fn new(region: &str, class: JobClass) -> Result<Self, QueueError> {
        check_region(region)?;
        Ok(Self { region: region.to_owned(), class })
    }
}

pub(crate) fn check_region(region: &str) -> Result<(), QueueError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=REGION_CHARS_MAX).contains(&region.len()) && region.bytes().all(plain) {
        Ok(())
    } else {
        Err(QueueError::Region { region: region.to_owned() })
    }
}

/// The classes of a consumer, highest first, each once.
pub(crate) fn ordered(classes: &[JobClass]) -> Result<Vec<JobClass>, QueueError> {
    let mut classes = classes.to_vec();
    classes.sort_unstable();
    classes.dedup();
    if classes.is_empty() { Err(QueueError::NoClasses) } else { Ok(classes) }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{QUEUE_PREFIX}{}.{}", self.region, self.class)
    }
}

impl FromStr for QueueName {
    type Err = QueueError;

    fn from_str(name: &str) -> Result<Self, QueueError> {
        let wrong = || QueueError::Name { name: name.to_owned() };
        let (region, class) =
            name.strip_prefix(QUEUE_PREFIX).and_then(|rest| rest.split_once('.')).ok_or_else(wrong)?;
        Self::new(region, class.parse().map_err(|_| wrong())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_hints_have_a_stable_form() {
        let queue = QueueName::new("eu-west", JobClass::FirstFull).unwrap();
        assert_eq!(queue.to_string(), "jobs.v1.eu-west.first-full");
        assert_eq!(queue.to_string().parse::<QueueName>().unwrap(), queue);
        for wrong in ["", "EU", "a.b", "a b"] {
            assert!(QueueName::new(wrong, JobClass::Late).is_err(), "{wrong}");
        }
        assert!("jobs.v1.eu.sometime".parse::<QueueName>().is_err());
        let hint = JobHint::new(JobId([7; 16]), "00-a".to_owned());
        let body = serde_json::to_string(&hint).unwrap();
        assert_eq!(body, r#"{"version":1,"job":"07070707070707070707070707070707"}"#);
    }

    #[test]
    fn classes_are_ordered_and_never_none() {
        let mixed = [JobClass::Verify, JobClass::Restore, JobClass::Verify];
        assert_eq!(ordered(&mixed).unwrap(), [JobClass::Restore, JobClass::Verify]);
        assert!(matches!(ordered(&[]), Err(QueueError::NoClasses)));
    }
}
