use super::*;

const OTHERS: [&str; 4] = ["contacts", "todo", "calendar", "onedrive"];
/// Workloads whose truth has a record per item that was asked for; a drive's has folders too.
const COUNTED: [&str; 3] = ["contacts", "todo", "calendar"];

fn a_little_of_everything() -> SimOptions {
    let mut options = options();
    let population = &mut options.population;
    (population.contacts_per_user, population.tasks_per_user) = (20, 20);
    population.calendar_events_per_user = 20;
    options
}

async fn truth(bench: &Bench, workload: &str) -> Vec<Value> {
    bench.sim.truth_of(workload, &bench.user).await.unwrap()
}

#[tokio::test]
async fn a_tenant_has_only_mail_unless_it_is_told_otherwise() {
    let bench = start(options()).await;
    for workload in OTHERS {
        assert_eq!(truth(&bench, workload).await, Vec::<Value>::new(), "{workload}");
    }
    assert!(!truth(&bench, "mail").await.is_empty());
    assert!(bench.sim.truth_of("notes", &bench.user).await.is_err());
}

#[tokio::test]
async fn the_same_seed_gives_the_same_things_and_another_does_not() {
    let (one, two) = (start(a_little_of_everything()).await, start(a_little_of_everything()).await);
    let other = start(SimOptions { seed: 2, ..a_little_of_everything() }).await;
    for workload in COUNTED {
        let things = truth(&one, workload).await;
        assert_eq!(things.len(), 20);
        assert_eq!(things, truth(&two, workload).await, "{workload}");
        assert_ne!(things, truth(&other, workload).await, "{workload}");
    }
}

#[tokio::test]
async fn control_calls_are_about_one_workload_or_about_all() {
    let bench = start(a_little_of_everything()).await;
    let url = |name: &str| format!("{}/_control/{name}", bench.sim.base_url());
    let shown: Value = bench
        .http
        .get(url(&format!("truth?user={}&workload=todo&top=3", bench.user)))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(shown.as_array().unwrap().len(), 3);
    let unknown = bench.http.post(url("evolve")).json(&json!({"workload": "notes"})).send().await.unwrap();
    assert_eq!(unknown.status(), 404);
    let wiped = bench.control("wipe", json!({"user": bench.user, "workload": "todo"})).await;
    assert_eq!(wiped, json!({"tasks": 20}));
    assert_eq!(truth(&bench, "contacts").await.len(), 20);
    let messages = truth(&bench, "mail").await.len();
    let wiped = bench.control("wipe", json!({"user": bench.user})).await;
    assert_eq!(
        wiped,
        json!({"messages": messages, "rules_and_categories": 0, "contacts": 20, "tasks": 0, "calendar_events": 20,
            "drive_items": 0})
    );
    for workload in OTHERS {
        assert_eq!(truth(&bench, workload).await, Vec::<Value>::new(), "{workload}");
    }
}
