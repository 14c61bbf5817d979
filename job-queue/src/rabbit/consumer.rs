//! The consuming side: declares its queues, survives restarts of the broker and the loss of a queue.
//!
//! The race to know: a delivery can outlive its connection. Its acknowledgement then fails, the broker hands the hint
//! out again, and the claim refuses it.

use std::{sync::Arc, task::Poll, time::Duration};

use async_trait::async_trait;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use holdfast_model::{JobClass, Random};
use holdfast_runtime::Backoff;
use lapin::{
    Acker, Channel, Connection,
    message::Delivery as Message,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
        QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    RabbitOptions, TRACEPARENT_HEADER, declare_dead_letters, declare_queue, job_queue_arguments, within,
};
use crate::{
    Delivery, HINT_VERSION, JobConsumer, JobHint, QueueError, QueueName, Rejection,
    delivery::{Settle, Settlement, Slots},
    hint::{check_region, ordered},
};

/// Delay after the first failed connection, doubling with full jitter.
const RECONNECT_FIRST: Duration = Duration::from_millis(250);
/// A broker that answers at all answers a subscription within this time.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(5);
/// A queue that is declared and lets nobody subscribe is made anew after this many failures in a row.
const STUCK_MAX: u32 = 2;
/// Largest delay between connections: how late a worker may notice that the broker is back.
const RECONNECT_MAX: Duration = Duration::from_secs(15);

/// Consumes from RabbitMQ with one connection.
///
/// Up to `prefetch` hints of each class may wait inside; they go back when the free slots fall to 0.
pub struct RabbitConsumer {
    options: RabbitOptions,
    /// Highest class first.
    queues: Vec<QueueName>,
    free_slots: u16,
    slots: Arc<Slots>,
    random: Arc<dyn Random>,
    link: Option<Link>,
    /// Kept here so that a cancelled `next` does not start connecting anew.
    connecting: Option<BoxFuture<'static, Result<Link, QueueError>>>,
    failures: u32,
    retry_at: Instant,
    /// The queue that let nobody subscribe, and how often in a row.
    stuck: Option<(String, u32)>,
}

struct Link {
    connection: Arc<Connection>,
    channel: Channel,
    /// In the order of the queues; empty while there are no free slots.
    subscriptions: Vec<lapin::Consumer>,
}

enum Event {
    Arrived(usize, Box<Message>),
    /// The broker ended a subscription: its queue is gone.
    QueueLost(usize),
    Broken(lapin::Error),
}

impl RabbitConsumer {
    /// Checks the options, then tries to connect and declare the queues. A broker that is away is no error:
    /// [`next`](JobConsumer::next) goes on trying.
    pub async fn connect(
        options: RabbitOptions,
        region: &str,
        classes: &[JobClass],
        prefetch: u16,
        random: Arc<dyn Random>,
    ) -> Result<Self, QueueError> {
        options.uri()?;
        check_region(region)?;
        let queues = ordered(classes)?
            .into_iter()
            .map(|class| QueueName { region: region.to_owned(), class })
            .collect();
        let mut consumer = Self {
            options,
            queues,
            free_slots: prefetch,
            slots: Arc::default(),
            random,
            link: None,
            connecting: None,
            failures: 0,
            retry_at: Instant::now(),
            stuck: None,
        };
        consumer.reconnect().await;
        Ok(consumer)
    }

    /// Makes one attempt to connect, after the back-off of earlier ones. Cancellation safe.
    async fn reconnect(&mut self) {
        tokio::time::sleep_until(self.retry_at).await;
        let attempt = self.connecting.get_or_insert_with(|| {
            let hopeless = self.stuck.take_if(|(_, times)| *times >= STUCK_MAX).map(|(queue, _)| queue);
            Link::open(self.options.clone(), self.queues.clone(), self.free_slots, hopeless).boxed()
        });
        let outcome = attempt.await;
        self.connecting = None;
        match outcome {
            Ok(link) => {
                info!(failed_attempts = self.failures, "consumer connected to the message broker");
                self.failures = 0;
                self.stuck = None;
                self.link = Some(link);
            }
            Err(error) => self.back_off(&error),
        }
    }

    fn back_off(&mut self, error: &QueueError) {
        let policy = Backoff::new(RECONNECT_FIRST, RECONNECT_MAX, 1).expect("constants are a valid policy");
        let delay = RECONNECT_FIRST / 2 + policy.delay(self.failures, self.random.as_ref());
        if self.failures == 0 {
            warn!(%error, "no connection to the message broker; trying again until it is back");
        }
        self.failures = self.failures.saturating_add(1);
        if let QueueError::QueueStuck { queue } = error {
            let times = self.stuck.take().filter(|(before, _)| before == queue).map_or(0, |(_, times)| times);
            self.stuck = Some((queue.clone(), times + 1));
        }
        self.retry_at = Instant::now() + delay;
    }

    /// Turns a message into a delivery; one that is not understood is dead-lettered.
    async fn accept(&mut self, index: usize, message: &Message) -> Option<Delivery> {
        let link = self.link.as_ref()?;
        let token = Token { acker: message.acker.clone(), _connection: link.connection.clone() };
        match read_hint(message) {
            Some(hint) => {
                Some(Delivery::new(hint, self.queues[index].clone(), Arc::new(token), self.slots.clone()))
            }
            None => {
                warn!(queue = %self.queues[index], "hint is not understood and is dead-lettered");
                if let Err(error) = token.settle(Settlement::Reject(Rejection::DeadLetter)).await {
                    self.link = None;
                    self.back_off(&error);
                }
                None
            }
        }
    }
}

