//! A backup that is split: its shards are jobs that live and end with it.

use std::time::Duration;

use holdfast_coordinator::{
    Error,
    catalog::{audit::Actor, job::JobRow},
    job::{
        attempt::Attempt,
        claim::Claimed,
        expire::expire,
        finish::{Finished, SHARD_RESULT_BYTES_MAX, finish},
        heartbeat::heartbeat,
        release::{Reason, Released, release},
        sync_shards::{
            SHARD_INPUT_BYTES_MAX, SHARDS_PER_JOB_MAX, ShardStanding, ShardState, WantedShard, sync_shards,
        },
    },
};
use holdfast_model::{Account, Fence, JobId, JobKind, JobState, Random as _};
use holdfast_runtime::SystemRandom;

use crate::world::{LEASE, MAX_ATTEMPTS, SHORT, World, attempt, eventually, pin_of};

fn wanted(n: u8) -> WantedShard {
    let mut id = [n; 16];
    SystemRandom.fill(&mut id[1..]);
    WantedShard { id: JobId(id), input: vec![n, 0, 255] }
}

impl World {
    /// A running backup of the first mailbox.
    async fn parent(&self) -> Claimed {
        let job = self.queued(0).await;
        self.claim(job, LEASE).await.unwrap()
    }

    async fn sync(&self, parent: &JobRow, wanted: &[WantedShard]) -> Vec<ShardState> {
        sync_shards(&self.catalog, &attempt(parent), wanted).await.unwrap()
    }

    async fn shard_ids(&self, parent: &JobRow) -> Vec<JobId> {
        let mut ids: Vec<_> =
            self.catalog.shards(parent.id).await.unwrap().iter().map(|shard| shard.id).collect();
        ids.sort();
        ids
    }

    async fn release_as(&self, job: &JobRow, reason: Reason) {
        let released = Released {
            attempt: attempt(job),
            reason,
            delay: Duration::ZERO,
            code: "x".to_owned(),
            message: "x".to_owned(),
        };
        release(&self.catalog, &released, MAX_ATTEMPTS).await.unwrap();
    }
}

fn standings(states: &[ShardState]) -> Vec<ShardStanding> {
    states.iter().map(|state| state.standing.clone()).collect()
}

pub async fn shards_are_made_once_and_tell_how_they_stand(world: World) {
    let parent = world.parent().await.job;
    let shards = [wanted(1), wanted(2), wanted(3)];
    for _ in 0..2 {
        let states = world.sync(&parent, &shards).await;
        assert_eq!(
            states.iter().map(|s| s.id).collect::<Vec<_>>(),
            shards.iter().map(|s| s.id).collect::<Vec<_>>()
        );
        assert_eq!(standings(&states), vec![ShardStanding::Queued; 3]);
    }
    let row = world.catalog.job(shards[0].id).await.unwrap();
    assert_eq!((row.kind, row.class, row.run), (JobKind::BackupShard, parent.class, parent.run));
    assert_eq!((row.tenant, row.resource, row.workload), (parent.tenant, parent.resource, parent.workload));
    assert_eq!(row.parent, Some(parent.id));

    let [done, given_up, _] = &shards;
    let done = world.claim(done.id, LEASE).await.unwrap().job;
    let given_up = world.claim(given_up.id, LEASE).await.unwrap().job;
    assert!(done.fence > parent.fence && given_up.fence > done.fence);
    let progress = Account { listed: 5, stored: 5, ..Account::default() };
    heartbeat(&world.catalog, &attempt(&done), &progress, 0, LEASE).await.unwrap().unwrap();
    let states = world.sync(&parent, &shards).await;
    assert_eq!((&states[0].standing, states[0].progress), (&ShardStanding::Running, progress));

    let result = vec![0, 1, 2, 255];
    let finished = Finished { account: progress, result: result.clone(), ..Finished::default() };
    for _ in 0..2 {
        finish(&world.catalog, &attempt(&done), &finished).await.unwrap();
    }
    world.release_as(&given_up, Reason::Permanent).await;
    let expected = [ShardStanding::Done { result }, ShardStanding::Failed, ShardStanding::Queued];
    assert_eq!(standings(&world.sync(&parent, &shards).await), expected);
}

