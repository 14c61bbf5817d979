//! Attempts of backups, one after another, as a coordinator gives them out: each stands still, is cut off or given up as drawn.

use std::{sync::Arc, time::Duration};

use holdfast_model::ResourceId;
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    SimRandom,
    moves::Operator,
    world::World,
    writer::{Attempt, Pause},
};

/// Runs attempt after attempt, each in a process of its own; gives up on slow ones, which then are zombies.
pub async fn supervise(
    world: Arc<World>,
    resource: ResourceId,
    writers: TaskTracker,
    stop: CancellationToken,
) {
    let random = SimRandom::new(world.seed, &format!("supervisor {}", resource.0[0]));
    let patience_ms_min = match world.operator {
        // An attempt that stands still with its ticket in its hand gets to use it.
        Operator::AmidCommits => 15_000,
        Operator::Absent | Operator::AtAnyTime => 500,
    };
    while !stop.is_cancelled() {
        if world.authority.is_committing(resource) {
            if let Err(error) = world.authority.recover(resource).await {
                world.log.add(format_args!("commit of {:02x} not decided: {error}", resource.0[0]));
                sleep(Duration::from_millis(random.between(100, 3_000))).await;
            }
            continue;
        }
        let patience = Duration::from_millis(random.between(patience_ms_min, 40_000));
        let Some(attempt) = attempt(&world, resource, &random) else { continue };
        let (place, dies) = (attempt.place, random.per_mille(120));
        let running = writers.spawn(attempt.run());
        let abort = running.abort_handle();
        let ended = tokio::select! {
            biased;
            _ = running => true,
            () = sleep(patience) => false,
            () = stop.cancelled() => false,
        };
        if !ended && dies {
            abort.abort();
            world.net.stop(place);
        }
        sleep(Duration::from_millis(random.between(10, 1_500))).await;
    }
}

/// The next attempt, in a process of its own; none while it is not known how the commit before it ended.
pub fn attempt(world: &Arc<World>, resource: ResourceId, random: &SimRandom) -> Option<Attempt> {
    let lease = world.authority.claim(resource)?;
    let (place, client) = world.writer();
    let (pause, cut_off) = (any_pause(world.operator, random), random.per_mille(500));
    let random = SimRandom::new(world.seed, &format!("attempt {}", place.0));
    Some(Attempt { world: world.clone(), lease, client, place, random, pause, cut_off })
}

fn any_pause(operator: Operator, random: &SimRandom) -> Pause {
    let long = match operator {
        // As long as it takes new owners to take over.
        Operator::AmidCommits => 15,
        _ if random.per_mille(200) => 900,
        _ => 40,
    };
    let time = Duration::from_secs(random.between(1, long));
    match (random.below(10), operator) {
        (0, _) => Pause::Between(time),
        (1..=2, _) | (3..=7, Operator::AmidCommits) => Pause::BeforeCommit(time),
        _ => Pause::Never,
    }
}
