//! The promises, one function each.

use std::time::Duration;

use holdfast_coordinator::{
    ConfiguredDuty, Error, NodeOptions, PoolOptions,
    catalog::{Catalog, term::Leadership},
    dispatch::{DispatchOptions, dispatch},
    job::{
        attempt::Attempt,
        claim::claim,
        expire::expire,
        finish::{Finished, finish},
        heartbeat::heartbeat,
        release::{Reason, Released, release, retry_by_hand},
        spec::JobSpec,
    },
};
use holdfast_model::{
    Account, Epoch, Fence, Generation, JobClass, JobId, JobKind, JobState, LayoutVersion, Sequence,
    SnapshotId,
};
use holdfast_runtime::ByteSize;

use crate::world::{
    LEASE, MAX_ATTEMPTS, RecordingQueue, SHORT, World, actor, attempt, eventually, failed_item, mailbox,
    new_backup, pin_of,
};

const LONG_TERM: Duration = Duration::from_secs(60);

pub async fn a_job_is_claimed_exactly_once_under_concurrency(world: World) {
    let mut jobs = Vec::new();
    for mailbox in 0..3 {
        jobs.push(world.queued(mailbox).await);
    }
    let mut claims = Vec::new();
    for worker in 0..8 {
        for job in jobs.clone() {
            let catalog = world.catalog.clone();
            let name = format!("w{worker}");
            claims.push(tokio::spawn(
                async move { claim(&catalog, job, &actor(), &name, LEASE).await.unwrap() },
            ));
        }
    }
    let mut won: Vec<JobId> = Vec::new();
    for claim in claims {
        won.extend(claim.await.unwrap().map(|claimed| claimed.job.id));
    }
    won.sort();
    jobs.sort();
    assert_eq!(won, jobs);
}

pub async fn one_mailbox_is_backed_up_by_one_job_at_a_time(world: World) {
    let first = world.queued(0).await;
    let claimed = world.claim(first, LEASE).await.unwrap();
    assert_eq!((claimed.sequence, claimed.base_pin.len()), (Sequence(1), 0));
    // Another coordinator queued it before the first was there to be joined.
    let sql = "INSERT INTO jobs SELECT tenant_id, 'ffffffffffffffffffffffffffffffff', run_id, resource_id, workload, \
               kind, class, 'queued', spec, 0, 0, 0, 0, 0, 0, '', account, 0, '', '', '', created_ms, 0, 0, pin, '', \
               '[]', '', '', '', '' FROM jobs";
    world.tamper(sql).await;
    let second = JobId([0xff; 16]);
    assert!(world.claim(second, LEASE).await.is_none());
    let pin = pin_of(&claimed);
    world.prepare(&claimed, &pin, vec![]).await.unwrap();
    assert!(world.claim(second, LEASE).await.is_none(), "a committing job still has the mailbox");
    world.record(&claimed, &pin).await.unwrap();
    let next = world.claim(second, LEASE).await.unwrap();
    assert_eq!((next.sequence, next.base_pin), (Sequence(2), pin.encode().to_vec()));
}

pub async fn a_command_joins_the_backup_that_is_under_way(world: World) {
    let start = async || {
        world.catalog.start_run(&holdfast_runtime::SystemRandom, &actor(), "t", &[world.backup(0)]).await
    };
    let (run, jobs) = start().await.unwrap();
    assert_eq!(start().await.unwrap(), (run, jobs.clone()));
    world.claim(jobs[0], LEASE).await.unwrap();
    assert_eq!(start().await.unwrap(), (run, jobs));
}

pub async fn every_attempt_gets_a_higher_fence(world: World) {
    let job = world.queued(0).await;
    let leader = world.lead("a", LONG_TERM).await;
    let mut fences = Vec::new();
    for _ in 0..2 {
        fences.push(world.claim(job, SHORT).await.unwrap().job.fence);
        expire_one(&world, &leader).await;
    }
    world.catalog.raise_numbers(&leader, Generation(7), Epoch(3)).await.unwrap();
    fences.push(world.claim(job, SHORT).await.unwrap().job.fence);
    let expected = [(1, 1), (1, 2), (7, 3)];
    assert_eq!(
        fences,
        expected.map(|(generation, attempt)| Fence { generation: Generation(generation), attempt })
    );
    assert_eq!(world.catalog.numbers().await.unwrap(), (Generation(7), Epoch(3)));
    world.catalog.raise_numbers(&leader, Generation(2), Epoch(1)).await.unwrap();
    assert_eq!(world.catalog.numbers().await.unwrap(), (Generation(7), Epoch(3)), "numbers only grow");
}