pub async fn a_shard_that_is_not_wanted_any_more_is_stopped(world: World) {
    let parent = world.parent().await.job;
    let shards = [wanted(1), wanted(2)];
    world.sync(&parent, &shards).await;
    let running = world.claim(shards[0].id, LEASE).await.unwrap().job;
    world.sync(&parent, &shards[1..]).await;
    assert_eq!(world.shard_ids(&parent).await, [shards[1].id]);
    let beat = heartbeat(&world.catalog, &attempt(&running), &Account::default(), 0, LEASE).await;
    assert!(beat.unwrap().is_none(), "it hears stop");
    let late = finish(&world.catalog, &attempt(&running), &Finished::default()).await;
    assert!(matches!(late, Err(Error::Fenced { .. })), "{late:?}");
    // Wanted again, it starts anew.
    assert_eq!(standings(&world.sync(&parent, &shards).await), vec![ShardStanding::Queued; 2]);
}

pub async fn only_the_parents_current_attempt_has_shards(world: World) {
    let parent = world.parent().await.job;
    let shards = [wanted(1)];
    let old = Attempt { fence: Fence { attempt: 0, ..parent.fence }, ..attempt(&parent) };
    let refused = sync_shards(&world.catalog, &old, &shards).await;
    assert!(matches!(refused, Err(Error::Fenced { .. })), "{refused:?}");
    let stranger = Attempt { worker: Actor("worker/w2".to_owned()), ..attempt(&parent) };
    let refused = sync_shards(&world.catalog, &stranger, &shards).await;
    assert!(matches!(refused, Err(Error::NotClaimant { .. })), "{refused:?}");
    assert_eq!(world.shard_ids(&parent).await, []);

    world.sync(&parent, &shards).await;
    let shard = world.claim(shards[0].id, LEASE).await.unwrap().job;
    let refused = sync_shards(&world.catalog, &attempt(&shard), &[wanted(9)]).await;
    assert!(matches!(refused, Err(Error::Transition { .. })), "a shard is not split: {refused:?}");
    let theirs = [WantedShard { id: parent.id, input: vec![] }];
    let refused = sync_shards(&world.catalog, &attempt(&parent), &theirs).await;
    assert!(matches!(refused, Err(Error::Invalid { .. })), "an id that another job has: {refused:?}");
    assert_eq!(world.shard_ids(&parent).await, [shard.id], "nothing was changed by what was refused");
}

pub async fn what_a_shard_may_cost_the_catalog_is_limited(world: World) {
    let parent = world.parent().await.job;
    let invalid =
        |outcome: Result<(), Error>| assert!(matches!(outcome, Err(Error::Invalid { .. })), "{outcome:?}");
    let many: Vec<_> = (0..=SHARDS_PER_JOB_MAX).map(|_| wanted(1)).collect();
    invalid(sync_shards(&world.catalog, &attempt(&parent), &many).await.map(drop));
    let large = [WantedShard { input: vec![0; SHARD_INPUT_BYTES_MAX + 1], ..wanted(1) }];
    invalid(sync_shards(&world.catalog, &attempt(&parent), &large).await.map(drop));
    let shards: Vec<_> = (1..=5).map(wanted).collect();
    world.sync(&parent, &shards).await;
    for shard in &shards {
        let shard = world.claim(shard.id, LEASE).await.unwrap().job;
        let too_long = Finished { result: vec![0; SHARD_RESULT_BYTES_MAX + 1], ..Finished::default() };
        invalid(finish(&world.catalog, &attempt(&shard), &too_long).await);
        let longest = Finished { result: vec![7; SHARD_RESULT_BYTES_MAX], ..Finished::default() };
        finish(&world.catalog, &attempt(&shard), &longest).await.unwrap();
    }
    // An answer has room for four of them; the fifth comes when the others are merged.
    let states = world.sync(&parent, &shards).await;
    assert_eq!(states.iter().filter(|s| s.standing == ShardStanding::Running).count(), 1);
    let states = world.sync(&parent, &shards[4..]).await;
    assert!(
        matches!(&states[0].standing, ShardStanding::Done { result } if result.len() == SHARD_RESULT_BYTES_MAX)
    );
}

