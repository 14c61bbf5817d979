//! One suite for both catalogs: what is promised about jobs, fences, terms and the audit chain holds on SQLite and on
//! PostgreSQL alike.
#![allow(clippy::unwrap_used)]

mod contention;
mod postgres;
mod protection;
mod scenarios;
mod shards;
mod world;

use world::World;

async fn open_at_once(url: &str) {
    let opened = (0..5).map(|_| holdfast_coordinator::catalog::Catalog::open(url));
    let mut makers = 0;
    for catalog in futures::future::join_all(opened).await {
        let catalog = catalog.unwrap();
        assert_eq!(catalog.numbers().await.unwrap().0, holdfast_model::Generation(1));
        makers += usize::from(catalog.is_new());
    }
    assert_eq!(makers, 1, "one of them made it");
    assert!(!holdfast_coordinator::catalog::Catalog::open(url).await.unwrap().is_new());
}

macro_rules! suite {
    ($($part:ident::$scenario:ident),+ $(,)?) => {
        mod sqlite {
            use super::{contention, protection, scenarios, shards};

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $scenario() {
                let dir = tempfile::tempdir().unwrap();
                let url = format!("sqlite://{}", dir.path().join("catalog.db").display());
                $part::$scenario(super::World::open(&url).await).await;
            })+
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn many_open_a_new_catalog_at_once_on_sqlite() {
            let dir = tempfile::tempdir().unwrap();
            open_at_once(&format!("sqlite://{}", dir.path().join("catalog.db").display())).await;
        }

        /// In one test, because one server serves all.
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn all_of_it_holds_on_postgresql() {
            let Some(server) = postgres::Server::start().await else {
                println!("skipped: PostgreSQL is not installed and HOLDFAST_TEST_PG_URL is not set");
                return;
            };
            open_at_once(&server.fresh_database("opened_at_once").await).await;
            $(
                let url = server.fresh_database(stringify!($scenario)).await;
                println!("{}", stringify!($scenario));
                $part::$scenario(World::open(&url).await).await;
            )+
            let url = server.fresh_database("a_stopped_coordinator").await;
            contention::a_coordinator_that_stops_in_a_transaction_is_not_waited_for(World::open(&url).await).await;
        }
    };
}

suite!(
    scenarios::a_job_is_claimed_exactly_once_under_concurrency,
    scenarios::one_mailbox_is_backed_up_by_one_job_at_a_time,
    scenarios::a_command_joins_the_backup_that_is_under_way,
    scenarios::every_attempt_gets_a_higher_fence,
    scenarios::a_heartbeat_keeps_the_lease_and_an_old_fence_is_told_to_stop,
    scenarios::an_ended_lease_returns_the_job_and_the_last_one_parks_it,
    scenarios::preparing_and_recording_a_commit_can_be_repeated,
    scenarios::another_pin_or_a_wrong_pin_is_refused,
    scenarios::a_zombie_commits_nothing,
    scenarios::a_committing_job_is_never_given_to_another,
    scenarios::a_deferred_job_waits_and_does_not_count_as_an_attempt,
    scenarios::a_job_that_fails_for_good_is_parked_and_can_be_retried_by_hand,
    protection::a_person_is_protected_when_every_workload_has_a_fresh_snapshot,
    protection::failed_items_are_replaced_at_each_commit,
    protection::failed_items_are_grouped_by_cause_over_all_tenants,
    protection::what_becomes_of_failed_items_is_counted,
    protection::nobody_but_the_worker_that_claimed_a_job_speaks_for_it,
    scenarios::a_coordinator_that_lost_its_term_decides_nothing,
    scenarios::only_one_of_many_takes_the_term,
    scenarios::a_changed_audit_row_breaks_the_chain,
    scenarios::what_nobody_claimed_is_published_again,
    scenarios::a_returned_hint_counts_as_not_published,
    scenarios::no_queue_gets_more_than_its_room_and_tenants_take_turns,
    scenarios::opening_again_keeps_everything,
    scenarios::who_disappears_is_gone_and_keeps_the_key,
    scenarios::two_who_connect_one_name_do_not_mix_their_credentials,
    scenarios::layouts_jobs_and_runs_are_found_again,
    scenarios::a_finished_job_is_finished_once,
    contention::writers_of_different_jobs_lose_no_races,
    contention::two_commands_for_one_mailbox_make_one_job,
    contention::two_jobs_of_one_mailbox_are_not_claimed_at_once,
    contention::nobody_takes_the_term_in_the_middle_of_a_decision,
    contention::a_commit_that_cannot_be_decided_lets_the_others_go_first,
    contention::what_a_broken_queue_did_not_take_is_not_published,
    contention::no_pause_lasts_longer_than_a_day,
    contention::every_claim_leaves_one_audit_row,
    shards::shards_are_made_once_and_tell_how_they_stand,
    shards::a_shard_that_is_not_wanted_any_more_is_stopped,
    shards::only_the_parents_current_attempt_has_shards,
    shards::what_a_shard_may_cost_the_catalog_is_limited,
    shards::shards_stay_while_their_parent_waits_and_end_with_it,
    shards::a_shard_is_no_backup_of_its_resource,
);