async fn expire_one(world: &World, leader: &Leadership) {
    let count = async || Some(expire(&world.catalog, leader, MAX_ATTEMPTS).await.unwrap()).filter(|n| *n > 0);
    assert_eq!(eventually(count).await, 1);
}

pub async fn a_heartbeat_keeps_the_lease_and_an_old_fence_is_told_to_stop(world: World) {
    let job = world.queued(0).await;
    let claimed = world.claim(job, Duration::from_secs(1)).await.unwrap();
    let progress = Account { listed: 5, stored: 5, ..Account::default() };
    let row = heartbeat(&world.catalog, &attempt(&claimed.job), &progress, 9, LEASE).await.unwrap().unwrap();
    assert!(row.lease_until_ms >= claimed.job.lease_until_ms + 50_000);
    assert_eq!((row.account, row.items_expected), (progress, 9));
    let old = Attempt { fence: Fence { attempt: 0, ..claimed.job.fence }, ..attempt(&claimed.job) };
    assert!(heartbeat(&world.catalog, &old, &progress, 9, LEASE).await.unwrap().is_none());
}

pub async fn an_ended_lease_returns_the_job_and_the_last_one_parks_it(world: World) {
    let job = world.queued(0).await;
    let leader = world.lead("a", LONG_TERM).await;
    for attempt in 1..=MAX_ATTEMPTS {
        assert_eq!(world.claim(job, SHORT).await.unwrap().job.attempts, attempt);
        expire_one(&world, &leader).await;
    }
    let row = world.catalog.job(job).await.unwrap();
    assert_eq!((row.state, row.code.as_str()), (JobState::Parked, "LeaseEnded"));
    assert!(row.message.contains("given up after 3 attempts"), "{}", row.message);
    assert_eq!(world.counts(0).await.last_run_failed, 1);
    // A lease that still runs is left alone.
    let other = world.queued(1).await;
    world.claim(other, LEASE).await.unwrap();
    assert_eq!(expire(&world.catalog, &leader, MAX_ATTEMPTS).await.unwrap(), 0);
}

pub async fn preparing_and_recording_a_commit_can_be_repeated(world: World) {
    let job = world.queued(0).await;
    let claimed = world.claim(job, LEASE).await.unwrap();
    let pin = pin_of(&claimed);
    for _ in 0..2 {
        world.prepare(&claimed, &pin, vec![]).await.unwrap();
    }
    assert_eq!(world.catalog.job(job).await.unwrap().state, JobState::Committing);
    for _ in 0..2 {
        world.record(&claimed, &pin).await.unwrap();
    }
    world.prepare(&claimed, &pin, vec![]).await.unwrap();
    let row = world.catalog.job(job).await.unwrap();
    assert_eq!((row.state, row.snapshot), (JobState::Done, pin.snapshot.to_string()));
    let snapshots = world.catalog.snapshots(world.tenant, None, None, 10).await.unwrap();
    assert_eq!(snapshots.len(), 1);
    assert_eq!(snapshots[0].pin, pin.encode());
    assert_eq!(world.catalog.snapshot(pin.snapshot).await.unwrap().account.stored, 2);
    assert_eq!(world.counts(0).await.protected, 1);
    assert_eq!(world.catalog.newest_snapshots(None).await.unwrap().len(), 1);
}

pub async fn another_pin_or_a_wrong_pin_is_refused(world: World) {
    let job = world.queued(0).await;
    let claimed = world.claim(job, LEASE).await.unwrap();
    let pin = pin_of(&claimed);
    let mut skipped = pin.clone();
    skipped.sequence = Sequence(2);
    let refused = world.prepare(&claimed, &skipped, vec![]).await;
    assert!(matches!(refused, Err(Error::PinMismatch { field: "sequence" })), "{refused:?}");
    let mut foreign = pin.clone();
    foreign.resource = world.mailboxes[1];
    let refused = world.prepare(&claimed, &foreign, vec![]).await;
    assert!(matches!(refused, Err(Error::PinMismatch { field: "resource" })), "{refused:?}");
    world.prepare(&claimed, &pin, vec![]).await.unwrap();
    let other = pin_of(&claimed);
    assert!(matches!(world.prepare(&claimed, &other, vec![]).await, Err(Error::OtherPin { .. })));
    assert!(matches!(world.record(&claimed, &other).await, Err(Error::OtherPin { .. })));
}

