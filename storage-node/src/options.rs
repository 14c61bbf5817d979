//! The storage node's configuration file.

use std::path::{Path, PathBuf};

use holdfast_proto::signed::Verifier;
use holdfast_runtime::{ByteSize, TelemetryOptions, TlsOptions};
use serde::{Deserialize, Serialize};

use crate::Error;

/// The smallest segment that makes sense: room for the largest record.
const SEGMENT_TARGET_MIN: ByteSize = ByteSize::kib(64);
/// The largest group commit.
const GROUP_COMMIT_MAX: ByteSize = ByteSize::mib(64);

/// Disks of one node. Each takes up to 256 MiB for its index and 64 MiB for what waits to be written, and a thread.
const DISKS_MAX: usize = 32;

/// An upload holds its segment in memory.
const UPLOAD_MAX: ByteSize = ByteSize::mib(256);

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
    /// The folder of everything the node keeps: one disk. With more `disks`, the first of them, which also holds the node's
    /// state and pins.
    pub data: PathBuf,
    /// How much `data` may keep; ingest stops at `ingest-stop-percent` of it.
    pub capacity: ByteSize,
    /// More disks. Records are spread over all of them by capacity; each has an index of its own. One that is lost does not
    /// stop the node: what it kept is brought back from other nodes. Not with `s3`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DiskOptions>,
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
    /// Copies from other nodes (moved, brought back) are taken in until the node is so full, counted as for
    /// `ingest-stop-percent`; must be below it, so that what moves leaves room for what is new. Default: 85.
    #[serde(default = "default_repair_stop")]
    pub repair_stop_percent: u8,
    /// How copies heal.
    #[serde(default)]
    pub repair: RepairOptions,
    /// Sealed segments are moved to a bucket; `data` is then only the journal in front of it, with the index. Default: they stay
    /// on the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Options>,
    /// Logs and traces.
    #[serde(default)]
    pub telemetry: TelemetryOptions,
}

/// One more disk of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DiskOptions {
    /// A folder on it, which only this node uses. A disk that takes the place of a lost one gets another path.
    pub path: PathBuf,
    /// How much it may keep; nothing more is put on it at `ingest-stop-percent` of that.
    pub capacity: ByteSize,
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

/// The bucket of a storage node. Each node writes under a prefix of its own: `<prefix>/<cluster>/<node-id>/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct S3Options {
    /// The bucket: with versioning and object lock, unless `lock` is `none`.
    pub bucket: String,
    /// What the objects' keys begin with. Default: nothing.
    #[serde(default)]
    pub prefix: String,
    /// Where the S3 server is: `https://host:port`. Default: Amazon's, in `region`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_url: Option<String>,
    /// The bucket's region. Default: us-east-1, which other servers than Amazon's take as well.
    #[serde(default = "default_region")]
    pub region: String,
    /// Whether the bucket's name goes into the path instead of the host's name: other servers than Amazon's mostly need it.
    /// Default: false.
    #[serde(default)]
    pub path_style: bool,
    /// The file of the access key's id.
    pub access_key_id_file: PathBuf,
    /// The file of the access key's secret.
    pub secret_access_key_file: PathBuf,
    /// A segment is sealed and uploaded at this size; `segment-target` does not count. Default: 64 MiB.
    #[serde(default = "default_upload_bytes")]
    pub upload_bytes: ByteSize,
    /// Or when it has held records for so many seconds, however few. Default: 300 seconds.
    #[serde(default = "default_upload_seconds")]
    pub upload_seconds: u64,
    /// `compliance`: objects are locked, so that nobody can delete them, whoever has the keys. `none`: they are not.
    /// Default: compliance.
    #[serde(default)]
    pub lock: LockOption,
    /// For how many days an object is locked from its upload. Default: 30 days.
    #[serde(default = "default_lock_days")]
    pub lock_days: u32,
}

/// Whether objects are locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockOption {
    /// In compliance mode: nobody can delete them or shorten the lock.
    #[default]
    Compliance,
    /// Not at all.
    None,
}

fn default_region() -> String {
    "us-east-1".to_owned()
}

fn default_upload_bytes() -> ByteSize {
    ByteSize::mib(64)
}

