//! What holds when many write at once, and when somebody stops in the middle.

use std::time::Duration;

use holdfast_coordinator::{
    catalog::{job::JobRow, term::Leadership},
    dispatch::{DispatchOptions, dispatch},
    job::{
        claim::claim,
        heartbeat::heartbeat,
        release::{Reason, Released, release},
    },
};
use holdfast_model::{Account, JobId, JobState};
use holdfast_runtime::SystemRandom;

use crate::world::{
    LEASE, MAX_ATTEMPTS, RecordingQueue, SHORT, World, actor, attempt, eventually, new_backup, pin_of, worker,
};

const LONG_TERM: Duration = Duration::from_secs(60);
const MAILBOXES: u8 = 12;
const HEARTBEATS: u32 = 5;

fn options() -> DispatchOptions {
    DispatchOptions {
        region: "default".to_owned(),
        waiting_most: 100,
        republish_after: Duration::from_secs(60),
    }
}

pub async fn writers_of_different_jobs_lose_no_races(world: World) {
    let (tenant, mailboxes) = world.add_tenant("busy", MAILBOXES).await;
    let new: Vec<_> = mailboxes.iter().map(|mailbox| new_backup(tenant, *mailbox)).collect();
    let jobs = world.start(&new).await;
    let leader = world.lead("a", LONG_TERM).await;
    let world = std::sync::Arc::new(world);
    let workers = jobs.iter().map(|job| tokio::spawn(back_up(world.clone(), *job)));
    let workers: Vec<_> = workers.collect();
    lead_while(&world, &leader, &workers).await;
    for worker in workers {
        worker.await.unwrap();
    }
    for job in &jobs {
        assert_eq!(world.catalog.job(*job).await.unwrap().state, JobState::Done);
    }
    assert_eq!(world.catalog.lost_races(), 0, "no transaction had to be tried again");
    assert!(world.catalog.audit_chain_holds().await.unwrap());
    let unwraps = world.catalog.newest_audit(100).await.unwrap();
    assert_eq!(unwraps.iter().filter(|row| row.action == "key.unwrap").count(), usize::from(MAILBOXES));
}

async fn back_up(world: std::sync::Arc<World>, job: JobId) {
    let claimed = claim(&world.catalog, job, &worker(), "w1", LEASE).await.unwrap().unwrap();
    for items in 0..HEARTBEATS {
        let progress = Account { listed: items.into(), ..Account::default() };
        let held = heartbeat(&world.catalog, &attempt(&claimed.job), &progress, 9, LEASE).await.unwrap();
        assert!(held.is_some());
    }
    let pin = pin_of(&claimed);
    world.prepare(&claimed, &pin, vec![]).await.unwrap();
    world.record(&claimed, &pin).await.unwrap();
}

/// What a leader does all the time, until the workers are done.
async fn lead_while(world: &World, leader: &Leadership, workers: &[tokio::task::JoinHandle<()>]) {
    let queue = RecordingQueue::default();
    loop {
        dispatch(&world.catalog, leader, &queue, &options()).await.unwrap();
        assert!(world.catalog.renew_term(leader, LONG_TERM).await.unwrap());
        if workers.iter().all(tokio::task::JoinHandle::is_finished) {
            return;
        }
    }
}

