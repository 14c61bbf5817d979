//! Asking the owners of a pin partition and counting what they say.
//!
//! Each owner is asked in parallel and again while it is merely away. The tally ends when a majority has accepted and the
//! stragglers had their time, or when no majority can come about any more.

use std::{future::Future, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use holdfast_model::{LayoutNode, NodeId};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{error::CallError, nodes::Context, pins::PinSpace};

/// Whether to go on asking when no majority can accept any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WithoutMajority {
    /// A decision: the answer is known.
    Stop,
    /// A reading: every answer helps.
    AskAll,
}

/// What the owners said.
pub(crate) struct Tally<T> {
    /// Who accepted.
    pub(crate) accepted: Vec<(NodeId, T)>,
    /// Who answered, but did not accept.
    pub(crate) declined: Vec<(NodeId, T)>,
    /// Who did not answer, or refused the call.
    pub(crate) errors: Vec<CallError>,
}

/// Asks every owner until the tally is decided; an owner that is away is asked again for `retry_for`.
pub(crate) async fn ask_owners<'a, T, F>(
    context: &'a Context,
    space: &'a PinSpace,
    (retry_for, without_majority): (Duration, WithoutMajority),
    accepts: impl Fn(&T) -> bool,
    ask: impl Fn(&'a LayoutNode) -> F,
) -> Tally<T>
where
    F: Future<Output = Result<T, CallError>>,
{
    let deadline = Instant::now() + retry_for;
    let mut tally = Tally { accepted: Vec::new(), declined: Vec::new(), errors: Vec::new() };
    let mut pending: FuturesUnordered<_> = space
        .owners
        .iter()
        .map(|node| {
            let ask = &ask;
            async move { (node.id, ask_until(context, deadline, || ask(node)).await) }
        })
        .collect();
    let mut stragglers_until = None;
    loop {
        let next = match stragglers_until {
            None => pending.next().await,
            Some(until) => match timeout_at(until, pending.next()).await {
                Ok(next) => next,
                Err(_) => break,
            },
        };
        let Some((node, answer)) = next else { break };
        match answer {
            Ok(answer) if accepts(&answer) => tally.accepted.push((node, answer)),
            Ok(answer) => tally.declined.push((node, answer)),
            Err(error) => tally.errors.push(error),
        }
        if tally.accepted.len() >= space.majority {
            stragglers_until.get_or_insert(Instant::now() + context.options.straggler_wait.0);
        } else if tally.accepted.len() + pending.len() < space.majority
            && without_majority == WithoutMajority::Stop
        {
            break;
        }
    }
    tally
}

/// Makes a call again, with growing pauses, while its errors allow and the deadline is not near.
async fn ask_until<T, F>(context: &Context, deadline: Instant, ask: impl Fn() -> F) -> Result<T, CallError>
where
    F: Future<Output = Result<T, CallError>>,
{
    let mut attempt = 0;
    loop {
        match ask().await {
            Err(error) if error.is_retryable() => {
                let pause = context.pause(attempt);
                if Instant::now() + pause >= deadline {
                    return Err(error);
                }
                tracing::debug!(node = %error.node, attempt, reason = %error.message, "owner is asked again");
                sleep(pause).await;
                attempt += 1;
            }
            answer => return answer,
        }
    }
}
