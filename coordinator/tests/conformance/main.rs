//! One suite for both catalogs: what is promised about jobs, fences, terms and the audit chain holds on SQLite and on
//! PostgreSQL alike.
#![allow(clippy::unwrap_used)]

mod postgres;
mod scenarios;
mod world;

use world::World;

async fn open_at_once(url: &str) {
    let opened = (0..5).map(|_| holdfast_coordinator::catalog::Catalog::open(url));
    for catalog in futures::future::join_all(opened).await {
        assert_eq!(catalog.unwrap().numbers().await.unwrap().0, holdfast_model::Generation(1));
    }
}

macro_rules! suite {
    ($($scenario:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $scenario() {
                let dir = tempfile::tempdir().unwrap();
                let url = format!("sqlite://{}", dir.path().join("catalog.db").display());
                super::scenarios::$scenario(super::World::open(&url).await).await;
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
                scenarios::$scenario(World::open(&url).await).await;
            )+
        }
    };
}

suite!(
    a_job_is_claimed_exactly_once_under_concurrency,
    one_mailbox_is_backed_up_by_one_job_at_a_time,
    a_command_joins_the_backup_that_is_under_way,
    every_attempt_gets_a_higher_fence,
    a_heartbeat_keeps_the_lease_and_an_old_fence_is_told_to_stop,
    an_ended_lease_returns_the_job_and_the_last_one_parks_it,
    preparing_and_recording_a_commit_can_be_repeated,
    another_pin_or_a_wrong_pin_is_refused,
    a_zombie_commits_nothing,
    a_committing_job_is_never_given_to_another,
    a_deferred_job_waits_and_does_not_count_as_an_attempt,
    a_job_that_fails_for_good_is_parked_and_can_be_retried_by_hand,
    failed_items_are_replaced_at_each_commit,
    a_coordinator_that_lost_its_term_decides_nothing,
    only_one_of_many_takes_the_term,
    a_changed_audit_row_breaks_the_chain,
    what_nobody_claimed_is_published_again,
    a_returned_hint_counts_as_not_published,
    no_queue_gets_more_than_its_room_and_tenants_take_turns,
    opening_again_keeps_everything,
    who_disappears_is_gone_and_keeps_the_key,
    two_who_connect_one_name_do_not_mix_their_credentials,
    layouts_jobs_and_runs_are_found_again,
    a_finished_job_is_finished_once,
);
