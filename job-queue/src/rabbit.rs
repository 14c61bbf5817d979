//! The queue of a cluster: RabbitMQ quorum queues with publisher confirms, `mandatory` and dead-lettering.
//!
//! Consumers declare the queues, publishers never do: a hint for a region where no worker has come up is returned
//! instead of waiting unseen. Connections are made when needed and made again when they break.

mod consumer;
mod publisher;

use std::{future::Future, path::PathBuf, time::Duration};

use lapin::{
    Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, LongString},
    uri::AMQPUri,
};
use serde::{Deserialize, Serialize};

pub use consumer::RabbitConsumer;
pub use publisher::RabbitPublisher;

use crate::{DELIVERY_LIMIT, QUEUE_LIMIT, QueueError};

/// The exchange and queue of hints that nobody can claim.
const DEAD_NAME: &str = "jobs.v1.dead";
/// Header of a hint that carries its trace.
const TRACEPARENT_HEADER: &str = "traceparent";
/// No answer of the broker takes longer than this.
const BROKER_TIMEOUT: Duration = Duration::from_secs(10);
/// Both sides notice a dead connection after about twice this, unless the URL says otherwise.
const HEARTBEAT_SECONDS: u16 = 10;

/// Where the broker is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RabbitOptions {
    /// `amqp://user@host:port/vhost`, or `amqps://` for TLS. `?heartbeat=` in seconds, default 10.
    pub url: String,
    /// A file with the password of the URL's user. Default: the password of the URL.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// The name of the connections in the broker's management. Default `holdfast`.
    #[serde(default = "default_connection_name")]
    pub connection_name: String,
}

fn default_connection_name() -> String {
    "holdfast".to_owned()
}

impl std::fmt::Debug for RabbitOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL may hold a password.
        f.debug_struct("RabbitOptions")
            .field("password_file", &self.password_file)
            .field("connection_name", &self.connection_name)
            .finish_non_exhaustive()
    }
}

impl RabbitOptions {
    /// Options for the broker at this URL.
    pub fn new(url: &str) -> Self {
        Self { url: url.to_owned(), password_file: None, connection_name: default_connection_name() }
    }

    /// Checks the URL and reads the password, anew for each connection so that it can be rotated.
    fn uri(&self) -> Result<AMQPUri, QueueError> {
        let mut uri: AMQPUri = self.url.parse().map_err(|_| QueueError::Url)?;
        if let Some(path) = &self.password_file {
            let password = std::fs::read_to_string(path)
                .map_err(|source| QueueError::PasswordFile { path: path.clone(), source })?;
            uri.authority.userinfo.password = password.trim_end_matches(['\r', '\n']).to_owned();
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        Ok(uri)
    }

    async fn open(&self) -> Result<Connection, QueueError> {
        holdfast_runtime::install_crypto();
        let properties =
            ConnectionProperties::default().with_connection_name(self.connection_name.as_str().into());
        within("connect", Connection::connect_uri(self.uri()?, properties)).await
    }
}

/// Runs one exchange with the broker under the time limit.
async fn within<T>(
    action: &'static str,
    exchange: impl Future<Output = lapin::Result<T>>,
) -> Result<T, QueueError> {
    tokio::time::timeout(BROKER_TIMEOUT, exchange)
        .await
        .map_err(|_| QueueError::Timeout { action })?
        .map_err(|source| QueueError::Broker { action, source: Box::new(source) })
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

fn number(value: u64) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(value).unwrap_or(i64::MAX))
}

/// What every quorum queue of ours is declared with. Changing it means a new queue name.
fn job_queue_arguments() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-delivery-limit".into(), number(u64::from(DELIVERY_LIMIT)));
    arguments.insert("x-max-length".into(), number(QUEUE_LIMIT));
    // At-least-once dead-lettering works only together with reject-publish.
    arguments.insert("x-overflow".into(), text("reject-publish"));
    arguments.insert("x-dead-letter-exchange".into(), text(DEAD_NAME));
    arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    arguments
}

async fn declare_dead_letters(channel: &Channel) -> Result<(), QueueError> {
    let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let exchange =
        channel.exchange_declare(DEAD_NAME.into(), ExchangeKind::Fanout, options, FieldTable::default());
    within("declare the dead-letter exchange", exchange).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-max-length".into(), number(QUEUE_LIMIT));
    arguments.insert("x-overflow".into(), text("drop-head"));
    declare_queue(channel, DEAD_NAME, arguments).await?;
    let bind = channel.queue_bind(
        DEAD_NAME.into(),
        DEAD_NAME.into(),
        "".into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    within("bind the dead-letter queue", bind).await
}

async fn declare_queue(channel: &Channel, name: &str, arguments: FieldTable) -> Result<(), QueueError> {
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    within("declare a queue", channel.queue_declare(name.into(), options, arguments)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_comes_from_a_file_and_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "hunter2\n").unwrap();
        let options = RabbitOptions {
            password_file: Some(file.clone()),
            ..RabbitOptions::new("amqp://app:other@broker.example:5673/prod")
        };
        let uri = options.uri().unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(uri.authority.userinfo.password, "hunter2");
        assert_eq!((uri.authority.port, uri.query.heartbeat), (5673, Some(HEARTBEAT_SECONDS)));
        let shown = format!("{options:?}");
        assert!(!shown.contains("other") && !shown.contains("hunter2"), "{shown}");
        assert!(matches!(options.uri(), Err(QueueError::PasswordFile { .. })));
        assert!(matches!(RabbitOptions::new("http://x").uri(), Err(QueueError::Url)));
    }
}
