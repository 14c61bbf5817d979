//! All state of a simulated tenant.
//!
//! What people have is in `states`, by workload.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, MutexGuard, PoisonError, RwLock};

use holdfast_model::Clock;

use crate::SimError;
use crate::blob::BlobStore;
use crate::counters::Counters;
use crate::faults::Faults;
use crate::http::upload::Uploads;
use crate::limits::Limits;
use crate::openapi::OpenApi;
use crate::options::SimOptions;
use crate::people::People;
use crate::token::Tokens;
use crate::workloads::mail::content::{Content, Generator};
use crate::workloads::mail::mailbox::{Mailbox, Message, Source};
use crate::workloads::states::{States, UserState};

const OPENAPI_VARIABLE: &str = "HOLDFAST_OPENAPI";

pub(crate) struct World {
    options: RwLock<Arc<SimOptions>>,
    pub clock: Arc<dyn Clock>,
    pub people: Arc<People>,
    pub generator: Generator,
    /// Messages that came as files, for all mailboxes.
    pub eml: Vec<Arc<Content>>,
    states: States,
    pub blobs: BlobStore,
    pub limits: Arc<Limits>,
    pub faults: Faults,
    pub counters: Counters,
    pub tokens: Tokens,
    pub uploads: Uploads,
    pub openapi: Option<OpenApi>,
    /// Counts `$value` reads: no two have the same MIME boundary.
    pub reads: AtomicU64,
    /// Set apart from every earlier simulator: its delta tokens are unknown here.
    pub nonce: u64,
    pub requests: AtomicU64,
}

impl World {
    pub(crate) fn new(options: SimOptions, clock: Arc<dyn Clock>) -> Result<Self, SimError> {
        let path = options.openapi.clone().or_else(|| std::env::var_os(OPENAPI_VARIABLE).map(Into::into));
        let openapi = path.map(|path| OpenApi::load(&path)).transpose()?;
        let people = Arc::new(People::new(options.seed, options.population.users));
        let blobs = BlobStore::default();
        let eml = match &options.population.eml_folder {
            Some(folder) => crate::workloads::mail::eml::load(folder, &blobs)?,
            None => Vec::new(),
        };
        Ok(Self {
            generator: Generator::new(options.seed, Arc::clone(&people), options.population.clone()),
            eml,
            states: States::new(people.len()),
            blobs,
            limits: Arc::new(Limits::default()),
            faults: Faults::default(),
            counters: Counters::default(),
            tokens: Tokens::new(options.seed),
            uploads: Uploads::default(),
            openapi,
            reads: AtomicU64::new(1),
            nonce: clock.now_ms(),
            requests: AtomicU64::new(0),
            options: RwLock::new(Arc::new(options)),
            clock,
            people,
        })
    }

    pub(crate) fn options(&self) -> Arc<SimOptions> {
        Arc::clone(&self.options.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_options(&self, options: SimOptions) {
        *self.options.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(options);
    }

    /// What a person has in a workload, made on first touch.
    pub(crate) fn state<S: UserState>(&self, user: u32) -> MutexGuard<'_, S> {
        self.states.lock(self, user)
    }

    pub(crate) fn mailbox(&self, user: u32) -> MutexGuard<'_, Mailbox> {
        self.state(user)
    }

    /// What a message holds, generated when it was never changed.
    pub(crate) fn content(&self, mailbox: &Mailbox, message: &Message) -> Arc<Content> {
        self.content_of(mailbox.user, &message.source)
    }

    pub(crate) fn content_of(&self, user: u32, source: &Source) -> Arc<Content> {
        match source {
            Source::Generated { index, place } => Arc::new(self.generator.message(user, *index, *place)),
            Source::Owned(content) => Arc::clone(content),
        }
    }

    pub(crate) fn is_read(&self, mailbox: &Mailbox, message: &Message) -> bool {
        match &message.source {
            Source::Generated { index, place } => self.generator.is_read(mailbox.user, *index, *place),
            Source::Owned(content) => content.is_read,
        }
    }
}
