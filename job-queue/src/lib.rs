//! Publishes and consumes job hints. **The job row in the catalog is the truth; a message is only a hint** that a job
//! waits: a lost one is published again, a doubled one is refused at the claim.
//!
//! Two sides with one behaviour: [`InProcessQueue`] and RabbitMQ ([`RabbitPublisher`], [`RabbitConsumer`]). The
//! invariant: a hint is out of the queue only after [`Delivery::ack`]; whoever drops a delivery gives it back.

mod delivery;
mod hint;
mod in_process;
mod rabbit;

use async_trait::async_trait;

pub use delivery::{Delivery, Rejection};
pub use hint::{HINT_VERSION, JobHint, QueueName};
pub use in_process::{InProcessConsumer, InProcessQueue};
pub use rabbit::{RabbitConsumer, RabbitOptions, RabbitPublisher};

/// A hint handed out more often than this without an acknowledgement is dead-lettered.
pub const DELIVERY_LIMIT: u32 = 20;
/// Hints one queue holds; more are refused. The dispatcher keeps far below it.
pub const QUEUE_LIMIT: u64 = 10_000;

/// What became of a published hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The queue has it, durably.
    Confirmed,
    /// No such queue: no worker of this region and class has ever come up. Counts as not published.
    Returned,
}

/// Sends hints. Clones of the implementations share their connection.
#[async_trait]
pub trait JobPublisher: Send + Sync {
    /// Publishes a hint and waits until the queue has confirmed or returned it. Safe to repeat.
    async fn publish(&self, queue: &QueueName, hint: &JobHint) -> Result<Published, QueueError>;

    /// How many hints wait in the queue; 0 if there is no such queue.
    async fn depth(&self, queue: &QueueName) -> Result<u64, QueueError>;

    /// How many hints were given up (dead-lettered), over all queues.
    async fn dead(&self) -> Result<u64, QueueError>;
}

/// Receives hints of one region and some classes.
#[async_trait]
pub trait JobConsumer: Send {
    /// Waits for the next hint, of the highest class among those that are there. Cancellation safe.
    ///
    /// Waits while as many deliveries are unsettled as there are free slots. Broken connections are made again with
    /// back-off inside; an error is returned only for what waiting cannot mend.
    async fn next(&mut self) -> Result<Delivery, QueueError>;

    /// Sets how many more jobs this worker can take. At 0 hints that were prefetched go back for others, and
    /// [`next`](Self::next) waits for ever.
    async fn set_free_slots(&mut self, free_slots: u16) -> Result<(), QueueError>;
}

/// The queue did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The broker cannot be reached, or the connection broke.
    #[error("cannot reach the message broker to {action}")]
    Broker {
        /// What was being done.
        action: &'static str,
        /// Why.
        #[source]
        source: Box<lapin::Error>,
    },
    /// The broker did not answer in time.
    #[error("the message broker did not {action} in time")]
    Timeout {
        /// What was being done.
        action: &'static str,
    },
    /// A queue is there and answers nobody.
    #[error("queue {queue} is there and does not let anybody subscribe")]
    QueueStuck {
        /// The queue.
        queue: String,
    },
    /// The connection a delivery came by is gone: the hint will come again, and the claim will refuse it.
    #[error("the connection of the delivery is gone, the hint will come again")]
    DeliveryLost,
    /// The broker refused the hint: the queue is full.
    #[error("queue {queue} refused the hint: it holds its limit of {QUEUE_LIMIT}")]
    Full {
        /// The queue.
        queue: String,
    },
    /// The broker's address is not understood.
    #[error("the broker address is not amqp://user@host:port/vhost or amqps://…")]
    Url,
    /// The broker's password file cannot be read.
    #[error("cannot read the broker password file {}", path.display())]
    PasswordFile {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A name cannot be part of a queue's name.
    #[error("'{region}' is not a region: use 1 to 64 of a-z, 0-9 and '-'")]
    Region {
        /// The name.
        region: String,
    },
    /// The text is not the name of a job queue.
    #[error("'{name}' is not jobs.v1.<region>.<class>")]
    Name {
        /// The text.
        name: String,
    },
    /// A consumer without classes would wait for ever.
    #[error("a consumer needs at least one job class")]
    NoClasses,
    /// The hint cannot be written or read.
    #[error("the hint is not understood")]
    Hint(#[source] serde_json::Error),
}

impl holdfast_runtime::Retryable for QueueError {
    fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Broker { .. } | Self::Timeout { .. } | Self::QueueStuck { .. } | Self::Full { .. }
        )
    }
}
