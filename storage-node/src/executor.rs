//! How the core waits for its disk: on threads of their own, or, under simulation, in place and one after the other.
//!
//! Invariant: both ways run the same code in the same order of steps; in place, what runs next depends on nothing but the
//! order in which it was asked for and the simulated time.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::{JoinHandle, spawn_blocking},
};

use crate::Error;

/// The time that a simulated disk takes.
#[async_trait]
pub trait DiskTime: Send + Sync + 'static {
    /// Lets the time of one operation go by.
    async fn pass(&self);
}

/// Where work runs that waits for the disk.
#[derive(Clone)]
pub enum Executor {
    /// On threads.
    Threads,
    /// On the caller's own, after the disk's time has gone by: for a runtime with one thread and simulated time.
    InPlace(Arc<dyn DiskTime>),
}

impl Executor {
    /// Runs something that waits for the disk.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        match self {
            Self::Threads => spawn_blocking(work).await.map_err(|_| Error::Stopping)?,
            Self::InPlace(time) => {
                time.pass().await;
                work()
            }
        }
    }

    /// Lets a simulated disk take its time; a real one takes its own.
    pub(crate) async fn disk_time(&self) {
        if let Self::InPlace(time) = self {
            time.pass().await;
        }
    }

    /// Starts something that works through a queue until the queue is dropped.
    pub(crate) fn start<T, F>(
        &self,
        name: &str,
        work: impl FnOnce(Inbox<T>) -> F + Send + 'static,
    ) -> io::Result<(Queue<T>, Running)>
    where
        T: Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        match self {
            Self::Threads => {
                let (queue, inbox) = mpsc::channel();
                let run = move || futures::executor::block_on(work(Inbox::Thread(inbox)));
                let thread = thread::Builder::new().name(name.to_owned()).spawn(run)?;
                Ok((Queue::Thread(queue), Running::Thread(thread)))
            }
            Self::InPlace(_) => {
                let (queue, inbox) = unbounded_channel();
                Ok((Queue::Task(queue), Running::Task(tokio::spawn(work(Inbox::Task(inbox))))))
            }
        }
    }
}

/// The sending end. Unbounded: what is sent carries its own room.
pub(crate) enum Queue<T> {
    Thread(mpsc::Sender<T>),
    Task(UnboundedSender<T>),
}

impl<T> Queue<T> {
    /// Says whether somebody is left to receive it.
    pub(crate) fn send(&self, work: T) -> bool {
        match self {
            Self::Thread(queue) => queue.send(work).is_ok(),
            Self::Task(queue) => queue.send(work).is_ok(),
        }
    }
}

/// The receiving end.
pub(crate) enum Inbox<T> {
    Thread(mpsc::Receiver<T>),
    Task(UnboundedReceiver<T>),
}

impl<T> Inbox<T> {
    /// The next, or what became of waiting for it. On a thread of its own this blocks the thread.
    pub(crate) async fn recv(&mut self, limit: Duration) -> Result<T, RecvTimeoutError> {
        match self {
            Self::Thread(inbox) => inbox.recv_timeout(limit),
            Self::Task(inbox) => match tokio::time::timeout(limit, inbox.recv()).await {
                Ok(Some(work)) => Ok(work),
                Ok(None) => Err(RecvTimeoutError::Disconnected),
                Err(_) => Err(RecvTimeoutError::Timeout),
            },
        }
    }

    /// The next, if it is there.
    pub(crate) fn try_recv(&mut self) -> Option<T> {
        match self {
            Self::Thread(inbox) => inbox.try_recv().ok(),
            Self::Task(inbox) => inbox.try_recv().ok(),
        }
    }
}

/// What works through a queue.
pub(crate) enum Running {
    Thread(thread::JoinHandle<()>),
    Task(JoinHandle<()>),
}

impl Running {
    /// Waits for its end.
    pub(crate) async fn join(self) -> Result<(), Error> {
        match self {
            Self::Thread(thread) => {
                let joined = spawn_blocking(move || thread.join().map_err(|_| Error::Stopping));
                joined.await.map_err(|_| Error::Stopping)?
            }
            Self::Task(task) => task.await.map_err(|_| Error::Stopping),
        }
    }

    /// Waits for its end where nothing can be awaited. A task is not waited for: it holds nothing that others need.
    pub(crate) fn join_now(self) -> Result<(), Error> {
        match self {
            Self::Thread(thread) => thread.join().map_err(|_| Error::Stopping),
            Self::Task(_) => Ok(()),
        }
    }
}
