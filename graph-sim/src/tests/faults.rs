use super::*;
use crate::FaultOptions;

fn with(faults: FaultOptions) -> SimOptions {
    SimOptions { faults, ..options() }
}

#[tokio::test]
async fn a_dead_delta_token_is_410() {
    let bench = start(options()).await;
    let (_, link) = bench.all("/mailFolders/inbox/messages/delta", 50).await;
    bench.control("expire-delta", json!({"user": bench.user})).await;
    let response = bench.get(&link.unwrap()).await;
    assert_eq!(response.status(), 410);
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "SyncStateNotFound");
    bench.all("/mailFolders/inbox/messages/delta", 50).await;
}

#[tokio::test]
async fn more_than_four_in_flight_are_throttled() {
    let bench = start(SimOptions { latency_ms: 200, ..options() }).await;
    let calls = (0..8).map(|_| async { bench.get("/mailFolders").await });
    let answers = futures::future::join_all(calls).await;
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status() == 429).collect();
    assert_eq!(refused.len(), 4);
    assert_eq!(bench.sim.counters().early_after_429, 0, "they were on their way");
    let name = bench.sim.users()[0].user_principal_name.clone();
    assert_eq!(bench.sim.counters().max_in_flight[&name], 4);
    bench.clock.push(10_000);
    assert_eq!(bench.get("/mailFolders").await.status(), 200);
}

#[tokio::test]
async fn coming_back_early_is_refused_and_counted() {
    let bench = start(with(FaultOptions { rate_429: 1.0, ..FaultOptions::default() })).await;
    for number in 0.. {
        assert!(number < 50, "no refusal said when to come back");
        let response = bench.get(&format!("/mailFolders/{number}")).await;
        if response.headers().contains_key("retry-after") {
            break;
        }
        bench.clock.push(10_000);
    }
    assert_eq!(bench.sim.counters().early_after_429, 0);
    bench.control("options", json!({"faults": {"rate-429": 0.0}})).await;
    bench.clock.push(400);
    assert_eq!(bench.get("/mailFolders").await.status(), 429);
    assert_eq!(bench.sim.counters().early_after_429, 1);
    bench.clock.push(10_000);
    assert_eq!(bench.get("/mailFolders").await.status(), 200);
    assert_eq!(bench.sim.counters().early_after_429, 1);
}

#[tokio::test]
async fn a_user_without_a_mailbox_is_refused() {
    let mut options = options();
    options.population.users_without_mailbox = 1;
    let mut bench = start(options).await;
    bench.user = bench.sim.users()[2].id.clone();
    let response = bench.get("/mailFolders").await;
    assert_eq!(response.status(), 404);
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "MailboxNotEnabledForRESTAPI");
}

#[tokio::test]
async fn the_window_and_the_upload_window_fill() {
    let mut options = options();
    options.limits.requests_per_window = 20;
    options.limits.upload_bytes_per_window = 1000;
    let bench = start(options).await;
    let body = json!({"displayName": "x".repeat(700)});
    assert_eq!(bench.send(Method::POST, "/mailFolders", &body).await.0, 201);
    let refused = bench.request(Method::POST, "/mailFolders").json(&body).send().await.unwrap();
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    bench.clock.push(306_000);
    for _ in 0..18 {
        assert_eq!(bench.get("/mailFolders").await.status(), 200);
    }
    assert_eq!(bench.get("/mailFolders").await.status(), 429);
    bench.clock.push(611_000);
    assert_eq!(bench.get("/mailFolders").await.status(), 200);
}

#[tokio::test]
async fn retry_after_comes_in_every_form() {
    let bench = start(with(FaultOptions { rate_429: 1.0, ..FaultOptions::default() })).await;
    let (mut integer, mut fraction, mut date, mut absent) = (0, 0, 0, 0);
    for number in 0..40 {
        let response = bench.get(&format!("/mailFolders/{number}")).await;
        assert_eq!(response.status(), 429);
        match response.headers().get("retry-after").map(|value| value.to_str().unwrap()) {
            None => absent += 1,
            Some(value) if value.contains("GMT") => date += 1,
            Some(value) if value.contains('.') => fraction += 1,
            Some(value) => {
                value.parse::<u64>().unwrap();
                integer += 1;
            }
        }
        bench.clock.push(10_000);
    }
    assert!(integer > 0 && fraction > 0 && date > 0 && absent > 0, "{integer} {fraction} {date} {absent}");
}

