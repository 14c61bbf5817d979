//! The promises of a job queue, as generic functions over both sides. Each uses a region of its own.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use holdfast_job_queue::{
    DELIVERY_LIMIT, Delivery, JobConsumer, JobHint, JobPublisher, Published, QueueName, Rejection,
};
use holdfast_model::{JobClass, JobId};

/// How long something may take that must happen.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// How long nothing must happen before it is believed that nothing will.
const QUIET: Duration = Duration::from_millis(300);

/// One kind of queue.
#[async_trait(?Send)]
pub trait Side: Sync {
    fn publisher(&self) -> Arc<dyn JobPublisher>;
    async fn consumer(&self, region: &str, classes: &[JobClass], prefetch: u16) -> Box<dyn JobConsumer>;
    /// Loses a queue with all that is in it.
    async fn lose(&self, queue: &QueueName);
    /// Waits until consumers have prefetched all they will.
    async fn wait_prefetched(&self, queue: &QueueName);
}

pub async fn run<S: Side>(side: &S) {
    a_hint_arrives_once_with_its_trace(side).await;
    without_a_queue_a_hint_is_returned(side).await;
    higher_classes_go_first(side).await;
    no_more_is_handed_out_than_there_are_free_slots(side).await;
    what_is_not_settled_comes_again(side).await;
    a_hint_that_nobody_can_take_is_dead_lettered(side).await;
    a_hint_of_an_unknown_version_is_dead_lettered(side).await;
    a_worker_without_free_slots_leaves_the_hints_to_others(side).await;
    each_hint_goes_to_one_of_two_workers(side).await;
    a_cancelled_wait_loses_nothing(side).await;
    a_lost_queue_is_declared_again(side).await;
}

pub fn hint(n: u8) -> JobHint {
    JobHint::new(JobId([n; 16]), format!("00-{n:032x}-00000000000000aa-01"))
}

pub async fn next(consumer: &mut dyn JobConsumer) -> Delivery {
    tokio::time::timeout(PATIENCE, consumer.next()).await.expect("a hint comes in time").unwrap()
}

pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "did not happen in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn assert_quiet(consumer: &mut dyn JobConsumer) {
    let got = tokio::time::timeout(QUIET, consumer.next()).await;
    assert!(got.is_err(), "nothing should come, but {got:?}");
}

async fn publish(publisher: &dyn JobPublisher, queue: &QueueName, n: u8) {
    assert_eq!(publisher.publish(queue, &hint(n)).await.unwrap(), Published::Confirmed);
}

fn queue(region: &str, class: JobClass) -> QueueName {
    QueueName::new(region, class).unwrap()
}

async fn a_hint_arrives_once_with_its_trace<S: Side>(side: &S) {
    let (name, publisher) = (queue("once", JobClass::Late), side.publisher());
    let mut consumer = side.consumer("once", &[JobClass::Late], 1).await;
    publish(publisher.as_ref(), &name, 1).await;
    let delivery = next(consumer.as_mut()).await;
    assert_eq!((&delivery.hint, &delivery.queue), (&hint(1), &name));
    delivery.ack().await.unwrap();
    assert_quiet(consumer.as_mut()).await;
    drop(consumer);
    let mut another = side.consumer("once", &[JobClass::Late], 1).await;
    assert_quiet(another.as_mut()).await;
    assert_eq!(publisher.depth(&name).await.unwrap(), 0);
}

async fn without_a_queue_a_hint_is_returned<S: Side>(side: &S) {
    let (name, publisher) = (queue("nobody", JobClass::Restore), side.publisher());
    assert_eq!(publisher.publish(&name, &hint(1)).await.unwrap(), Published::Returned);
    assert_eq!(publisher.depth(&name).await.unwrap(), 0);
    let odd = QueueName { region: "Not A Region".to_owned(), class: JobClass::Restore };
    assert!(publisher.publish(&odd, &hint(1)).await.is_err());
    drop(side.consumer("nobody", &[JobClass::Restore], 0).await);
    publish(publisher.as_ref(), &name, 1).await;
    eventually("the hint is counted", async || publisher.depth(&name).await.unwrap() == 1).await;
}

