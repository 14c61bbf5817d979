//! What protects people, what is missing from their snapshots, and who may say so.

use holdfast_coordinator::{
    Error,
    catalog::{audit::Actor, failed::FailedItem, job::NewJob},
    job::{
        attempt::Attempt,
        finish::{Finished, finish},
        heartbeat::heartbeat,
        prepare_commit::{Prepared, prepare_commit},
        record_commit::record_commit,
        release::{Reason, Released, release},
    },
};
use holdfast_model::{Account, JobState, Workload};

use crate::world::{LEASE, MAX_ATTEMPTS, World, attempt, failed_item, pin_of};

const BOTH: [Workload; 2] = [Workload::Mail, Workload::Contacts];

fn contacts(world: &World, mailbox: usize) -> NewJob {
    NewJob { workload: Workload::Contacts, ..world.backup(mailbox) }
}

pub async fn a_person_is_protected_when_every_workload_has_a_fresh_snapshot(world: World) {
    let counted = async |fresh_since| {
        let counts = world.catalog.count_protection(world.tenant, &BOTH, fresh_since).await.unwrap();
        (counts.resources, counts.protected, counts.never_backed_up, counts.outdated)
    };
    assert_eq!(counted(0).await, (3, 0, 3, 0));
    let mail = world.back_up(world.backup(0), vec![]).await;
    assert_eq!(counted(0).await, (3, 0, 3, 0), "mail alone is not everything");
    assert_eq!((world.counts(0).await.protected, world.counts(0).await.never_backed_up), (1, 2));
    world.back_up(contacts(&world, 0), vec![]).await;
    world.back_up(contacts(&world, 1), vec![]).await;
    assert_eq!(counted(0).await, (3, 1, 2, 0));
    let made = i64::try_from(mail.created_ms).unwrap();
    assert_eq!(counted(made).await, (3, 1, 2, 0));
    assert_eq!(counted(made + 1).await, (3, 0, 2, 1), "a snapshot that is too old does not protect");
    assert_eq!(world.counts(0).await.oldest_last_snapshot_ms, mail.created_ms);
    // What is not asked for does not count, and neither does another tenant.
    let tasks = world.catalog.count_protection(world.tenant, &[Workload::Tasks], 0).await.unwrap();
    assert_eq!((tasks.protected, tasks.never_backed_up), (0, 3));
    let (other, _) = world.add_tenant("fabrikam", 1).await;
    let counts = world.catalog.count_protection(other, &BOTH, 0).await.unwrap();
    assert_eq!((counts.resources, counts.protected), (1, 0));
}

pub async fn failed_items_are_replaced_at_each_commit(world: World) {
    let job = world.queued(0).await;
    let claimed = world.claim(job, LEASE).await.unwrap();
    let pin = pin_of(&claimed);
    let failed = vec![failed_item("1", "A"), failed_item("2", "A"), failed_item("3", "B")];
    world.prepare(&claimed, &pin, failed).await.unwrap();
    assert!(world.catalog.count_failed(world.tenant).await.unwrap().is_empty(), "not before the commit");
    world.record(&claimed, &pin).await.unwrap();
    assert_eq!(world.catalog.count_failed(world.tenant).await.unwrap(), [(Workload::Mail, 3)].into());
    world.back_up(world.backup(0), vec![failed_item("2", "A")]).await;
    assert_eq!(world.catalog.count_failed(world.tenant).await.unwrap(), [(Workload::Mail, 1)].into());
}

pub async fn failed_items_are_grouped_by_cause_over_all_tenants(world: World) {
    let parked = FailedItem { parked: true, ..failed_item("2", "A") };
    let partial = FailedItem { partial: true, ..failed_item("3", "A") };
    let mail = vec![failed_item("1", "A"), parked, partial, failed_item("4", "B")];
    world.back_up(world.backup(0), mail).await;
    world.back_up(contacts(&world, 1), vec![failed_item("5", "A")]).await;
    let since = world.catalog.failed_groups(10).await.unwrap()[0].since_ms;
    assert!(since > 0);
    let (other, mailboxes) = world.add_tenant("fabrikam", 1).await;
    world.back_up(crate::world::new_backup(other, mailboxes[0]), vec![failed_item("6", "A")]).await;
    // It goes on failing, for another reason: since when stays.
    world.back_up(world.backup(0), vec![failed_item("1", "A"), failed_item("4", "A")]).await;

    let groups = world.catalog.failed_groups(10).await.unwrap();
    let seen: Vec<_> = groups.iter().map(|g| (g.code.as_str(), g.items, g.tenants, g.resources)).collect();
    assert_eq!(seen, [("A", 4, 2, 3)]);
    let group = &groups[0];
    assert_eq!((group.retried, group.parked, group.partial, group.since_ms), (4, 0, 0, since));
    let example = &group.example;
    assert_eq!((example.tenant.as_str(), example.path.as_str()), ("contoso", "/Inbox"));
    assert!(["user:User0@contoso.test", "user:User1@contoso.test"].contains(&example.resource.as_str()));
    assert!(world.catalog.failed_groups(0).await.unwrap().is_empty(), "no more than asked for");
}

pub async fn what_becomes_of_failed_items_is_counted(world: World) {
    let parked = FailedItem { parked: true, ..failed_item("2", "A") };
    let partial = FailedItem { partial: true, ..failed_item("3", "A") };
    world.back_up(world.backup(0), vec![failed_item("1", "A"), parked, partial]).await;
    let group = world.catalog.failed_groups(10).await.unwrap().remove(0);
    assert_eq!((group.items, group.retried, group.parked, group.partial), (3, 1, 1, 1));
}

pub async fn nobody_but_the_worker_that_claimed_a_job_speaks_for_it(world: World) {
    let job = world.queued(0).await;
    let claimed = world.claim(job, LEASE).await.unwrap();
    let stranger = Attempt { worker: Actor("worker/w2".to_owned()), ..attempt(&claimed.job) };
    let pin = pin_of(&claimed);
    let refused = |outcome: Result<(), Error>| {
        assert!(matches!(outcome, Err(Error::NotClaimant { .. })), "{outcome:?}")
    };
    let account = Account { listed: 2, stored: 2, ..Account::default() };
    let prepared = Prepared { attempt: stranger.clone(), pin: pin.encode(), account, failed: vec![] };
    let released = Released {
        attempt: stranger.clone(),
        reason: Reason::Permanent,
        delay: LEASE,
        code: "x".to_owned(),
        message: String::new(),
    };
    refused(heartbeat(&world.catalog, &stranger, &account, 2, LEASE).await.map(drop));
    refused(prepare_commit(&world.catalog, &prepared, LEASE).await.map(drop));
    refused(release(&world.catalog, &released, MAX_ATTEMPTS).await);
    refused(finish(&world.catalog, &stranger, &Finished { account, ..Finished::default() }).await);
    let row = world.catalog.job(job).await.unwrap();
    assert_eq!((row.state, row.account), (JobState::Running, Account::default()), "nothing happened");

    world.prepare(&claimed, &pin, vec![]).await.unwrap();
    let hash = pin.hash().to_string();
    refused(record_commit(&world.catalog, &stranger, &hash).await);
    world.record(&claimed, &pin).await.unwrap();
    refused(record_commit(&world.catalog, &stranger, &hash).await);
    assert_eq!(world.catalog.job(job).await.unwrap().claimed_by, "worker/w1");
}
