//! Lists the changes of all folders, a few at once and ahead of the contents, because links die when their consumer is slow.
//!
//! Pages wait in a buffer bounded by bytes. If it is full for so long that a link dies, the folder starts again with its
//! initial round: what is stored by then is recognised by its change key, so no content is fetched twice. The invariant: a
//! folder's `Done` comes after all its pages, and its link leads past exactly those.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use holdfast_graph_client::{ErrorClass, GraphClient, GraphError, MessageChange};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::reconcile::Round;

/// Folders listed at once: the mailbox allows 4 requests in flight, and contents need some of them.
const FOLDERS_AT_ONCE: usize = 2;
/// Pages that wait, whatever their size.
const PAGES_MAX: usize = 64;
/// Rounds of one folder in one run: each one gets further.
const ROUNDS_MAX: u32 = 50;
/// The buffer counts in these.
const UNIT_BYTES: u64 = 1024;
/// What a change without content takes.
const REMOVAL_BYTES: u64 = 256;

/// A folder to list.
pub struct FolderToList {
    pub index: u32,
    pub id: String,
    /// The link of its last round, or the next page of one that was interrupted.
    pub link: Option<String>,
    /// The link is a page within an initial round.
    pub is_mid_initial: bool,
}

/// What the lister says.
pub enum Listing {
    Page {
        round: Round,
        items: Vec<MessageChange>,
        next: Option<String>,
        _share: OwnedSemaphorePermit,
    },
    /// The folder starts again from nothing.
    Restarted {
        round: Round,
    },
    /// The link is empty where Microsoft gave none.
    Done {
        round: Round,
        link: String,
    },
    /// The folder is gone.
    Gone {
        round: Round,
    },
    Failed {
        error: GraphError,
    },
}

/// The receiving side; dropping it stops the lister.
pub struct Lister {
    listings: mpsc::Receiver<Listing>,
    _loops: Vec<AbortOnDropHandle<()>>,
}

impl Lister {
    pub fn spawn(graph: GraphClient, user: String, folders: Vec<FolderToList>, buffer_bytes: u64) -> Self {
        let (listings_tx, listings) = mpsc::channel(PAGES_MAX);
        let total = u32::try_from(buffer_bytes / UNIT_BYTES).unwrap_or(u32::MAX >> 4).clamp(1, u32::MAX >> 4);
        let buffer = Arc::new(Semaphore::new(total as usize));
        let folders = Arc::new(Mutex::new(VecDeque::from(folders)));
        let loops = (0..FOLDERS_AT_ONCE).map(|_| {
            let (folders, buffer) = (folders.clone(), buffer.clone());
            let lister = FolderLister {
                graph: graph.clone(),
                user: user.clone(),
                listings_tx: listings_tx.clone(),
                buffer,
                total,
            };
            let next = move || folders.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            AbortOnDropHandle::new(tokio::spawn(async move {
                while let Some(folder) = next() {
                    if lister.folder(folder).await.is_none() {
                        return;
                    }
                }
            }))
        });
        Self { listings, _loops: loops.collect() }
    }

    /// The next one; none when all folders are done.
    pub async fn next(&mut self) -> Option<Listing> {
        self.listings.recv().await
    }
}

struct FolderLister {
    graph: GraphClient,
    user: String,
    listings_tx: mpsc::Sender<Listing>,
    buffer: Arc<Semaphore>,
    total: u32,
}

impl FolderLister {
    /// None when nobody listens any more or an error was passed on.
    async fn folder(&self, folder: FolderToList) -> Option<()> {
        let mut link = folder.link;
        let mut is_plain = false;
        let mut round = Round {
            folder: folder.index,
            number: 0,
            is_full: link.is_none() || folder.is_mid_initial,
            is_restart: false,
        };
        loop {
            let page = if is_plain {
                self.graph.messages_listed(&self.user, &folder.id, link.as_deref()).await
            } else {
                self.graph.messages_delta(&self.user, &folder.id, link.as_deref()).await
            };
            match page {
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
                            || (!is_plain && is_full_mailbox(&error))) =>
                {
                    is_plain |= is_full_mailbox(&error);
                    tracing::info!(
                        folder = folder.index,
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

    async fn say(&self, listing: Listing) -> Option<()> {
        self.listings_tx.send(listing).await.ok()
    }

    async fn share(&self, items: &[MessageChange]) -> OwnedSemaphorePermit {
        let size = |item: &MessageChange| match item {
            MessageChange::Present(message) => message.raw.len() as u64,
            MessageChange::Removed { .. } => REMOVAL_BYTES,
        };
        let bytes: u64 = items.iter().map(size).sum();
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).clamp(1, self.total);
        self.buffer.clone().acquire_many_owned(units).await.expect("the page buffer is never closed")
    }
}

/// A mailbox without room has no place for the state of a delta; it can be read all the same.
fn is_full_mailbox(error: &GraphError) -> bool {
    error.has_code("ErrorQuotaExceeded")
}

fn is_gone(error: &GraphError) -> bool {
    error.class() == ErrorClass::Gone || error.has_code("ErrorSyncFolderNotFound")
}