async fn higher_classes_go_first<S: Side>(side: &S) {
    let classes = [JobClass::Verify, JobClass::FirstFull, JobClass::Restore];
    let publisher = side.publisher();
    let mut consumer = side.consumer("classes", &classes, 3).await;
    for (n, class) in classes.into_iter().enumerate() {
        publish(publisher.as_ref(), &queue("classes", class), u8::try_from(n).unwrap()).await;
    }
    for class in classes {
        side.wait_prefetched(&queue("classes", class)).await;
    }
    // What has left the broker may still be on its way here.
    tokio::time::sleep(QUIET).await;
    for expected in [JobClass::Restore, JobClass::FirstFull, JobClass::Verify] {
        let delivery = next(consumer.as_mut()).await;
        assert_eq!(delivery.queue.class, expected);
        delivery.ack().await.unwrap();
    }
}

async fn no_more_is_handed_out_than_there_are_free_slots<S: Side>(side: &S) {
    let publisher = side.publisher();
    let mut consumer = side.consumer("slots", &[JobClass::Late, JobClass::Verify], 2).await;
    for n in 0..4 {
        let class = if n % 2 == 0 { JobClass::Late } else { JobClass::Verify };
        publish(publisher.as_ref(), &queue("slots", class), n).await;
    }
    let first = next(consumer.as_mut()).await;
    let second = next(consumer.as_mut()).await;
    assert_quiet(consumer.as_mut()).await;
    first.ack().await.unwrap();
    let third = next(consumer.as_mut()).await;
    second.ack().await.unwrap();
    third.ack().await.unwrap();
    next(consumer.as_mut()).await.ack().await.unwrap();
}

async fn what_is_not_settled_comes_again<S: Side>(side: &S) {
    let (name, publisher) = (queue("again", JobClass::Incremental), side.publisher());
    let mut consumer = side.consumer("again", &[JobClass::Incremental], 1).await;
    publish(publisher.as_ref(), &name, 1).await;
    drop(next(consumer.as_mut()).await);
    next(consumer.as_mut()).await.reject(Rejection::Requeue).await.unwrap();
    let in_hand = next(consumer.as_mut()).await;
    drop((consumer, in_hand));
    let mut another = side.consumer("again", &[JobClass::Incremental], 1).await;
    let delivery = next(another.as_mut()).await;
    assert_eq!(delivery.hint, hint(1));
    delivery.ack().await.unwrap();
}

async fn a_hint_that_nobody_can_take_is_dead_lettered<S: Side>(side: &S) {
    let (name, publisher) = (queue("dead", JobClass::Late), side.publisher());
    let mut consumer = side.consumer("dead", &[JobClass::Late], 1).await;
    let before = publisher.dead().await.unwrap();
    publish(publisher.as_ref(), &name, 1).await;
    next(consumer.as_mut()).await.reject(Rejection::DeadLetter).await.unwrap();
    eventually("dead at once", async || publisher.dead().await.unwrap() > before).await;
    publish(publisher.as_ref(), &name, 2).await;
    for _ in 0..=DELIVERY_LIMIT {
        next(consumer.as_mut()).await.reject(Rejection::Requeue).await.unwrap();
    }
    assert_quiet(consumer.as_mut()).await;
    eventually("dead after its limit", async || publisher.dead().await.unwrap() > before + 1).await;
}

