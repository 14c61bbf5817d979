//! Whether this coordinator may be sent work: it has started, and its catalog answers.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use holdfast_runtime::{Readiness, ReadinessProbe, ReadyFlag, Step};

use crate::core::Core;

/// How often the catalog is asked.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A catalog that answers later than this does not answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Asks the catalog for the time.
pub(crate) async fn step(core: &Core) -> Step {
    let answers =
        tokio::time::timeout(ANSWER_WITHIN, core.catalog.now_ms()).await.is_ok_and(|now| now.is_ok());
    if core.catalog_answers.swap(answers, Ordering::AcqRel) != answers {
        if answers {
            tracing::info!("the catalog answers again");
        } else {
            tracing::warn!("the catalog does not answer: nothing is handed out or committed until it does");
        }
    }
    Step::Idle
}

/// What `/readyz` says.
pub(crate) fn probe(core: &Arc<Core>, started: &ReadyFlag) -> ReadinessProbe {
    let (core, started) = (core.clone(), started.probe());
    Arc::new(move || match started() {
        Readiness::Ready if !core.catalog_answers.load(Ordering::Acquire) => {
            Readiness::NotReady { reason: "the catalog does not answer".to_owned() }
        }
        readiness => readiness,
    })
}
