//! The queue of a single process. Holds nothing that the job rows do not: after a restart they are published again.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use holdfast_model::JobClass;
use tokio::sync::Notify;
use tracing::warn;

use crate::{
    DELIVERY_LIMIT, Delivery, HINT_VERSION, JobConsumer, JobHint, JobPublisher, Published, QUEUE_LIMIT,
    QueueError, QueueName, Rejection,
    delivery::{Settle, Settlement, Slots},
    hint::{check_region, ordered},
};

/// Dead hints kept; the oldest go first.
const DEAD_LIMIT: usize = QUEUE_LIMIT as usize;

#[derive(Debug, Clone)]
struct Waiting {
    hint: JobHint,
    /// Times it was handed out.
    deliveries: u32,
}

#[derive(Debug, Default)]
struct State {
    queues: BTreeMap<QueueName, VecDeque<Waiting>>,
    dead: VecDeque<JobHint>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    arrived: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bury(&self, hint: JobHint) {
        let mut state = self.state();
        if state.dead.len() >= DEAD_LIMIT {
            state.dead.pop_front();
        }
        state.dead.push_back(hint);
    }

    fn give_back(&self, queue: &QueueName, waiting: Waiting) {
        if waiting.deliveries > DELIVERY_LIMIT {
            self.bury(waiting.hint);
            return;
        }
        self.state().queues.entry(queue.clone()).or_default().push_front(waiting);
        self.arrived.notify_waiters();
    }
}

/// Both sides of the in-process queue. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct InProcessQueue {
    shared: Arc<Shared>,
}

impl InProcessQueue {
    /// Makes an empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// The publishing side.
    pub fn publisher(&self) -> Arc<dyn JobPublisher> {
        Arc::new(self.clone())
    }

    /// A consumer of the region and classes, with `prefetch` free slots. Declares the queues.
    pub fn consumer(
        &self,
        region: &str,
        classes: &[JobClass],
        prefetch: u16,
    ) -> Result<InProcessConsumer, QueueError> {
        check_region(region)?;
        let queues: Vec<_> = ordered(classes)?
            .into_iter()
            .map(|class| QueueName { region: region.to_owned(), class })
            .collect();
        let mut state = self.shared.state();
        for queue in &queues {
            state.queues.entry(queue.clone()).or_default();
        }
        drop(state);
        Ok(InProcessConsumer {
            shared: self.shared.clone(),
            queues,
            free_slots: prefetch,
            slots: Arc::default(),
        })
    }

    /// Forgets a queue with all its hints, as a broker that lost it would. For tests of recovery.
    pub fn forget(&self, queue: &QueueName) {
        self.shared.state().queues.remove(queue);
        self.shared.arrived.notify_waiters();
    }
}

#[async_trait]
impl JobPublisher for InProcessQueue {
    async fn publish(&self, queue: &QueueName, hint: &JobHint) -> Result<Published, QueueError> {
        check_region(&queue.region)?;
        let mut state = self.shared.state();
        let Some(waiting) = state.queues.get_mut(queue) else { return Ok(Published::Returned) };
        if waiting.len() as u64 >= QUEUE_LIMIT {
            return Err(QueueError::Full { queue: queue.to_string() });
        }
        waiting.push_back(Waiting { hint: hint.clone(), deliveries: 0 });
        drop(state);
        self.shared.arrived.notify_waiters();
        Ok(Published::Confirmed)
    }

    async fn depth(&self, queue: &QueueName) -> Result<u64, QueueError> {
        Ok(self.shared.state().queues.get(queue).map_or(0, |waiting| waiting.len() as u64))
    }

    async fn dead(&self) -> Result<u64, QueueError> {
        Ok(self.shared.state().dead.len() as u64)
    }
}

/// The consuming side of the in-process queue.
pub struct InProcessConsumer {
    shared: Arc<Shared>,
    /// Highest class first.
    queues: Vec<QueueName>,
    free_slots: u16,
    slots: Arc<Slots>,
}

impl InProcessConsumer {
    /// The first hint of the highest class. One that is not understood is buried on the way.
    fn take(&self) -> Option<Delivery> {
        loop {
            let (queue, mut waiting) = self.pop()?;
            if waiting.hint.version != HINT_VERSION {
                warn!(%queue, version = waiting.hint.version, "hint is not understood and is dead-lettered");
                self.shared.bury(waiting.hint);
                continue;
            }
            waiting.deliveries += 1;
            let hint = waiting.hint.clone();
            let token = Token { shared: self.shared.clone(), queue: queue.clone(), waiting };
            return Some(Delivery::new(hint, queue, Arc::new(token), self.slots.clone()));
        }
    }

    fn pop(&self) -> Option<(QueueName, Waiting)> {
        let mut state = self.shared.state();
        // A queue that was lost is declared again by whoever consumes from it.
        for queue in &self.queues {
            state.queues.entry(queue.clone()).or_default();
        }
        self.queues.iter().find_map(|queue| Some((queue.clone(), state.queues.get_mut(queue)?.pop_front()?)))
    }
}

#[async_trait]
impl JobConsumer for InProcessConsumer {
    async fn next(&mut self) -> Result<Delivery, QueueError> {
        loop {
            self.slots.wait_free(self.free_slots).await;
            let arrived = self.shared.arrived.notified();
            tokio::pin!(arrived);
            // Registered before looking, so that a hint that comes in between is not missed.
            arrived.as_mut().enable();
            if let Some(delivery) = self.take() {
                return Ok(delivery);
            }
            tokio::select! {
                () = arrived => {}
                () = self.slots.changed() => {}
            }
        }
    }

    async fn set_free_slots(&mut self, free_slots: u16) -> Result<(), QueueError> {
        self.free_slots = free_slots;
        self.slots.give_back().await;
        Ok(())
    }
}

struct Token {
    shared: Arc<Shared>,
    queue: QueueName,
    waiting: Waiting,
}

#[async_trait]
impl Settle for Token {
    async fn settle(&self, settlement: Settlement) -> Result<(), QueueError> {
        match settlement {
            Settlement::Ack => {}
            Settlement::Reject(Rejection::Requeue) => {
                self.shared.give_back(&self.queue, self.waiting.clone())
            }
            Settlement::Reject(Rejection::DeadLetter) => self.shared.bury(self.waiting.hint.clone()),
        }
        Ok(())
    }

    fn give_back_now(&self) -> bool {
        self.shared.give_back(&self.queue, self.waiting.clone());
        true
    }
}