async fn a_hint_of_an_unknown_version_is_dead_lettered<S: Side>(side: &S) {
    let (name, publisher) = (queue("version", JobClass::Late), side.publisher());
    let mut consumer = side.consumer("version", &[JobClass::Late], 2).await;
    let before = publisher.dead().await.unwrap();
    let future = JobHint { version: 99, ..hint(1) };
    assert_eq!(publisher.publish(&name, &future).await.unwrap(), Published::Confirmed);
    publish(publisher.as_ref(), &name, 2).await;
    let delivery = next(consumer.as_mut()).await;
    assert_eq!(delivery.hint, hint(2));
    delivery.ack().await.unwrap();
    eventually("the unknown one is dead", async || publisher.dead().await.unwrap() > before).await;
}

async fn a_worker_without_free_slots_leaves_the_hints_to_others<S: Side>(side: &S) {
    let (name, publisher) = (queue("full", JobClass::Late), side.publisher());
    let mut full = side.consumer("full", &[JobClass::Late], 3).await;
    for n in 0..3 {
        publish(publisher.as_ref(), &name, n).await;
    }
    let in_hand = next(full.as_mut()).await;
    side.wait_prefetched(&name).await;
    full.set_free_slots(0).await.unwrap();
    let mut other = side.consumer("full", &[JobClass::Late], 3).await;
    for _ in 0..2 {
        next(other.as_mut()).await.ack().await.unwrap();
    }
    in_hand.ack().await.expect("what is in hand stays in hand");
    assert_quiet(full.as_mut()).await;
    drop(other);
    publish(publisher.as_ref(), &name, 7).await;
    full.set_free_slots(2).await.unwrap();
    let delivery = next(full.as_mut()).await;
    assert_eq!(delivery.hint, hint(7));
    delivery.ack().await.unwrap();
}

async fn each_hint_goes_to_one_of_two_workers<S: Side>(side: &S) {
    let (name, publisher) = (queue("two", JobClass::Late), side.publisher());
    let mut workers =
        [side.consumer("two", &[JobClass::Late], 2).await, side.consumer("two", &[JobClass::Late], 2).await];
    for n in 0..20 {
        publish(publisher.as_ref(), &name, n).await;
    }
    let mut seen = Vec::new();
    let [one, two] = &mut workers;
    while seen.len() < 20 {
        let delivery = tokio::select! {
            delivery = next(one.as_mut()) => delivery,
            delivery = next(two.as_mut()) => delivery,
        };
        seen.push(delivery.hint.job);
        delivery.ack().await.unwrap();
    }
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 20);
    assert_quiet(one.as_mut()).await;
    assert_quiet(two.as_mut()).await;
}

async fn a_cancelled_wait_loses_nothing<S: Side>(side: &S) {
    let (name, publisher) = (queue("cancel", JobClass::Late), side.publisher());
    let mut consumer = side.consumer("cancel", &[JobClass::Late], 4).await;
    let mut seen = BTreeSet::new();
    let publishing = async {
        for n in 0..50 {
            publish(publisher.as_ref(), &name, n).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let consuming = async {
        while seen.len() < 50 {
            if let Ok(delivery) = tokio::time::timeout(Duration::from_millis(1), consumer.next()).await {
                let delivery = delivery.unwrap();
                seen.insert(delivery.hint.job);
                delivery.ack().await.unwrap();
            }
        }
    };
    tokio::time::timeout(PATIENCE, futures::future::join(publishing, consuming))
        .await
        .expect("all 50 arrive");
}

async fn a_lost_queue_is_declared_again<S: Side>(side: &S) {
    let (name, publisher) = (queue("lost", JobClass::Late), side.publisher());
    let mut consumer = side.consumer("lost", &[JobClass::Late], 2).await;
    publish(publisher.as_ref(), &name, 1).await;
    next(consumer.as_mut()).await.ack().await.unwrap();
    side.lose(&name).await;
    let waiting = async { next(consumer.as_mut()).await.hint.clone() };
    let publishing = eventually("the queue is back", async || {
        matches!(publisher.publish(&name, &hint(2)).await, Ok(Published::Confirmed))
    });
    let (got, ()) = futures::future::join(waiting, publishing).await;
    assert_eq!(got, hint(2));
}
