//! The loops that drive repair: each calls one step of the core, then rests in proportion to what the step took.

use std::{sync::Arc, time::Duration};

use holdfast_runtime::{Background, Shutdown, Step};

use super::Pace;
use crate::{Error, Node};

/// How often the queue is looked at while there is nothing to do, and whether peers came back.
const RESYNC_EVERY: Duration = Duration::from_secs(5);
/// How often it is seen whether a partition is suspect or a round is due.
const COMPARE_EVERY: Duration = Duration::from_secs(10);
/// How often it is seen whether a verification is due.
const VERIFY_EVERY: Duration = Duration::from_secs(60);
/// How often it is seen whether the scrub may read on.
const SCRUB_EVERY: Duration = Duration::from_secs(10);
/// No rest is longer.
const REST_MAX: Duration = Duration::from_secs(30);

/// Starts them; they end with the shutdown of `loops`.
pub(crate) fn spawn_loops(node: &Arc<Node>, loops: &Background) {
    let options = node.repair.options;
    let (one, shutdown) = (node.clone(), loops.shutdown().clone());
    loops.spawn_loop("resync", RESYNC_EVERY, move || {
        let (node, shutdown) = (one.clone(), shutdown.clone());
        async move {
            let work = node.resync_step(node.lease_now_ms());
            rested(&node, options.resync_tranquility, &shutdown, work).await
        }
    });
    let (one, shutdown) = (node.clone(), loops.shutdown().clone());
    loops.spawn_loop("compare", COMPARE_EVERY, move || {
        let (node, shutdown) = (one.clone(), shutdown.clone());
        async move {
            let work = node.compare_step(node.lease_now_ms());
            rested(&node, options.resync_tranquility, &shutdown, work).await
        }
    });
    let (one, shutdown) = (node.clone(), loops.shutdown().clone());
    loops.spawn_loop("verify", VERIFY_EVERY, move || {
        let (node, shutdown) = (one.clone(), shutdown.clone());
        async move {
            let work = node.verify_step(node.lease_now_ms());
            rested(&node, options.resync_tranquility, &shutdown, work).await
        }
    });
    let (one, shutdown) = (node.clone(), loops.shutdown().clone());
    loops.spawn_loop("scrub", SCRUB_EVERY, move || {
        let (node, shutdown) = (one.clone(), shutdown.clone());
        async move {
            let work = node.scrub_step(node.lease_now_ms(), Pace::Scheduled);
            rested(&node, options.scrub_tranquility, &shutdown, work).await
        }
    });
}

async fn rested(
    node: &Node,
    tranquility: u32,
    shutdown: &Shutdown,
    work: impl Future<Output = Result<Step, Error>>,
) -> Result<Step, Error> {
    let started = node.clock.monotonic();
    let step = work.await?;
    if step == Step::More {
        let took = node.clock.monotonic().saturating_sub(started);
        tokio::select! {
            () = tokio::time::sleep(took.saturating_mul(tranquility).min(REST_MAX)) => {}
            () = shutdown.wait() => {}
        }
    }
    Ok(step)
}
