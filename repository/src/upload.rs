//! The pipeline from plaintext to durable: hash → seen? → `have` in batches → compress, seal → `put` in batches.
//!
//! One loop owns the batches and the seen-cache; batches run beside it, several at a time. Hashing and sealing run on the
//! rayon pool. Invariants: bytes count against the budget from hand-over until durable, and that budget is what bounds
//! the queue and the batches in flight; a flush returns only when everything handed over before it is durable; after the
//! first failure every call fails with it.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, stream::FuturesUnordered};
use holdfast_model::ChunkId;
use holdfast_record::{Chunker, RecordKind, SealedRecord};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    chunk_store::{ChunkStore, MAX_HAVE_IDS},
    error::Error,
    seal::{SealOptions, Sealer},
    secret::ContentHash,
    snapshot_writer::{WriterOptions, WriterStats},
};

/// A batch is sent when it holds this much plaintext; also the size of one put.
const BATCH_BYTES: usize = 4 << 20;
/// A batch is sent when nothing has joined it for this long.
const BATCH_IDLE: Duration = Duration::from_millis(4);
/// Puts under way at one time.
const PUTS_IN_FLIGHT: usize = 8;
/// Ids remembered as handed over; then the memory starts afresh, which costs a `have` and nothing else.
const MAX_SEEN: usize = 1 << 18;
/// What the smallest upload counts against the budget: it bounds how many there are.
const MIN_CHARGE: usize = 1 << 10;

pub(crate) struct Upload {
    pub(crate) kind: RecordKind,
    pub(crate) chunker: Chunker,
    pub(crate) refs: Vec<[u8; 16]>,
    pub(crate) plain: Bytes,
}

struct Queued {
    upload: Upload,
    h: ContentHash,
    id: ChunkId,
    permit: OwnedSemaphorePermit,
}

enum Command {
    Upload(Queued),
    Flush(oneshot::Sender<()>),
    ForgetSeen,
}

#[derive(Default)]
struct Counters {
    bytes_in: AtomicU64,
    bytes_stored: AtomicU64,
    chunks_new: AtomicU64,
    chunks_known: AtomicU64,
}

struct Shared {
    store: Arc<dyn ChunkStore>,
    sealer: Arc<Sealer>,
    pool: Arc<rayon::ThreadPool>,
    options: WriterOptions,
    budget: Arc<Semaphore>,
    put_slots: Semaphore,
    failure: OnceLock<Error>,
    counters: Counters,
}

/// Hands plaintext over. Dropping it cancels what is under way.
pub(crate) struct Uploader {
    shared: Arc<Shared>,
    command_tx: mpsc::UnboundedSender<Command>,
    _loop: AbortOnDropHandle<()>,
}

impl Uploader {
    /// Starts the loop; needs a tokio runtime.
    pub(crate) fn start(
        store: Arc<dyn ChunkStore>,
        sealer: Arc<Sealer>,
        pool: Arc<rayon::ThreadPool>,
        options: WriterOptions,
    ) -> Self {
        let budget = Arc::new(Semaphore::new(budget_bytes(&options)));
        let shared = Arc::new(Shared {
            store,
            sealer,
            pool,
            options,
            budget,
            put_slots: Semaphore::new(PUTS_IN_FLIGHT),
            failure: OnceLock::new(),
            counters: Counters::default(),
        });
        // Unbounded on purpose: each command but a flush holds a permit of the budget.
        let (command_tx, command_rx) = mpsc::unbounded_channel();
        let background = tokio::spawn(run(shared.clone(), command_rx));
        Self { shared, command_tx, _loop: AbortOnDropHandle::new(background) }
    }

    /// Waits for room, then names the plaintext on the pool and hands it over. The name comes when it is handed over.
    pub(crate) async fn submit(&self, upload: Upload) -> Result<oneshot::Receiver<ContentHash>, Error> {
        let permit = self.reserve(upload.plain.len()).await?;
        let (hash_tx, hash_rx) = oneshot::channel();
        let (shared, command_tx) = (self.shared.clone(), self.command_tx.clone());
        self.shared.pool.spawn_fifo(move || {
            let h = shared.sealer.hash(upload.kind, &upload.plain);
            let id = shared.sealer.id(h);
            // Where the loop has ended, the failure it left is what the next call reports.
            if command_tx.send(Command::Upload(Queued { upload, h, id, permit })).is_ok() {
                let _ = hash_tx.send(h);
            }
        });
        Ok(hash_rx)
    }

