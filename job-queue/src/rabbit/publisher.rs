//! The publishing side. A hint counts as published only when the broker has confirmed it and has not returned it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::{FieldTable, ShortString},
};
use tokio::sync::{Mutex, Semaphore};
use tracing::{info, warn};

use super::{DEAD_NAME, RabbitOptions, TRACEPARENT_HEADER, text, within};
use crate::{JobHint, JobPublisher, Published, QueueError, QueueName, hint::check_region};

/// Hints that wait for their confirmation at the same time.
const UNCONFIRMED_MAX: usize = 256;
/// Delivery mode of a message that survives a restart of the broker.
const PERSISTENT: u8 = 2;

#[derive(Clone)]
struct Link {
    connection: Arc<Connection>,
    channel: Channel,
    number: u64,
}

struct Shared {
    options: RabbitOptions,
    link: Mutex<Option<Link>>,
    /// Connections made so far: tells a failed one from its replacement.
    made: AtomicU64,
    unconfirmed: Semaphore,
}

/// Publishes to RabbitMQ. Clones share one connection.
#[derive(Clone)]
pub struct RabbitPublisher {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for RabbitPublisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RabbitPublisher").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl RabbitPublisher {
    /// Checks the options and tries to connect. A broker that is away is no error: the next use connects.
    pub async fn connect(options: RabbitOptions) -> Result<Self, QueueError> {
        options.uri()?;
        let shared = Shared {
            options,
            link: Mutex::new(None),
            made: AtomicU64::new(0),
            unconfirmed: Semaphore::new(UNCONFIRMED_MAX),
        };
        let publisher = Self { shared: Arc::new(shared) };
        if let Err(error) = publisher.link().await {
            warn!(%error, "no connection to the message broker yet");
        }
        Ok(publisher)
    }

    /// The present connection, or a new one.
    async fn link(&self) -> Result<Link, QueueError> {
        let mut slot = self.shared.link.lock().await;
        if let Some(link) = slot.as_ref()
            && link.connection.status().connected()
            && link.channel.status().connected()
        {
            return Ok(link.clone());
        }
        let connection = self.shared.options.open().await?;
        let channel = within("open a channel", connection.create_channel()).await?;
        within("turn on confirms", channel.confirm_select(ConfirmSelectOptions::default())).await?;
        let number = self.shared.made.fetch_add(1, Ordering::Relaxed);
        info!(number, "publisher connected to the message broker");
        Ok(slot.insert(Link { connection: Arc::new(connection), channel, number }).clone())
    }

    /// Forgets a connection that failed, unless it was replaced already.
    async fn forget(&self, failed: &Link) {
        let mut slot = self.shared.link.lock().await;
        if slot.as_ref().is_some_and(|link| link.number == failed.number) {
            *slot = None;
        }
    }

    /// Counts the messages of a queue on a channel of its own: a missing queue closes the channel.
    async fn count(&self, queue: &str) -> Result<u64, QueueError> {
        let link = self.link().await?;
        let channel = within("open a channel", link.connection.create_channel()).await?;
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
        match within("count a queue", declared).await {
            Ok(found) => {
                within("close a channel", channel.close(200, "counted".into())).await?;
                Ok(u64::from(found.message_count()))
            }
            Err(QueueError::Broker { source, .. }) if is_not_found(&source) => Ok(0),
            Err(error) => {
                self.forget(&link).await;
                Err(error)
            }
        }
    }
}

fn is_not_found(error: &lapin::Error) -> bool {
    matches!(error.kind(), lapin::ErrorKind::ProtocolError(amqp)
        if matches!(amqp.kind(), AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND)))
}

fn properties(hint: &JobHint) -> BasicProperties {
    let properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type(ShortString::from("application/json"));
    if hint.traceparent.is_empty() {
        return properties;
    }
    let mut headers = FieldTable::default();
    headers.insert(TRACEPARENT_HEADER.into(), text(&hint.traceparent));
    properties.with_headers(headers)
}

#[async_trait]
impl JobPublisher for RabbitPublisher {
    async fn publish(&self, queue: &QueueName, hint: &JobHint) -> Result<Published, QueueError> {
        check_region(&queue.region)?;
        let body = serde_json::to_vec(hint).map_err(QueueError::Hint)?;
        let _one = self.shared.unconfirmed.acquire().await.expect("the semaphore is never closed");
        let link = self.link().await?;
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let name = queue.to_string();
        let sent = async {
            link.channel
                .basic_publish("".into(), name.as_str().into(), options, &body, properties(hint))
                .await?
                .await
        };
        let confirmation = match within("confirm a hint", sent).await {
            Ok(confirmation) => confirmation,
            Err(error) => {
                self.forget(&link).await;
                return Err(error);
            }
        };
        match confirmation {
            Confirmation::Ack(None) => Ok(Published::Confirmed),
            Confirmation::Ack(Some(_returned)) => Ok(Published::Returned),
            Confirmation::Nack(_) => Err(QueueError::Full { queue: name }),
            Confirmation::NotRequested => {
                self.forget(&link).await;
                Err(QueueError::Timeout { action: "confirm a hint" })
            }
        }
    }

    async fn depth(&self, queue: &QueueName) -> Result<u64, QueueError> {
        self.count(&queue.to_string()).await
    }

    async fn dead(&self) -> Result<u64, QueueError> {
        self.count(DEAD_NAME).await
    }
}
