//! Lists the changes of all containers, a few at once and ahead of the contents, because links die when their consumer is slow.
//!
//! Pages wait in a buffer bounded by bytes. If it is full for so long that a link dies, the container starts again with its
//! initial round: what is stored by then is recognised by its change key, so no content is fetched twice. The invariant: a
//! container's `Done` comes after all its pages, and its link leads past exactly those.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use holdfast_graph_client::{ErrorClass, GraphError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::{ItemChange, Source, reconcile::Round};

/// Containers listed at once: a mailbox allows 4 requests in flight, and contents need some of them.
const LISTED_AT_ONCE: usize = 2;
/// Pages that wait, whatever their size.
const PAGES_MAX: usize = 64;
/// Rounds of one container in one run: each one gets further.
const ROUNDS_MAX: u32 = 50;
/// The buffer counts in these.
const UNIT_BYTES: u64 = 1024;
/// What a change without content takes.
const REMOVAL_BYTES: u64 = 256;

/// A container to list.
pub struct ToList {
    pub index: u32,
    pub id: String,
    /// The link of its last round, or the next page of one that was interrupted.
    pub link: Option<String>,
    /// The link is a page within an initial round.
    pub is_mid_initial: bool,
}

/// What the lister says.
pub enum Listing<T> {
    Page {
        round: Round,
        items: Vec<ItemChange<T>>,
        next: Option<String>,
        _share: OwnedSemaphorePermit,
    },
    /// The container starts again from nothing.
    Restarted {
        round: Round,
    },
    /// The link is empty where Microsoft gave none.
    Done {
        round: Round,
        link: String,
    },
    /// The container is gone.
    Gone {
        round: Round,
    },
    Failed {
        error: GraphError,
    },
}

/// The receiving side; dropping it stops the lister.
pub struct Lister<S: Source> {
    listings: mpsc::Receiver<Listing<S::Item>>,
    _loops: Vec<AbortOnDropHandle<()>>,
}

impl<S: Source> Lister<S> {
    pub fn spawn(source: Arc<S>, containers: Vec<ToList>, buffer_bytes: u64) -> Self {
        let (listings_tx, listings) = mpsc::channel(PAGES_MAX);
        let total = u32::try_from(buffer_bytes / UNIT_BYTES).unwrap_or(u32::MAX >> 4).clamp(1, u32::MAX >> 4);
        let buffer = Arc::new(Semaphore::new(total as usize));
        let containers = Arc::new(Mutex::new(VecDeque::from(containers)));
        let loops = (0..LISTED_AT_ONCE).map(|_| {
            let (containers, buffer) = (containers.clone(), buffer.clone());
            let lister =
                ContainerLister { source: source.clone(), listings_tx: listings_tx.clone(), buffer, total };
            let next = move || containers.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            AbortOnDropHandle::new(tokio::spawn(async move {
                while let Some(container) = next() {
                    if lister.container(container).await.is_none() {
                        return;
                    }
                }
            }))
        });
        Self { listings, _loops: loops.collect() }
    }

    /// The next one; none when all containers are done.
    pub async fn next(&mut self) -> Option<Listing<S::Item>> {
        self.listings.recv().await
    }
}

struct ContainerLister<S: Source> {
    source: Arc<S>,
    listings_tx: mpsc::Sender<Listing<S::Item>>,
    buffer: Arc<Semaphore>,
    total: u32,
}

impl<S: Source> ContainerLister<S> {
    /// None when nobody listens any more or an error was passed on.
    async fn container(&self, container: ToList) -> Option<()> {
        let mut link = container.link;
        let mut is_plain = false;
        let mut round = Round {
            container: container.index,
            number: 0,
            is_full: link.is_none() || container.is_mid_initial,
            is_restart: false,
        };
        loop {
            match self.source.page(&container.id, link.as_deref(), is_plain).await {
                Ok(page) => {
                    let share = self.share(&page.items).await;
                    let (next, delta) = (page.next, page.delta);
                    self.say(Listing::Page { round, items: page.items, next: next.clone(), _share: share })
                        .await?;
                    match next {
                        Some(next) => link = Some(next),
                        // A round also ends without a delta link: then the next one lists everything.
                        None => {
                            let link = delta.unwrap_or_default();
                            return self.say(Listing::Done { round, link }).await;
                        }
                    }
                }
                Err(error) if is_gone(&error) => return self.say(Listing::Gone { round }).await,
                Err(error)
                    if round.number < ROUNDS_MAX
                        && (error.class() == ErrorClass::Resync
                            || (!is_plain && self.source.wants_plain_listing(&error))) =>
                {
                    is_plain |= self.source.wants_plain_listing(&error);
                    tracing::info!(
                        container = container.index,
                        code = error.code(),
                        is_plain,
                        "delta does not go on, listing again"
                    );
                    round = Round { number: round.number + 1, is_full: true, is_restart: true, ..round };
                    link = None;
                    self.say(Listing::Restarted { round }).await?;
                }
                Err(error) => return self.fail(error).await,
            }
        }
    }

    async fn fail(&self, error: GraphError) -> Option<()> {
        self.say(Listing::Failed { error }).await?;
        None
    }

    async fn say(&self, listing: Listing<S::Item>) -> Option<()> {
        self.listings_tx.send(listing).await.ok()
    }

    async fn share(&self, items: &[ItemChange<S::Item>]) -> OwnedSemaphorePermit {
        let size = |change: &ItemChange<S::Item>| match change {
            ItemChange::Present(item) => self.source.weight(item),
            ItemChange::Removed { .. } => REMOVAL_BYTES,
        };
        let bytes: u64 = items.iter().map(size).sum();
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).clamp(1, self.total);
        self.buffer.clone().acquire_many_owned(units).await.expect("the page buffer is never closed")
    }
}

fn is_gone(error: &GraphError) -> bool {
    error.class() == ErrorClass::Gone || error.has_code("ErrorSyncFolderNotFound")
}