pub async fn a_zombie_commits_nothing(world: World) {
    let job = world.queued(0).await;
    let zombie = world.claim(job, SHORT).await.unwrap();
    let leader = world.lead("a", LONG_TERM).await;
    expire_one(&world, &leader).await;
    let fenced =
        |outcome: Result<(), Error>| assert!(matches!(outcome, Err(Error::Fenced { .. })), "{outcome:?}");
    fenced(world.prepare(&zombie, &pin_of(&zombie), vec![]).await);
    let successor = world.claim(job, LEASE).await.unwrap();
    fenced(world.prepare(&zombie, &pin_of(&zombie), vec![]).await);
    fenced(world.record(&zombie, &pin_of(&zombie)).await);
    fenced(finish(&world.catalog, &attempt(&zombie.job), &Finished::default()).await);
    let released = Released {
        attempt: attempt(&zombie.job),
        reason: Reason::Permanent,
        delay: Duration::ZERO,
        code: String::new(),
        message: String::new(),
    };
    fenced(release(&world.catalog, &released, MAX_ATTEMPTS).await);
    let row = world.catalog.job(job).await.unwrap();
    assert_eq!((row.state, row.fence), (JobState::Running, successor.job.fence));
}

pub async fn a_committing_job_is_never_given_to_another(world: World) {
    let job = world.queued(0).await;
    let claimed = world.claim(job, SHORT).await.unwrap();
    world.prepare(&claimed, &pin_of(&claimed), vec![]).await.unwrap();
    // Its worker gives up without knowing the outcome: that only ends the lease.
    let released = Released {
        attempt: attempt(&claimed.job),
        reason: Reason::Retry,
        delay: Duration::ZERO,
        code: "x".to_owned(),
        message: String::new(),
    };
    release(&world.catalog, &released, MAX_ATTEMPTS).await.unwrap();
    let leader = world.lead("a", LONG_TERM).await;
    assert_eq!(expire(&world.catalog, &leader, MAX_ATTEMPTS).await.unwrap(), 0);
    assert!(world.claim(job, LEASE).await.is_none());
    assert_eq!(world.catalog.job(job).await.unwrap().state, JobState::Committing);
}

pub async fn a_deferred_job_waits_and_does_not_count_as_an_attempt(world: World) {
    let job = world.queued(0).await;
    let claimed = world.claim(job, LEASE).await.unwrap();
    let mut released = Released {
        attempt: attempt(&claimed.job),
        reason: Reason::Deferred,
        delay: Duration::from_secs(120),
        code: "Throttled".to_owned(),
        message: "waits for Microsoft".to_owned(),
    };
    release(&world.catalog, &released, MAX_ATTEMPTS).await.unwrap();
    let row = world.catalog.job(job).await.unwrap();
    assert_eq!((row.state, row.attempts, row.published_at_ms), (JobState::Queued, 0, 0));
    assert_eq!(row.claimed_by, "", "it waits for whoever claims it next");
    assert!(row.not_before_ms > world.catalog.now_ms().await.unwrap() + 60_000);
    assert!(world.claim(job, LEASE).await.is_none(), "not due yet");

    let other = world.queued(1).await;
    released.attempt = attempt(&world.claim(other, LEASE).await.unwrap().job);
    (released.reason, released.delay) = (Reason::Deferred, Duration::ZERO);
    release(&world.catalog, &released, MAX_ATTEMPTS).await.unwrap();
    assert_eq!(world.claim(other, LEASE).await.unwrap().job.attempts, 1);
}

pub async fn a_job_that_fails_for_good_is_parked_and_can_be_retried_by_hand(world: World) {
    let job = world.queued(0).await;
    let claimed = world.claim(job, LEASE).await.unwrap();
    let released = Released {
        attempt: attempt(&claimed.job),
        reason: Reason::Permanent,
        delay: Duration::ZERO,
        code: "MailboxNotEnabledForRESTAPI".to_owned(),
        message: "the user has no Exchange Online mailbox".to_owned(),
    };
    release(&world.catalog, &released, MAX_ATTEMPTS).await.unwrap();
    let row = world.catalog.job(job).await.unwrap();
    assert_eq!((row.state, row.code.as_str()), (JobState::Parked, "MailboxNotEnabledForRESTAPI"));
    retry_by_hand(&world.catalog, &actor(), job).await.unwrap();
    assert!(matches!(retry_by_hand(&world.catalog, &actor(), job).await, Err(Error::Transition { .. })));
    let again = world.claim(job, LEASE).await.unwrap();
    assert_eq!((again.job.attempts, again.job.fence.attempt), (1, 2));
}

