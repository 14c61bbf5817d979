//! What an operator can set about talking to storage nodes, and the fixed limits of the wire.

use holdfast_runtime::{ByteSize, HumanDuration};
use serde::{Deserialize, Serialize};

/// Most ids in one `Have` or `Get` request: the wire's limit.
pub(crate) const BATCH_IDS_MAX: usize = 4096;
/// Largest `Put` frame, unless one record alone is larger: the wire's limit.
pub(crate) const PUT_FRAME_BYTES_MAX: u64 = 1 << 20;
/// Largest answer read: all pins of a resource and a job checkpoint of 16 MiB fit well.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Frames waiting for, and frames sent and unanswered on, one node's put stream. The byte budget usually ends sooner.
pub(crate) const LANE_FRAMES_MAX: usize = 64;
/// `Have` requests of one call in flight.
pub(crate) const HAVE_CALLS_IN_FLIGHT: usize = 8;
/// `Get` requests of one call in flight.
pub(crate) const GET_CALLS_IN_FLIGHT: usize = 8;
/// Largest job checkpoint: the wire's limit.
pub(crate) const CHECKPOINT_BYTES_MAX: usize = 16 << 20;
/// How often a read asks a holder that did not answer.
pub(crate) const READ_PASSES: u32 = 3;

/// How storage nodes are talked to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct StorageClientOptions {
    /// Bytes of records one session holds for the nodes: queued, or sent and not yet durable. Default 32 MiB.
    pub in_flight_bytes: ByteSize,
    /// Bytes of records per put frame, at most 1 MiB; a larger record travels alone. Default 1 MiB.
    pub put_frame_bytes: ByteSize,
    /// Ids per `have` request, at most 4,096. Default 4,096.
    pub have_batch: usize,
    /// Ids per `get` request, at most 4,096. Default 256.
    pub get_batch: usize,
    /// How long a write waits for an owner that does not answer, before it fails. Default 5 min.
    pub retry_for: HumanDuration,
    /// How long reading pins waits for a majority of owners, before it answers with what it has. Default 1 s.
    pub read_retry_for: HumanDuration,
    /// How long a node may stay silent on a request. Default 30 s.
    pub request_timeout: HumanDuration,
    /// How long a node may take to tell its status. Default 3 s.
    pub status_timeout: HumanDuration,
    /// How long a node that did not answer comes last among owners. Default 5 s.
    pub down_for: HumanDuration,
    /// How long the remaining owners are waited for once a majority has answered. Default 2 s.
    pub straggler_wait: HumanDuration,
}

impl Default for StorageClientOptions {
    fn default() -> Self {
        let seconds = HumanDuration::seconds;
        Self {
            in_flight_bytes: ByteSize::mib(32),
            put_frame_bytes: ByteSize(PUT_FRAME_BYTES_MAX),
            have_batch: BATCH_IDS_MAX,
            get_batch: 256,
            retry_for: seconds(300),
            read_retry_for: seconds(1),
            request_timeout: seconds(30),
            status_timeout: seconds(3),
            down_for: seconds(5),
            straggler_wait: seconds(2),
        }
    }
}

impl StorageClientOptions {
    /// Brings every size within what the wire allows.
    pub(crate) fn clamped(mut self) -> Self {
        self.in_flight_bytes.0 = self.in_flight_bytes.0.clamp(1 << 16, u64::from(u32::MAX >> 1));
        self.put_frame_bytes.0 = self.put_frame_bytes.0.clamp(1, PUT_FRAME_BYTES_MAX);
        self.have_batch = self.have_batch.clamp(1, BATCH_IDS_MAX);
        self.get_batch = self.get_batch.clamp(1, BATCH_IDS_MAX);
        self
    }
}
