//! Runs what a daemon does by itself: named loops of small steps, with jitter, back-off, a report and a joined end.
//!
//! The invariant: a step is never cut short by shutdown itself, only by the grace period of [`Background::join`].

use std::{
    any::Any,
    fmt::Display,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use holdfast_model::Random;
use serde::Serialize;
use tokio::{sync::Notify, task::JoinHandle};
use tracing::{Instrument, debug, debug_span, error, info, warn};

use crate::{Backoff, Shutdown, metrics, retry::fraction};

/// The wait between steps is drawn from this share around the period, so that loops do not march in step.
const JITTER_SHARE: u32 = 10;
/// Delay after the first failed step, doubling.
const ERROR_DELAY_FIRST: Duration = Duration::from_millis(500);
/// Largest delay after failed steps.
const ERROR_DELAY_MAX: Duration = Duration::from_secs(60);
/// The last error is kept up to this many characters.
const ERROR_CHARS_MAX: usize = 500;
/// Ended loops beyond this many leave the report.
const ENDED_LOOPS_MAX: usize = 64;

/// What a step found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There is more to do: the next step follows at once.
    More,
    /// Nothing more for now: the next step follows after the period, or when the loop is woken.
    Idle,
}

/// Where a loop stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoopState {
    /// In a step.
    Running,
    /// Between steps.
    Idle,
    /// Between steps, after an error.
    BackingOff,
    /// Ended.
    Stopped,
    /// Ended by a panic: a bug that a human must look at.
    Panicked,
}

/// What a loop reports.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LoopStatus {
    /// Its name.
    pub name: &'static str,
    /// Where it stands.
    pub state: LoopState,
    /// Steps done.
    pub steps: u64,
    /// Steps failed.
    pub errors: u64,
    /// The latest error, kept after recovery.
    pub last_error: Option<String>,
}

type SharedStatus = Arc<Mutex<LoopStatus>>;

#[derive(Default)]
struct Registry {
    loops: Vec<(SharedStatus, Option<JoinHandle<()>>)>,
}

/// The loops of one daemon. Clones share them.
#[derive(Clone)]
pub struct Background {
    shutdown: Shutdown,
    random: Arc<dyn Random>,
    registry: Arc<Mutex<Registry>>,
}

impl std::fmt::Debug for Background {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Background").field("loops", &self.report()).finish()
    }
}

impl Background {
    /// Makes an empty set of loops that end with `shutdown`.
    pub fn new(shutdown: Shutdown, random: Arc<dyn Random>) -> Self {
        Self { shutdown, random, registry: Arc::default() }
    }

    /// The signal its loops end with.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Runs `step` every `every` (jittered by a tenth), at once while it says [`Step::More`], and with back-off
    /// after errors, which are logged once per streak.
    pub fn spawn_loop<F, Fut, E>(&self, name: &'static str, every: Duration, step: F)
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = Result<Step, E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        self.spawn_loop_woken(name, every, Arc::new(Notify::new()), step);
    }

    /// Like [`spawn_loop`](Self::spawn_loop); `wake` ends the wait between steps early.
    pub fn spawn_loop_woken<F, Fut, E>(&self, name: &'static str, every: Duration, wake: Arc<Notify>, step: F)
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = Result<Step, E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let driver = Driver {
            name,
            every,
            wake,
            shutdown: self.shutdown.clone(),
            random: self.random.clone(),
            status: new_status(name),
        };
        let status = driver.status.clone();
        self.register(name, status, driver.run(step));
    }