pub async fn a_coordinator_that_lost_its_term_decides_nothing(world: World) {
    let job = world.queued(0).await;
    world.claim(job, SHORT).await.unwrap();
    let other = world.queued(1).await;
    let old = world.lead("a", Duration::from_millis(20)).await;
    let new = eventually(async || world.catalog.take_term("b", LONG_TERM).await.unwrap()).await;
    assert!(new.term > old.term);
    assert!(!world.catalog.renew_term(&old, LONG_TERM).await.unwrap());
    let lost =
        |error: Error| assert!(matches!(error, Error::TermLost { term } if term == old.term), "{error:?}");
    lost(expire(&world.catalog, &old, MAX_ATTEMPTS).await.unwrap_err());
    let queue = RecordingQueue::default();
    lost(dispatch(&world.catalog, &old, &queue, &options(10, 60)).await.unwrap_err());
    assert!(queue.taken().is_empty(), "nothing was published");
    lost(world.catalog.raise_numbers(&old, Generation(9), Epoch(9)).await.unwrap_err());
    lost(world.catalog.put_discovered(Some(&old), world.tenant, &[]).await.unwrap_err());
    assert_eq!(world.catalog.job(job).await.unwrap().state, JobState::Running);
    assert_eq!(world.catalog.job(other).await.unwrap().published_at_ms, 0);
    assert_eq!(world.catalog.numbers().await.unwrap(), (Generation(1), Epoch(1)));
    expire_one(&world, &new).await;
    assert_eq!(dispatch(&world.catalog, &new, &queue, &options(10, 60)).await.unwrap(), 2);
}

pub async fn only_one_of_many_takes_the_term(world: World) {
    let mut takers = Vec::new();
    for n in 0..8 {
        let catalog = world.catalog.clone();
        takers
            .push(tokio::spawn(async move { catalog.take_term(&format!("c{n}"), LONG_TERM).await.unwrap() }));
    }
    let mut winners = Vec::new();
    for taker in takers {
        winners.extend(taker.await.unwrap());
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(world.catalog.leader().await.unwrap(), winners[0].holder);
    assert!(world.catalog.renew_term(&winners[0], LONG_TERM).await.unwrap());
    world.catalog.drop_term(&winners[0]).await.unwrap();
    assert_eq!(world.catalog.leader().await.unwrap(), "");
    assert!(world.lead("next", LONG_TERM).await.term > winners[0].term);
}

pub async fn a_changed_audit_row_breaks_the_chain(world: World) {
    let mut writers = Vec::new();
    for n in 0..6 {
        let catalog = world.catalog.clone();
        writers.push(tokio::spawn(async move {
            catalog.audit(&actor(), "snapshot.browse", &format!("s{n}")).await
        }));
    }
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    let rows = world.catalog.newest_audit(100).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.number).collect::<Vec<_>>(), [7, 6, 5, 4, 3, 2, 1]);
    assert_eq!((rows[6].action.as_str(), rows[6].actor.as_str()), ("tenant.connect", "operator/ann"));
    assert!(world.catalog.audit_chain_holds().await.unwrap());
    world.tamper("UPDATE audit SET subject = 'other' WHERE number = 3").await;
    assert!(!world.catalog.audit_chain_holds().await.unwrap());
    world.tamper("DELETE FROM audit WHERE number >= 3").await;
    assert!(!world.catalog.audit_chain_holds().await.unwrap(), "a cut-off end is noticed");
}

fn options(waiting_most: u64, republish_seconds: u64) -> DispatchOptions {
    DispatchOptions {
        region: "default".to_owned(),
        waiting_most,
        republish_after: Duration::from_secs(republish_seconds),
    }
}

