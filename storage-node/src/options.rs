//! The storage node's configuration file.

use std::path::PathBuf;

use holdfast_proto::signed::Verifier;
use holdfast_runtime::{ByteSize, TelemetryOptions, TlsOptions};
use serde::{Deserialize, Serialize};

use crate::Error;

/// The smallest segment that makes sense: room for the largest record.
const SEGMENT_TARGET_MIN: ByteSize = ByteSize::kib(64);
/// The largest group commit.
const GROUP_COMMIT_MAX: ByteSize = ByteSize::mib(64);

/// One storage node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct StorageNodeOptions {
    /// The node's number in the layout: it stays with the data folder for life.
    pub node_id: u64,
    /// The place where the node stands: its failure domain.
    pub site: String,
    /// The cluster's name, as in the certificates.
    pub cluster: String,
    /// Where gRPC listens: `host:port`.
    pub listen: String,
    /// Where `/healthz`, `/readyz` and `/metrics` are: `host:port`. Default: nowhere.
    #[serde(default)]
    pub admin_listen: Option<String>,
    /// The folder of everything the node keeps: one disk.
    pub data: PathBuf,
    /// How much the node may keep; ingest stops at `ingest-stop-percent` of it.
    pub capacity: ByteSize,
    /// The node's certificate, key and certificate authority.
    pub tls: TlsOptions,
    /// The coordinator's public key: 32 bytes, raw or in hexadecimal. It checks session tokens and commit tickets.
    pub coordinator_public_key_file: PathBuf,
    /// A segment is sealed at this size. Default: 256 MiB.
    #[serde(default = "default_segment_target")]
    pub segment_target: ByteSize,
    /// How many puts share one sync.
    #[serde(default)]
    pub group_commit: GroupCommitOptions,
    /// Ingest stops when the node keeps so many percent of `capacity`, or of what it keeps and the file system has left. It also
    /// stops when the file system has less than 2 % or 1 GiB left. Reads and pins go on. Default: 90.
    #[serde(default = "default_ingest_stop")]
    pub ingest_stop_percent: u8,
    /// How copies heal.
    #[serde(default)]
    pub repair: RepairOptions,
    /// Logs and traces.
    #[serde(default)]
    pub telemetry: TelemetryOptions,
}

/// A group is synced at so many bytes or after so much time, whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct GroupCommitOptions {
    /// Default: 4 MiB.
    pub bytes: ByteSize,
    /// Default: 20 milliseconds.
    pub millis: u64,
}

impl Default for GroupCommitOptions {
    fn default() -> Self {
        Self { bytes: ByteSize::mib(4), millis: 20 }
    }
}

/// How the node finds missing and damaged copies and brings them back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RepairOptions {
    /// A record that could not be brought back is tried again after so many seconds, then after twice as many, and so on up
    /// to 64 times as many. Default: 60 seconds, so at most 64 minutes.
    pub retry_seconds: u64,
    /// Every partition is compared with its other owners so often. Default: 60 minutes.
    pub compare_minutes: u64,
    /// Every stored byte is read and checked so often. Default: 30 days.
    pub scrub_period_days: u64,
    /// After each step of comparing and of bringing back, the node rests so many times as long as the step took: 2 leaves
    /// two thirds of the disk to others. Default: 2.
    pub resync_tranquility: u32,
    /// The same for checking. Default: 4, which leaves four fifths of the disk to others.
    pub scrub_tranquility: u32,
}

impl Default for RepairOptions {
    fn default() -> Self {
        Self {
            retry_seconds: 60,
            compare_minutes: 60,
            scrub_period_days: 30,
            resync_tranquility: 2,
            scrub_tranquility: 4,
        }
    }
}

impl RepairOptions {
    fn check(&self) -> Result<(), Error> {
        let within = |option, value: u64, limits: std::ops::RangeInclusive<u64>| {
            let problem = format!("must be between {} and {}", limits.start(), limits.end());
            if limits.contains(&value) { Ok(()) } else { Err(Error::Option { option, problem }) }
        };
        within("repair.retry-seconds", self.retry_seconds, 1..=3_600)?;
        within("repair.compare-minutes", self.compare_minutes, 1..=10_080)?;
        within("repair.scrub-period-days", self.scrub_period_days, 1..=365)?;
        within("repair.resync-tranquility", self.resync_tranquility.into(), 0..=100)?;
        within("repair.scrub-tranquility", self.scrub_tranquility.into(), 0..=100)
    }
}

fn default_segment_target() -> ByteSize {
    ByteSize::mib(256)
}

fn default_ingest_stop() -> u8 {
    90
}

impl StorageNodeOptions {
    /// Checks what the types cannot.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |option, problem: String| Err(Error::Option { option, problem });
        if self.site.is_empty() {
            return refuse("site", "is empty: name the place where the node stands".to_owned());
        }
        if !(1..=99).contains(&self.ingest_stop_percent) {
            return refuse("ingest-stop-percent", "must be between 1 and 99".to_owned());
        }
        if self.segment_target < SEGMENT_TARGET_MIN {
            return refuse("segment-target", format!("must be at least {SEGMENT_TARGET_MIN}"));
        }
        if self.group_commit.bytes > GROUP_COMMIT_MAX {
            return refuse("group-commit.bytes", format!("must be at most {GROUP_COMMIT_MAX}"));
        }
        if !(1..=1000).contains(&self.group_commit.millis) {
            return refuse("group-commit.millis", "must be between 1 and 1000".to_owned());
        }
        self.repair.check()
    }

    /// Reads the coordinator's public key.
    pub fn verifier(&self) -> Result<Verifier, Error> {
        let path = &self.coordinator_public_key_file;
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let wrong = || Error::Option {
            option: "coordinator-public-key-file",
            problem: format!("names {}, which is not a raw Ed25519 public key", path.display()),
        };
        let hexadecimal = std::str::from_utf8(&bytes).ok().and_then(|text| hex::decode(text.trim()).ok());
        Verifier::from_public_key(&hexadecimal.unwrap_or(bytes)).map_err(|_| wrong())
    }
}
