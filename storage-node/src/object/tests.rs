//! One suite for segments on a disk and segments in a bucket, and what goes wrong only with a bucket.

mod at_once;
mod away;
mod conformance;
mod kills;
mod place;
mod probes;
#[cfg(feature = "s3")]
mod rate;
#[cfg(feature = "s3")]
mod seaweed;
#[cfg(feature = "s3")]
mod server;
#[cfg(feature = "s3")]
mod started;