pub async fn what_nobody_claimed_is_published_again(world: World) {
    let leader = world.lead("a", LONG_TERM).await;
    let job = world.queued(0).await;
    let queue = RecordingQueue::default();
    assert_eq!(dispatch(&world.catalog, &leader, &queue, &options(10, 60)).await.unwrap(), 1);
    assert_eq!(dispatch(&world.catalog, &leader, &queue, &options(10, 60)).await.unwrap(), 0);
    assert_eq!(queue.taken(), [job]);
    let short = DispatchOptions { republish_after: SHORT, ..options(10, 0) };
    let again =
        async || Some(dispatch(&world.catalog, &leader, &queue, &short).await.unwrap()).filter(|n| *n > 0);
    assert_eq!(eventually(again).await, 1);
    assert_eq!(queue.taken(), [job]);
    world.claim(job, LEASE).await.unwrap();
    assert_eq!(
        dispatch(&world.catalog, &leader, &queue, &short).await.unwrap(),
        0,
        "a claimed job needs no hint"
    );
}

pub async fn a_returned_hint_counts_as_not_published(world: World) {
    let leader = world.lead("a", LONG_TERM).await;
    let job = world.queued(0).await;
    let queue = RecordingQueue { returns: true, ..RecordingQueue::default() };
    assert_eq!(dispatch(&world.catalog, &leader, &queue, &options(10, 60)).await.unwrap(), 0);
    assert_eq!(world.catalog.job(job).await.unwrap().published_at_ms, 0);
    let working = RecordingQueue::default();
    assert_eq!(dispatch(&world.catalog, &leader, &working, &options(10, 60)).await.unwrap(), 1);
    assert_eq!((queue.taken(), working.taken()), (vec![job], vec![job]));
}

pub async fn no_queue_gets_more_than_its_room_and_tenants_take_turns(world: World) {
    let leader = world.lead("a", LONG_TERM).await;
    world.start(&[world.backup(0), world.backup(1), world.backup(2)]).await;
    let (tenant, mailboxes) = world.add_tenant("fabrikam", 1).await;
    let small = world.start(&[new_backup(tenant, mailboxes[0])]).await[0];
    let queue = RecordingQueue { depth: 3, ..RecordingQueue::default() };
    assert_eq!(dispatch(&world.catalog, &leader, &queue, &options(5, 60)).await.unwrap(), 2);
    assert!(queue.taken().contains(&small), "a small tenant does not wait behind a large one");
    let full = RecordingQueue { depth: 5, ..RecordingQueue::default() };
    assert_eq!(dispatch(&world.catalog, &leader, &full, &options(5, 60)).await.unwrap(), 0);
}

pub async fn opening_again_keeps_everything(world: World) {
    let job = world.queued(0).await;
    let before = world.catalog.job(job).await.unwrap();
    world.catalog.close().await;
    let again = Catalog::open(&world.url).await.unwrap();
    assert_eq!(again.job(job).await.unwrap(), before);
    let tenant = again.tenant_by_name("contoso").await.unwrap();
    assert_eq!((tenant.id, tenant.backup_secret), (world.tenant, vec![0, 1, 255]));
    let missing = again.tenant_by_name("nobody").await.unwrap_err();
    assert_eq!(missing.code(), holdfast_proto::status::ErrorCode::NotFound);
}

pub async fn who_disappears_is_gone_and_keeps_the_key(world: World) {
    let before =
        world.catalog.resource_by_name(world.tenant, "contoso", "user:USER1@contoso.test").await.unwrap();
    assert_eq!(before.id, world.mailboxes[1]);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let mut renamed = mailbox(world.tenant, 0);
    renamed.name = "new@contoso.test".to_owned();
    world.catalog.put_discovered(None, world.tenant, &[renamed]).await.unwrap();
    let rows = world.catalog.resources(world.tenant).await.unwrap();
    let seen: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.is_gone)).collect();
    assert_eq!(
        seen,
        [("new@contoso.test", false), ("User1@contoso.test", true), ("User2@contoso.test", true)]
    );
    assert_eq!(rows[0].id, world.mailboxes[0], "the same mailbox under another name");
    assert_eq!(rows[1].wrapped_key, before.wrapped_key);
    let missing = world.catalog.resource_by_name(world.tenant, "contoso", "user:nobody").await;
    assert!(missing.err().unwrap().to_string().contains("run `holdfast resources contoso`"));
}