/// Reads a hint of a version that this build understands.
fn read_hint(message: &Message) -> Option<JobHint> {
    let mut hint: JobHint = serde_json::from_slice(&message.data).ok()?;
    if hint.version != HINT_VERSION {
        return None;
    }
    let header =
        message.properties.headers().as_ref().and_then(|headers| headers.inner().get(TRACEPARENT_HEADER));
    if let Some(AMQPValue::LongString(traceparent)) = header {
        hint.traceparent = String::from_utf8_lossy(traceparent.as_bytes()).into_owned();
    }
    Some(hint)
}

#[async_trait]
impl JobConsumer for RabbitConsumer {
    async fn next(&mut self) -> Result<Delivery, QueueError> {
        loop {
            self.slots.wait_free(self.free_slots).await;
            let Some(link) = self.link.as_mut() else {
                self.reconnect().await;
                continue;
            };
            let event = tokio::select! {
                event = link.event() => event,
                () = self.slots.changed() => continue,
            };
            match event {
                Event::Arrived(index, message) => {
                    if let Some(delivery) = self.accept(index, &message).await {
                        return Ok(delivery);
                    }
                }
                Event::QueueLost(index) => {
                    warn!(queue = %self.queues[index], "queue was lost at the broker; it is declared again");
                    self.link = None;
                    self.retry_at = Instant::now();
                }
                Event::Broken(source) => {
                    self.link = None;
                    self.back_off(&QueueError::Broker { action: "consume", source: Box::new(source) });
                }
            }
        }
    }

    async fn set_free_slots(&mut self, free_slots: u16) -> Result<(), QueueError> {
        self.free_slots = free_slots;
        self.slots.give_back().await;
        // Taken out: whatever interrupts the change drops the connection, and the broker puts all hints back.
        let Some(mut link) = self.link.take() else { return Ok(()) };
        let changed = if free_slots == 0 {
            link.unsubscribe().await
        } else if link.subscriptions.is_empty() {
            link.subscribe(&self.queues, free_slots).await
        } else {
            Ok(())
        };
        match changed {
            Ok(()) => self.link = Some(link),
            Err(error) => self.back_off(&error),
        }
        Ok(())
    }
}

impl Link {
    /// Connects, declares and subscribes. A `hopeless` queue is deleted first, with the hints nobody can reach:
    /// their job rows publish them again. A broker killed right after a quorum queue was declared leaves such a one.
    async fn open(
        options: RabbitOptions,
        queues: Vec<QueueName>,
        window: u16,
        hopeless: Option<String>,
    ) -> Result<Self, QueueError> {
        let connection = options.open().await?;
        let channel = within("open a channel", connection.create_channel()).await?;
        if let Some(queue) = hopeless {
            warn!(queue, "queue lets nobody subscribe; it is deleted and declared anew");
            let delete = channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default());
            within("delete a stuck queue", delete).await?;
        }
        declare_dead_letters(&channel).await?;
        for queue in &queues {
            declare_queue(&channel, &queue.to_string(), job_queue_arguments()).await?;
        }
        let mut link = Self { connection: Arc::new(connection), channel, subscriptions: Vec::new() };
        if window > 0 {
            link.subscribe(&queues, window).await?;
        }
        Ok(link)
    }

    /// Subscribes in the order of the classes, each with a window of its own: quorum queues know no shared one.
    async fn subscribe(&mut self, queues: &[QueueName], window: u16) -> Result<(), QueueError> {
        within("set the prefetch", self.channel.basic_qos(window, BasicQosOptions::default())).await?;
        for queue in queues {
            let name = queue.to_string();
            let subscription = self.channel.basic_consume(
                name.as_str().into(),
                queue.class.as_str().into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            );
            let subscribed = tokio::time::timeout(SUBSCRIBE_TIMEOUT, within("subscribe", subscription)).await;
            self.subscriptions.push(subscribed.map_err(|_| QueueError::QueueStuck { queue: name })??);
        }
        Ok(())
    }

    /// Ends the subscriptions and gives back what they had prefetched.
    async fn unsubscribe(&mut self) -> Result<(), QueueError> {
        for mut subscription in std::mem::take(&mut self.subscriptions) {
            let cancel = self.channel.basic_cancel(subscription.tag(), BasicCancelOptions::default());
            within("unsubscribe", cancel).await?;
            while let Some(Some(Ok(message))) = subscription.next().now_or_never() {
                let options = BasicNackOptions { multiple: false, requeue: true };
                within("give a hint back", message.acker.nack(options)).await?;
            }
        }
        Ok(())
    }

    /// Waits for whatever happens first, the highest class first. Cancellation safe.
    async fn event(&mut self) -> Event {
        futures::future::poll_fn(|cx| {
            for (index, subscription) in self.subscriptions.iter_mut().enumerate() {
                match subscription.poll_next_unpin(cx) {
                    Poll::Ready(Some(Ok(message))) => {
                        return Poll::Ready(Event::Arrived(index, Box::new(message)));
                    }
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Event::Broken(error)),
                    Poll::Ready(None) => return Poll::Ready(Event::QueueLost(index)),
                    Poll::Pending => {}
                }
            }
            Poll::Pending
        })
        .await
    }
}

struct Token {
    acker: Acker,
    /// Keeps the connection open until the delivery is settled.
    _connection: Arc<Connection>,
}

#[async_trait]
impl Settle for Token {
    async fn settle(&self, settlement: Settlement) -> Result<(), QueueError> {
        let settled = async {
            match settlement {
                Settlement::Ack => self.acker.ack(BasicAckOptions::default()).await,
                Settlement::Reject(rejection) => {
                    let requeue = rejection == Rejection::Requeue;
                    self.acker.nack(BasicNackOptions { multiple: false, requeue }).await
                }
            }
        };
        if within("settle a hint", settled).await? { Ok(()) } else { Err(QueueError::DeliveryLost) }
    }
}