    /// The same for what has been named already.
    pub(crate) async fn submit_named(&self, h: ContentHash, upload: Upload) -> Result<(), Error> {
        let permit = self.reserve(upload.plain.len()).await?;
        let id = self.shared.sealer.id(h);
        let queued = Queued { upload, h, id, permit };
        self.command_tx.send(Command::Upload(queued)).map_err(|_| self.failure())
    }

    /// Returns when everything handed over before is durable.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        let (done_tx, done_rx) = oneshot::channel();
        self.command_tx.send(Command::Flush(done_tx)).map_err(|_| self.failure())?;
        done_rx.await.map_err(|_| self.failure())?;
        self.check()
    }

    /// Waits for the name of a submitted plaintext.
    pub(crate) async fn named(&self, hash_rx: oneshot::Receiver<ContentHash>) -> Result<ContentHash, Error> {
        hash_rx.await.map_err(|_| self.failure())
    }

    /// Runs something heavy on the pool.
    pub(crate) async fn on_pool<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        on_pool(&self.shared.pool, work).await
    }

    /// Asks storage again about everything: the session that answered has ended.
    pub(crate) fn forget_seen(&self) -> Result<(), Error> {
        self.command_tx.send(Command::ForgetSeen).map_err(|_| self.failure())
    }

    /// Fails with what failed before.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.shared.failure.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Makes this and every later call fail.
    pub(crate) fn fail(&self, error: Error) {
        self.shared.fail(error);
    }

    pub(crate) fn sealer(&self) -> &Arc<Sealer> {
        &self.shared.sealer
    }

    pub(crate) fn count_in(&self, bytes: usize) {
        self.shared.counters.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> WriterStats {
        let counters = &self.shared.counters;
        WriterStats {
            bytes_in: counters.bytes_in.load(Ordering::Relaxed),
            bytes_stored: counters.bytes_stored.load(Ordering::Relaxed),
            chunks_new: counters.chunks_new.load(Ordering::Relaxed),
            chunks_known: counters.chunks_known.load(Ordering::Relaxed),
        }
    }

    async fn reserve(&self, len: usize) -> Result<OwnedSemaphorePermit, Error> {
        self.check()?;
        let charge = len.max(MIN_CHARGE).min(budget_bytes(&self.shared.options));
        let charge = u32::try_from(charge).expect("a budget fits in 32 bits");
        self.shared.budget.clone().acquire_many_owned(charge).await.map_err(|_| self.failure())
    }

    fn failure(&self) -> Error {
        self.shared.failure.get().cloned().unwrap_or(Error::Interrupted)
    }
}

fn budget_bytes(options: &WriterOptions) -> usize {
    options.in_flight_bytes.clamp(BATCH_BYTES, u32::MAX as usize / 2)
}

impl Shared {
    fn fail(&self, error: Error) {
        // The first failure is the one that explains the rest.
        let _ = self.failure.set(error);
        self.budget.close();
    }
}

async fn on_pool<T: Send + 'static>(
    pool: &rayon::ThreadPool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let (done_tx, done_rx) = oneshot::channel();
    pool.spawn_fifo(move || {
        // The caller may have been cancelled; then nobody wants the result.
        let _ = done_tx.send(work());
    });
    done_rx.await.map_err(|_| Error::Interrupted)
}

/// What the loop knows: the batch that is filling, those under way, and who waits for them.
struct Progress {
    shared: Arc<Shared>,
    batch: Vec<Queued>,
    batch_bytes: usize,
    deadline: Instant,
    under_way: JoinSet<(u64, Result<(), Error>)>,
    outstanding: BTreeSet<u64>,
    next_batch: u64,
    flushes: Vec<(u64, oneshot::Sender<()>)>,
    seen: HashSet<ChunkId>,
}

async fn run(shared: Arc<Shared>, mut command_rx: mpsc::UnboundedReceiver<Command>) {
    let mut progress = Progress {
        shared,
        batch: Vec::new(),
        batch_bytes: 0,
        deadline: Instant::now(),
        under_way: JoinSet::new(),
        outstanding: BTreeSet::new(),
        next_batch: 0,
        flushes: Vec::new(),
        seen: HashSet::new(),
    };
    loop {
        tokio::select! {
            command = command_rx.recv() => match command {
                Some(command) => progress.take(command),
                None => return,
            },
            Some(ended) = progress.under_way.join_next(), if !progress.under_way.is_empty() => {
                let result = match ended {
                    Ok((number, result)) => { progress.outstanding.remove(&number); result }
                    Err(_) => Err(Error::Interrupted),
                };
                if let Err(error) = result {
                    // Returning drops the queue, the batches and the flushes: whoever waits sees the failure.
                    return progress.shared.fail(error);
                }
            }
            () = sleep_until(progress.deadline), if !progress.batch.is_empty() => progress.send_batch(),
        }
        progress.answer_flushes();
    }
}