pub async fn two_commands_for_one_mailbox_make_one_job(world: World) {
    let mut commands = Vec::new();
    for _ in 0..8 {
        let (catalog, new) = (world.catalog.clone(), world.backup(0));
        commands.push(tokio::spawn(async move {
            catalog.start_run(&SystemRandom, &actor(), "t", &[new]).await.unwrap()
        }));
    }
    let mut answers = std::collections::BTreeSet::new();
    for command in commands {
        let (run, jobs) = command.await.unwrap();
        answers.insert((run.to_string(), jobs[0].to_string()));
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(world.catalog.count_jobs(JobState::Queued).await.unwrap(), 1);
}

pub async fn two_jobs_of_one_mailbox_are_not_claimed_at_once(world: World) {
    let mut jobs = vec![world.queued(0).await];
    for (n, sql) in COPIES {
        world.tamper(sql).await;
        jobs.push(JobId([n; 16]));
    }
    let mut claims = Vec::new();
    for job in jobs {
        let catalog = world.catalog.clone();
        claims.push(tokio::spawn(async move { claim(&catalog, job, &worker(), "w1", LEASE).await.unwrap() }));
    }
    let mut won = 0;
    for claim in claims {
        won += usize::from(claim.await.unwrap().is_some());
    }
    assert_eq!(won, 1);
    assert_eq!(world.catalog.count_jobs(JobState::Running).await.unwrap(), 1);
}

macro_rules! copy_as {
    ($id:literal) => {
        concat!(
            "INSERT INTO jobs SELECT tenant_id, '",
            $id,
            "', run_id, resource_id, workload, kind, class, 'queued', spec, 0, 0, 0, 0, 0, 0, '', account, 0, '', '', '', ",
            "created_ms, 0, 0, pin, '', '[]', '', '', '', '' FROM jobs ORDER BY job_id LIMIT 1"
        )
    };
}

/// The same job again under other ids, as if it had been queued by commands that did not see each other.
const COPIES: [(u8, &str); 3] = [
    (0xfd, copy_as!("fdfdfdfdfdfdfdfdfdfdfdfdfdfdfdfd")),
    (0xfe, copy_as!("fefefefefefefefefefefefefefefefe")),
    (0xff, copy_as!("ffffffffffffffffffffffffffffffff")),
];

pub async fn nobody_takes_the_term_in_the_middle_of_a_decision(world: World) {
    let job = world.queued(0).await;
    let old = world.lead("a", Duration::from_millis(500)).await;
    let mut decision = world.catalog.begin_deciding(&old).await.unwrap();
    eventually(async || (world.catalog.now_ms().await.unwrap() > decision.now + 600).then_some(())).await;
    let catalog = world.catalog.clone();
    let mut taking = tokio::spawn(async move { catalog.take_term("b", LONG_TERM).await.unwrap() });
    let early = tokio::time::timeout(Duration::from_millis(300), &mut taking).await;
    assert!(early.is_err(), "the term was taken while its holder decided");
    let sql = "UPDATE jobs SET published_at_ms = 1 WHERE job_id = $1";
    sqlx::query(sql).bind(job.to_string()).execute(decision.on()).await.unwrap();
    decision.commit().await.unwrap();
    let taken = taking.await.unwrap().expect("the term had run out");
    assert!(taken.term > old.term);
    assert_eq!(world.catalog.job(job).await.unwrap().published_at_ms, 1);
}

pub async fn a_commit_that_cannot_be_decided_lets_the_others_go_first(world: World) {
    let leader = world.lead("a", LONG_TERM).await;
    for mailbox in 0..2 {
        let job = world.queued(mailbox).await;
        let claimed = world.claim(job, LEASE).await.unwrap();
        world.prepare(&claimed, &pin_of(&claimed), vec![]).await.unwrap();
        let released = released(&claimed.job, Reason::Retry, Duration::ZERO);
        release(&world.catalog, &released, MAX_ATTEMPTS).await.unwrap();
    }
    let pending = async |most| world.catalog.jobs_with_ended_lease(JobState::Committing, most).await.unwrap();
    let first = pending(1).await.remove(0);
    world.catalog.put_off_recovery(&leader, &first).await.unwrap();
    let next = pending(1).await.remove(0);
    assert_ne!(next.id, first.id, "the other one is looked at");
    assert_eq!(
        eventually(async || Some(pending(2).await).filter(|jobs| jobs.len() == 2)).await[1].id,
        first.id
    );
    // A worker that came back in the meantime keeps its lease.
    let beat =
        heartbeat(&world.catalog, &attempt(&first), &Account::default(), 0, LEASE).await.unwrap().unwrap();
    world.catalog.put_off_recovery(&leader, &first).await.unwrap();
    assert_eq!(world.catalog.job(first.id).await.unwrap().lease_until_ms, beat.lease_until_ms);
}

fn released(job: &JobRow, reason: Reason, delay: Duration) -> Released {
    Released { attempt: attempt(job), reason, delay, code: "x".to_owned(), message: "y".to_owned() }
}

pub async fn what_a_broken_queue_did_not_take_is_not_published(world: World) {
    let leader = world.lead("a", LONG_TERM).await;
    let jobs = world.start(&[world.backup(0), world.backup(1), world.backup(2)]).await;
    let breaking = RecordingQueue { breaks_after: Some(1), ..RecordingQueue::default() };
    dispatch(&world.catalog, &leader, &breaking, &options()).await.unwrap_err();
    let mut published = Vec::new();
    for job in &jobs {
        if world.catalog.job(*job).await.unwrap().published_at_ms > 0 {
            published.push(*job);
        }
    }
    assert_eq!(published, breaking.taken());
    let working = RecordingQueue::default();
    assert_eq!(
        dispatch(&world.catalog, &leader, &working, &options()).await.unwrap(),
        2,
        "at once, not a minute later"
    );
}

pub async fn no_pause_lasts_longer_than_a_day(world: World) {
    let job = world.queued(0).await;
    let claimed = world.claim(job, LEASE).await.unwrap();
    let forever = released(&claimed.job, Reason::Deferred, Duration::from_millis(u64::MAX));
    release(&world.catalog, &forever, MAX_ATTEMPTS).await.unwrap();
    let wait = world.catalog.job(job).await.unwrap().not_before_ms - world.catalog.now_ms().await.unwrap();
    assert!((1..=24 * 3_600_000).contains(&wait), "{wait}");
}

pub async fn every_claim_leaves_one_audit_row(world: World) {
    let job = world.queued(0).await;
    assert!(world.claim(job, SHORT).await.is_some());
    assert!(world.claim(job, LEASE).await.is_none(), "a refused claim unwraps nothing");
    let rows = world.catalog.newest_audit(10).await.unwrap();
    let unwraps: Vec<_> = rows.iter().filter(|row| row.action == "key.unwrap").collect();
    assert_eq!(unwraps.len(), 1);
    assert_eq!(unwraps[0].actor, "worker/w1");
    assert_eq!(unwraps[0].subject, format!("{} for job {job}", world.mailboxes[0]));
}

/// Only where the database is a server: it outlives who asks it.
pub async fn a_coordinator_that_stops_in_a_transaction_is_not_waited_for(world: World) {
    let job = world.queued(0).await;
    let old = world.lead("a", Duration::from_millis(500)).await;
    let mut stopped = world.catalog.begin_deciding(&old).await.unwrap();
    let sql = "UPDATE jobs SET published_at_ms = 1 WHERE job_id = $1";
    sqlx::query(sql).bind(job.to_string()).execute(stopped.on()).await.unwrap();
    let taken = eventually(async || world.catalog.take_term("b", LONG_TERM).await.unwrap()).await;
    assert!(taken.term > old.term);
    assert!(world.claim(job, LEASE).await.is_some());
    assert!(stopped.commit().await.is_err(), "its decision is void");
    assert_eq!(world.catalog.job(job).await.unwrap().published_at_ms, 0);
}