pub async fn shards_stay_while_their_parent_waits_and_end_with_it(world: World) {
    let parent = world.parent().await.job;
    let shards = [wanted(1), wanted(2)];
    world.sync(&parent, &shards).await;
    world.release_as(&parent, Reason::Deferred).await;
    assert_eq!(world.shard_ids(&parent).await.len(), 2, "it goes on with them");
    let shard = world.claim(shards[0].id, LEASE).await.unwrap().job;
    finish(&world.catalog, &attempt(&shard), &Finished::default()).await.unwrap();
    let again = world.claim(parent.id, SHORT).await.unwrap().job;
    let done = ShardStanding::Done { result: vec![] };
    assert_eq!(standings(&world.sync(&again, &shards).await), [done, ShardStanding::Queued]);

    let leader = world.lead("a", LEASE).await;
    let expired =
        async || Some(expire(&world.catalog, &leader, MAX_ATTEMPTS).await.unwrap()).filter(|n| *n > 0);
    eventually(expired).await;
    assert_eq!(world.shard_ids(&parent).await.len(), 2, "another attempt follows");
    let last = world.claim(parent.id, LEASE).await.unwrap().job;
    world.release_as(&last, Reason::Permanent).await;
    assert_eq!(world.catalog.job(parent.id).await.unwrap().state, JobState::Parked);
    assert_eq!(world.shard_ids(&parent).await, [], "nobody would take their results");

    let claimed = world.parent().await;
    world.sync(&claimed.job, &shards).await;
    let pin = pin_of(&claimed);
    world.prepare(&claimed, &pin, vec![]).await.unwrap();
    let late = sync_shards(&world.catalog, &attempt(&claimed.job), &shards).await;
    assert!(matches!(late, Err(Error::Fenced { .. })), "what commits is not split: {late:?}");
    world.record(&claimed, &pin).await.unwrap();
    assert_eq!(world.shard_ids(&claimed.job).await, []);
}

pub async fn a_shard_is_no_backup_of_its_resource(world: World) {
    let claimed = world.parent().await;
    let parent = &claimed.job;
    let shards = [wanted(1), wanted(2)];
    world.sync(parent, &shards).await;
    let shard = world.claim(shards[0].id, LEASE).await;
    assert!(shard.is_some(), "the backup that is under way is its own");
    assert_eq!(
        world.catalog.jobs_of_run(parent.run).await.unwrap().len(),
        1,
        "the run is what was asked for"
    );
    assert_eq!(world.catalog.count_jobs(JobState::Running).await.unwrap(), 1);
    assert_eq!(world.catalog.newest_jobs(None, "", 10).await.unwrap().len(), 1);
    let listed = world.catalog.newest_shards(Some(world.tenant), "running", 10).await.unwrap();
    assert_eq!(listed.iter().map(|shard| shard.id).collect::<Vec<_>>(), [shards[0].id]);
    assert_eq!(world.start(&[world.backup(0)]).await, [parent.id], "a command joins the backup, not a shard");
    let given_up = world.claim(shards[1].id, LEASE).await.unwrap().job;
    world.release_as(&given_up, Reason::Permanent).await;
    assert_eq!(world.counts(0).await.last_run_failed, 0);
    let pin = pin_of(&claimed);
    world.prepare(&claimed, &pin, vec![]).await.unwrap();
    world.record(&claimed, &pin).await.unwrap();
    assert_eq!(world.counts(0).await.protected, 1);
}