fn default_upload_seconds() -> u64 {
    300
}

fn default_lock_days() -> u32 {
    30
}

impl S3Options {
    /// For how many days objects are locked, if they are.
    pub(crate) fn lock_for_days(&self) -> Option<u32> {
        (self.lock == LockOption::Compliance).then_some(self.lock_days)
    }

    fn check(&self) -> Result<(), Error> {
        let refuse = |option, problem: String| Err(Error::Option { option, problem });
        if self.bucket.is_empty() {
            return refuse("s3.bucket", "is empty: name the bucket".to_owned());
        }
        if self.region.is_empty() {
            return refuse("s3.region", "is empty: name the bucket's region, or leave it out".to_owned());
        }
        if self.endpoint_url.as_ref().is_some_and(|url| !is_url(url)) {
            return refuse("s3.endpoint-url", "must be https://host:port or http://host:port".to_owned());
        }
        if !(SEGMENT_TARGET_MIN..=UPLOAD_MAX).contains(&self.upload_bytes) {
            return refuse(
                "s3.upload-bytes",
                format!("must be between {SEGMENT_TARGET_MIN} and {UPLOAD_MAX}"),
            );
        }
        if !(1..=86_400).contains(&self.upload_seconds) {
            return refuse("s3.upload-seconds", "must be between 1 and 86400".to_owned());
        }
        if !(1..=36_500).contains(&self.lock_days) {
            return refuse("s3.lock-days", "must be between 1 and 36500".to_owned());
        }
        Ok(())
    }
}

/// A scheme and a host, nothing else but a port: neither user nor password belong there.
fn is_url(url: &str) -> bool {
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    host.map(|host| host.strip_suffix('/').unwrap_or(host))
        .is_some_and(|host| !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']))
}

fn default_segment_target() -> ByteSize {
    ByteSize::mib(256)
}

fn default_ingest_stop() -> u8 {
    90
}

fn default_repair_stop() -> u8 {
    85
}

impl StorageNodeOptions {
    /// Checks what the types cannot.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |option, problem: String| Err(Error::Option { option, problem });
        if self.site.is_empty() {
            return refuse("site", "is empty: name the place where the node stands".to_owned());
        }
        if self.capacity.bytes() == 0 {
            return refuse("capacity", "must be more than 0: how much the node may keep".to_owned());
        }
        self.check_disks()?;
        if !(1..=99).contains(&self.ingest_stop_percent) {
            return refuse("ingest-stop-percent", "must be between 1 and 99".to_owned());
        }
        if self.repair_stop_percent == 0 || self.repair_stop_percent >= self.ingest_stop_percent {
            let problem =
                format!("must be at least 1 and below ingest-stop-percent ({})", self.ingest_stop_percent);
            return refuse("repair-stop-percent", problem);
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
        self.s3.as_ref().map_or(Ok(()), S3Options::check)?;
        self.repair.check()
    }

    fn check_disks(&self) -> Result<(), Error> {
        let refuse = |option, problem: String| Err(Error::Option { option, problem });
        if self.disks.is_empty() {
            return Ok(());
        }
        if self.s3.is_some() {
            let problem = "cannot be used with `s3`: a node with a bucket has one disk, `data`".to_owned();
            return refuse("disks", problem);
        }
        if self.disks.len() > DISKS_MAX {
            return refuse(
                "disks",
                format!("must be at most {DISKS_MAX}: start another node for the others"),
            );
        }
        let mut folders: Vec<&Path> = vec![&self.data];
        for DiskOptions { path, capacity } in &self.disks {
            if capacity.bytes() == 0 {
                return refuse(
                    "disks.capacity",
                    "must be more than 0: how much the disk may keep".to_owned(),
                );
            }
            let is_within = |other: &&&Path| path.starts_with(other) || other.starts_with(path);
            if let Some(other) = folders.iter().find(is_within) {
                let (path, other) = (path.display(), other.display());
                let problem =
                    format!("names {path} beside {other}: each disk is named once, none within another");
                return refuse("disks.path", problem);
            }
            folders.push(path);
        }
        Ok(())
    }

    /// A segment is sealed at this size.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.s3.as_ref().map_or(self.segment_target, |s3| s3.upload_bytes).bytes()
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
