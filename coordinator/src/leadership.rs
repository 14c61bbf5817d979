//! Takes and keeps the term. Several coordinators serve; one decides.
//!
//! What this process believes is only a hint that saves work: whoever decides checks the term row in the transaction of
//! the decision.

use std::sync::{Mutex, PoisonError};

use holdfast_model::Random;
use holdfast_runtime::Step;

use crate::{catalog::term::Leadership, core::Core, error::Error, metrics};

/// The term this process believes to hold.
pub(crate) struct Leader {
    holder: String,
    current: Mutex<Option<Leadership>>,
}

impl Leader {
    /// A process that holds nothing yet. The random part makes a restarted coordinator another holder.
    pub(crate) fn new(name: &str, random: &dyn Random) -> Self {
        Self { holder: format!("{name}#{:08x}", random.next_u64() >> 32), current: Mutex::default() }
    }

    /// The term, when this process believes to lead.
    pub(crate) fn current(&self) -> Option<Leadership> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, leadership: Option<Leadership>) {
        metrics::leads(leadership.is_some());
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = leadership;
    }

    /// Forgets a term that turned out to be lost.
    pub(crate) fn forget(&self, lost: &Leadership) {
        if self.current().as_ref() == Some(lost) {
            tracing::warn!(term = lost.term.0, "the term is lost: another coordinator decides");
            self.set(None);
        }
    }
}

/// Renews the term, or takes it when it is free.
pub(crate) async fn step(core: &Core) -> Result<Step, Error> {
    let length = core.options.term();
    match core.leader.current() {
        Some(leadership) => {
            if !core.catalog.renew_term(&leadership, length).await? {
                core.leader.forget(&leadership);
            }
        }
        None => {
            if let Some(leadership) = core.catalog.take_term(&core.leader.holder, length).await? {
                tracing::info!(
                    term = leadership.term.0,
                    holder = leadership.holder,
                    "this coordinator leads"
                );
                core.leader.set(Some(leadership));
            }
        }
    }
    Ok(Step::Idle)
}

/// Lets go of the term, so that another coordinator takes it at once.
pub(crate) async fn resign(core: &Core) {
    if let Some(leadership) = core.leader.current() {
        if let Err(error) = core.catalog.drop_term(&leadership).await {
            tracing::warn!(%error, "the term was not let go of: it runs out by itself");
        }
        core.leader.set(None);
    }
}
