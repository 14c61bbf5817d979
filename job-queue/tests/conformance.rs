//! One suite for both queues: what a dispatcher and a worker may rely on, whichever queue is behind.
//!
//! RabbitMQ comes from `HOLDFAST_TEST_AMQP_URL`, else a broker of our own is started if one is installed.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod broker;
mod suite;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use holdfast_job_queue::{
    InProcessQueue, JobConsumer, JobPublisher, Published, QueueName, RabbitConsumer, RabbitOptions,
    RabbitPublisher,
};
use holdfast_model::{JobClass, JobId};
use holdfast_runtime::SystemRandom;

use crate::{
    broker::Broker,
    suite::{Side, eventually, hint, next},
};

#[async_trait(?Send)]
impl Side for InProcessQueue {
    fn publisher(&self) -> Arc<dyn JobPublisher> {
        Self::publisher(self)
    }

    async fn consumer(&self, region: &str, classes: &[JobClass], prefetch: u16) -> Box<dyn JobConsumer> {
        Box::new(Self::consumer(self, region, classes, prefetch).unwrap())
    }

    async fn lose(&self, queue: &QueueName) {
        self.forget(queue);
    }

    async fn wait_prefetched(&self, _queue: &QueueName) {}
}

struct Rabbit {
    options: RabbitOptions,
    publisher: RabbitPublisher,
}

impl Rabbit {
    async fn new(url: &str) -> Self {
        let options = RabbitOptions::new(url);
        let publisher = RabbitPublisher::connect(options.clone()).await.unwrap();
        Self { options, publisher }
    }
}

#[async_trait(?Send)]
impl Side for Rabbit {
    fn publisher(&self) -> Arc<dyn JobPublisher> {
        Arc::new(self.publisher.clone())
    }

    async fn consumer(&self, region: &str, classes: &[JobClass], prefetch: u16) -> Box<dyn JobConsumer> {
        let random = Arc::new(SystemRandom);
        let options = self.options.clone();
        Box::new(RabbitConsumer::connect(options, region, classes, prefetch, random).await.unwrap())
    }

    async fn lose(&self, queue: &QueueName) {
        let connection =
            lapin::Connection::connect(&self.options.url, lapin::ConnectionProperties::default())
                .await
                .unwrap();
        let channel = connection.create_channel().await.unwrap();
        let options = lapin::options::QueueDeleteOptions::default();
        channel.queue_delete(queue.to_string().as_str().into(), options).await.unwrap();
    }

    async fn wait_prefetched(&self, queue: &QueueName) {
        eventually("prefetched", async || self.publisher.depth(queue).await.unwrap() == 0).await;
    }
}

#[tokio::test]
async fn the_in_process_queue_keeps_its_promises() {
    suite::run(&InProcessQueue::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_keeps_the_same_promises_and_survives_restarts() {
    if let Ok(url) = std::env::var("HOLDFAST_TEST_AMQP_URL") {
        suite::run(&Rabbit::new(&url).await).await;
        println!("skipped: restarts of the broker, it is not ours");
        return;
    }
    let Some(mut broker) = Broker::start().await else {
        println!("skipped: neither HOLDFAST_TEST_AMQP_URL nor an installed rabbitmq-server");
        return;
    };
    let side = Rabbit::new(&broker.url()).await;
    suite::run(&side).await;
    a_killed_broker_loses_nothing_confirmed_and_heals(&side, &mut broker).await;
}

fn late(region: &str) -> QueueName {
    QueueName::new(region, JobClass::Late).unwrap()
}

/// Consumes until all of the jobs were seen; what was in hand or unacknowledged may come twice.
async fn collect(mut consumer: Box<dyn JobConsumer>, wanted: BTreeSet<JobId>) {
    let mut missing = wanted;
    while !missing.is_empty() {
        let delivery = consumer.next().await.unwrap();
        missing.remove(&delivery.hint.job);
        delivery.ack().await.ok();
    }
}

async fn confirmed(publisher: &dyn JobPublisher, queue: &QueueName, n: u8) -> bool {
    matches!(publisher.publish(queue, &hint(n)).await, Ok(Published::Confirmed))
}

async fn a_killed_broker_loses_nothing_confirmed_and_heals(side: &Rabbit, broker: &mut Broker) {
    let (old, new) = (late("old"), late("new"));
    let publisher = side.publisher();
    let mut consumer = side.consumer("old", &[JobClass::Late], 4).await;
    for n in 0..3 {
        assert!(confirmed(publisher.as_ref(), &old, n).await);
    }
    let in_hand = next(consumer.as_mut()).await;
    // The broker registers a new quorum queue on disk half a second late; only from then on a kill cannot hurt it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let fresh = side.consumer("new", &[JobClass::Late], 4).await;
    let collecting = tokio::spawn(collect(consumer, (0..4).map(|n| hint(n).job).collect()));
    let healing = tokio::spawn(collect(fresh, BTreeSet::from([hint(7).job])));

    broker.kill();
    eventually("publishing fails while the broker is away", async || {
        publisher.publish(&old, &hint(3)).await.is_err()
    })
    .await;
    broker.launch().await;

    eventually("published again", async || confirmed(publisher.as_ref(), &old, 3).await).await;
    tokio::time::timeout(suite::PATIENCE, collecting).await.expect("all jobs arrive").unwrap();
    // The consumer has another connection by now, so that the old one is known to be gone. Before, only the system knew.
    assert!(in_hand.ack().await.is_err(), "an acknowledgement that reached nobody says so");
    // The job row publishes what nobody has claimed again and again, as the dispatcher does.
    eventually("a queue that the kill has ruined is made anew", async || {
        confirmed(publisher.as_ref(), &new, 7).await;
        healing.is_finished()
    })
    .await;
    healing.await.unwrap();
}