#[tokio::test]
async fn a_truncated_body_is_seen_as_an_error() {
    let bench = start(with(FaultOptions { rate_truncate: 1.0, ..FaultOptions::default() })).await;
    let truth = bench.sim.truth(&bench.user).await.unwrap();
    let response = bench.get(&format!("/messages/{}/$value", truth[0].id)).await;
    assert_eq!(response.status(), 200);
    assert!(response.content_length().unwrap() > 0);
    assert!(response.bytes().await.is_err());
    bench.control("options", json!({"faults": {"rate-truncate": 0.0}})).await;
    assert!(bench.get(&format!("/messages/{}/$value", truth[0].id)).await.bytes().await.is_ok());
}

#[tokio::test]
async fn a_reset_leaves_no_answer() {
    let bench = start(with(FaultOptions { rate_reset: 1.0, ..FaultOptions::default() })).await;
    let error = bench.request(Method::GET, "/mailFolders").send().await.unwrap_err();
    assert!(error.is_request(), "{error:?}");
    assert!(bench.sim.counters().faults["reset"] >= 1);
}

#[tokio::test]
async fn empty_pages_and_duplicates_do_not_lose_anything() {
    let faults =
        FaultOptions { rate_empty_page: 0.4, rate_duplicate_in_page: 0.6, ..FaultOptions::default() };
    let mut options = with(faults);
    options.population.messages_per_user = 300;
    let bench = start(options).await;
    let count = bench.json("/mailFolders/inbox").await["totalItemCount"].as_u64().unwrap() as usize;
    let (items, _) = bench.all("/mailFolders/inbox/messages/delta?$select=id", 4).await;
    let mut distinct = ids(&items);
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), count);
    assert!(items.len() > count, "no duplicate came");
    assert!(bench.sim.counters().faults["empty_page"] > 0);
}

#[tokio::test]
async fn the_same_fault_seed_gives_the_same_faults() {
    let faults = FaultOptions { seed: 9, rate_503: 0.3, rate_504: 0.1, ..FaultOptions::default() };
    let mut runs = Vec::new();
    for _ in 0..2 {
        let bench = start(with(faults.clone())).await;
        let mut seen = Vec::new();
        for _ in 0..30 {
            seen.push(bench.get("/mailFolders/inbox").await.status().as_u16());
        }
        runs.push(seen);
    }
    assert_eq!(runs[0], runs[1]);
    assert!(runs[0].contains(&503) && runs[0].contains(&200));
}

#[tokio::test]
async fn removals_may_come_in_an_initial_round() {
    let faults = FaultOptions { rate_phantom_removed: 1.0, ..FaultOptions::default() };
    let bench = start(with(faults)).await;
    let (items, _) = bench.all("/mailFolders/inbox/messages/delta?$select=id", 50).await;
    let removed = items.iter().filter(|item| item["@removed"]["reason"] == "deleted").count();
    assert_eq!(removed, 1);
}

#[tokio::test]
async fn all_that_outlook_keeps_of_a_person_shares_the_mailboxs_limits() {
    let mut options = options();
    let roles = ["Contacts.Read", "Tasks.Read.All", "Calendars.Read"];
    options.apps[0].roles.extend(roles.map(ToOwned::to_owned));
    options.limits.requests_per_window = 8;
    let mut bench = start(options).await;
    for path in ["/mailFolders", "/contacts", "/todo/lists", "/calendars"].repeat(2) {
        assert_eq!(bench.get(path).await.status(), 200, "{path}");
    }
    assert_eq!(bench.get("/events").await.status(), 429);
    let url = format!("{}/v1.0/users", bench.sim.base_url());
    assert_eq!(bench.get(&url).await.status(), 200, "the directory is no mailbox");
    bench.user = bench.sim.users()[1].id.clone();
    assert_eq!(bench.get("/events").await.status(), 200, "another mailbox has its own");
}