pub async fn two_who_connect_one_name_do_not_mix_their_credentials(world: World) {
    let first = world.catalog.tenant_by_name("contoso").await.unwrap();
    let mut renewed = first.clone();
    renewed.backup_secret = vec![7];
    world.catalog.put_tenant(&actor(), &renewed).await.unwrap();
    let mut second = first.clone();
    second.id = holdfast_model::TenantId([9; 16]);
    second.backup_secret = vec![8];
    assert!(matches!(
        world.catalog.put_tenant(&actor(), &second).await,
        Err(Error::Invalid { field: "name", .. })
    ));
    let kept = world.catalog.tenant_by_name("contoso").await.unwrap();
    assert_eq!((kept.id, kept.backup_secret), (first.id, vec![7]));
    assert_eq!(world.catalog.newest_audit(10).await.unwrap().len(), 2, "a refused change has no audit row");
    let due = world.catalog.tenants_to_discover(i64::MAX).await.unwrap();
    assert_eq!(due.len(), 1);
    let leader = world.lead("a", LONG_TERM).await;
    world.catalog.put_off_discovery(&leader, first.id, i64::MAX).await.unwrap();
    assert!(world.catalog.tenants_to_discover(i64::MAX).await.unwrap().is_empty());
}

pub async fn layouts_jobs_and_runs_are_found_again(world: World) {
    let leader = world.lead("a", LONG_TERM).await;
    assert!(world.catalog.newest_layout("default").await.unwrap().is_none());
    let pool = PoolOptions {
        name: "default".to_owned(),
        copies: 1,
        ack_sites: 1,
        nodes: vec![NodeOptions {
            id: 1,
            site: "a".to_owned(),
            address: "127.0.0.1:1".to_owned(),
            capacity: ByteSize::gib(1),
            duty: ConfiguredDuty::Data,
        }],
    };
    for version in [1, 4] {
        let layout = pool.layout(LayoutVersion(version)).unwrap();
        world.catalog.add_layout(&leader, &layout).await.unwrap();
        assert_eq!(world.catalog.newest_layout("default").await.unwrap(), Some(layout));
    }
    let older = world.catalog.add_layout(&leader, &pool.layout(LayoutVersion(4)).unwrap()).await;
    assert!(matches!(older, Err(Error::LayoutNotNewer { .. })), "{older:?}");
    assert_eq!(world.catalog.newest_layout_version("default").await.unwrap(), LayoutVersion(4));

    let job = world.queued(0).await;
    world.claim(world.queued(1).await, LEASE).await.unwrap();
    assert_eq!(world.catalog.newest_jobs(None, "", 10).await.unwrap().len(), 2);
    let queued = world.catalog.newest_jobs(Some(world.tenant), "queued", 10).await.unwrap();
    assert_eq!(queued.iter().map(|row| row.id).collect::<Vec<_>>(), [job]);
    let run = queued[0].run;
    assert!(world.catalog.has_run(run).await.unwrap());
    assert_eq!(world.catalog.jobs_of_run(run).await.unwrap(), queued);
    assert_eq!(world.catalog.count_jobs(JobState::Running).await.unwrap(), 1);
    assert!(world.catalog.count_snapshots(world.tenant).await.unwrap().is_empty());
}

pub async fn a_finished_job_is_finished_once(world: World) {
    let mut new = world.backup(0);
    (new.kind, new.class) = (JobKind::Verify, JobClass::Verify);
    new.spec = JobSpec::Verify { snapshot: SnapshotId([1; 8]), sample_percent: 100 };
    let job = world.start(&[new]).await[0];
    let claimed = world.claim(job, LEASE).await.unwrap();
    let account = Account { listed: 4, stored: 3, incomplete: 2, failed_permanent: 1, ..Account::default() };
    let finished = Finished {
        account,
        failed: vec![failed_item("1", "Corrupt")],
        summary: "1 of 4 is damaged".to_owned(),
        result: Vec::new(),
    };
    for _ in 0..2 {
        finish(&world.catalog, &attempt(&claimed.job), &finished).await.unwrap();
    }
    let row = world.catalog.job(job).await.unwrap();
    assert_eq!(
        (row.state, row.account, row.message.as_str()),
        (JobState::Done, account, "1 of 4 is damaged")
    );
    assert!(row.failed.contains("Corrupt"));
    let backup = world.queued(1).await;
    let claimed = world.claim(backup, LEASE).await.unwrap();
    let outcome = finish(&world.catalog, &attempt(&claimed.job), &finished).await;
    assert!(matches!(outcome, Err(Error::Transition { .. })), "a backup ends with a commit only");
}