impl Progress {
    fn take(&mut self, command: Command) {
        match command {
            Command::Upload(queued) => self.add(queued),
            Command::Flush(done_tx) => {
                self.send_batch();
                self.flushes.push((self.next_batch, done_tx));
            }
            Command::ForgetSeen => self.seen.clear(),
        }
    }

    fn add(&mut self, queued: Queued) {
        if self.seen.len() >= MAX_SEEN {
            self.seen.clear();
        }
        if !self.seen.insert(queued.id) {
            self.shared.counters.chunks_known.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.deadline = Instant::now() + BATCH_IDLE;
        self.batch_bytes += queued.upload.plain.len();
        self.batch.push(queued);
        if self.batch_bytes >= BATCH_BYTES || self.batch.len() >= MAX_HAVE_IDS {
            self.send_batch();
        }
    }

    fn send_batch(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let (batch, number, shared) = (std::mem::take(&mut self.batch), self.next_batch, self.shared.clone());
        self.batch_bytes = 0;
        self.next_batch += 1;
        self.outstanding.insert(number);
        self.under_way.spawn(async move { (number, store_batch(&shared, batch).await) });
    }

    fn answer_flushes(&mut self) {
        let done_before = self.outstanding.first().copied().unwrap_or(self.next_batch);
        for (_, done_tx) in self.flushes.extract_if(.., |(up_to, _)| *up_to <= done_before) {
            // Whoever asked may have been cancelled.
            let _ = done_tx.send(());
        }
    }
}

/// Asks for the batch, seals what is absent and puts it. The permits are freed when it is durable.
async fn store_batch(shared: &Arc<Shared>, batch: Vec<Queued>) -> Result<(), Error> {
    let ids: Vec<_> = batch.iter().map(|queued| queued.id).collect();
    let present = shared.store.have(&ids).await?;
    if present.len() != ids.len() {
        return Err(Error::Malformed { what: "answer of the store", reason: "wrong number of ids" });
    }
    let mut sealing = FuturesUnordered::new();
    for (queued, present) in batch.into_iter().zip(present) {
        if present {
            shared.counters.chunks_known.fetch_add(1, Ordering::Relaxed);
        } else {
            sealing.push(seal(shared, queued));
        }
    }
    let (mut records, mut permits, mut bytes) = (Vec::new(), Vec::new(), 0);
    while let Some(sealed) = sealing.next().await {
        let (record, permit) = sealed?;
        if bytes + record.encoded_len() > BATCH_BYTES && !records.is_empty() {
            put(shared, std::mem::take(&mut records)).await?;
            permits.clear();
            bytes = 0;
        }
        bytes += record.encoded_len();
        records.push(record);
        permits.push(permit);
    }
    if !records.is_empty() {
        put(shared, records).await?;
    }
    Ok(())
}

async fn seal(shared: &Arc<Shared>, queued: Queued) -> Result<(SealedRecord, OwnedSemaphorePermit), Error> {
    let worker = shared.clone();
    let Queued { upload: Upload { kind, chunker, refs, plain }, h, permit, .. } = queued;
    let options = SealOptions { chunker, zstd_level: shared.options.zstd_level };
    let record = on_pool(&shared.pool, move || worker.sealer.seal(kind, h, &plain, refs, options)).await??;
    Ok((record, permit))
}

async fn put(shared: &Shared, records: Vec<SealedRecord>) -> Result<(), Error> {
    let (count, bytes) = (records.len(), records.iter().map(SealedRecord::encoded_len).sum::<usize>());
    let _slot = shared.put_slots.acquire().await.map_err(|_| Error::Interrupted)?;
    shared.store.put(records).await?;
    shared.counters.chunks_new.fetch_add(count as u64, Ordering::Relaxed);
    shared.counters.bytes_stored.fetch_add(bytes as u64, Ordering::Relaxed);
    Ok(())
}