    /// Runs a long-lived future that ends by itself on shutdown; the grace period ends it otherwise.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.register(name, new_status(name), future);
    }

    /// What every loop does right now.
    pub fn report(&self) -> Vec<LoopStatus> {
        lock(&self.registry).loops.iter().map(|(status, _)| lock(status).clone()).collect()
    }

    /// The names of loops that ended by a panic.
    pub fn panicked(&self) -> Vec<&'static str> {
        self.report().iter().filter(|one| one.state == LoopState::Panicked).map(|one| one.name).collect()
    }

    /// Triggers shutdown, waits for all loops to end, and aborts those still running after `grace`.
    pub async fn join(self, grace: Duration) {
        self.shutdown.trigger();
        let deadline = tokio::time::Instant::now() + grace;
        loop {
            let handles: Vec<_> = lock(&self.registry)
                .loops
                .iter_mut()
                .filter_map(|(status, handle)| Some((status.clone(), handle.take()?)))
                .collect();
            if handles.is_empty() {
                return;
            }
            for (status, mut handle) in handles {
                if tokio::time::timeout_at(deadline, &mut handle).await.is_err() {
                    handle.abort();
                    let _aborted = handle.await;
                    let mut status = lock(&status);
                    status.state = LoopState::Stopped;
                    warn!(background_loop = status.name, ?grace, "loop did not end in time and was aborted");
                }
            }
        }
    }

    fn register<F>(&self, name: &'static str, status: SharedStatus, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let ended = status.clone();
        let guarded = async move {
            let outcome = AssertUnwindSafe(future).catch_unwind().await;
            let mut status = lock(&ended);
            status.state = LoopState::Stopped;
            if let Err(panic) = outcome {
                status.state = LoopState::Panicked;
                status.last_error = Some(truncated(&panic_text(panic.as_ref())));
                metrics::loop_panicked(name);
                error!(background_loop = name, "loop ended by a panic");
            }
        };
        // Below the level that is traced: else everything a loop ever does would be one endless trace.
        let span = debug_span!(parent: None, "background", name);
        let handle = tokio::spawn(guarded.instrument(span));
        let mut registry = lock(&self.registry);
        prune(&mut registry);
        registry.loops.push((status, Some(handle)));
    }
}

/// Forgets the oldest ended futures, so that a daemon that spawns many does not remember them all.
fn prune(registry: &mut Registry) {
    let is_ended = |status: &SharedStatus| lock(status).state == LoopState::Stopped;
    let mut surplus =
        registry.loops.iter().filter(|(status, _)| is_ended(status)).count().saturating_sub(ENDED_LOOPS_MAX);
    registry.loops.retain(|(status, _)| {
        let drop_it = surplus > 0 && is_ended(status);
        surplus -= usize::from(drop_it);
        !drop_it
    });
}

fn new_status(name: &'static str) -> SharedStatus {
    Arc::new(Mutex::new(LoopStatus {
        name,
        state: LoopState::Running,
        steps: 0,
        errors: 0,
        last_error: None,
    }))
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn truncated(text: &str) -> String {
    text.chars().take(ERROR_CHARS_MAX).collect()
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("unknown"))
}

/// Drives one loop.
struct Driver {
    name: &'static str,
    every: Duration,
    wake: Arc<Notify>,
    shutdown: Shutdown,
    random: Arc<dyn Random>,
    status: SharedStatus,
}

impl Driver {
    async fn run<F, Fut, E>(self, mut step: F)
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<Step, E>>,
        E: Display,
    {
        let backoff =
            Backoff::new(ERROR_DELAY_FIRST, ERROR_DELAY_MAX, 1).expect("constants are a valid policy");
        let mut streak = 0_u32;
        while !self.shutdown.is_triggered() {
            lock(&self.status).state = LoopState::Running;
            let delay = match step().await {
                Ok(found) => {
                    self.succeeded(&mut streak, found);
                    match found {
                        Step::More => {
                            // A step that never waits must not starve its neighbours.
                            tokio::task::yield_now().await;
                            continue;
                        }
                        Step::Idle => self.jittered(),
                    }
                }
                Err(error) => {
                    self.failed(&mut streak, &error.to_string());
                    ERROR_DELAY_FIRST / 2 + backoff.delay(streak - 1, self.random.as_ref())
                }
            };
            tokio::select! {
                () = self.shutdown.wait() => {}
                // Waking does not cut a back-off short: what wakes it often is what just failed.
                () = self.wake.notified(), if streak == 0 => {}
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    fn succeeded(&self, streak: &mut u32, found: Step) {
        let mut status = lock(&self.status);
        status.steps += 1;
        if found == Step::Idle {
            status.state = LoopState::Idle;
        }
        if *streak > 0 {
            info!(background_loop = self.name, failed_steps = *streak, "loop recovered");
            *streak = 0;
        }
    }

    fn failed(&self, streak: &mut u32, error: &str) {
        let mut status = lock(&self.status);
        status.errors += 1;
        status.state = LoopState::BackingOff;
        let text = truncated(error);
        let is_news = *streak == 0 || status.last_error.as_ref() != Some(&text);
        status.last_error = Some(text);
        *streak = streak.saturating_add(1);
        metrics::loop_step_failed(self.name);
        if is_news {
            warn!(background_loop = self.name, error, "step failed; the loop backs off and goes on");
        } else {
            debug!(background_loop = self.name, error, failed_steps = *streak, "step failed again");
        }
    }

    fn jittered(&self) -> Duration {
        let share = self.every / JITTER_SHARE;
        self.every - share + fraction(share * 2, self.random.as_ref())
    }
}

#[cfg(test)]
#[path = "background/tests.rs"]
mod tests;
