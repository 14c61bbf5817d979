use super::*;
use crate::FaultOptions;

#[tokio::test]
async fn a_crawl_is_the_truth_and_says_what_delta_says_and_no_more() {
    let bench = open(people_with_drives()).await;
    let (items, _) = bench.crawl().await;
    let mut known = std::collections::BTreeMap::new();
    merge(&mut known, items.clone());
    let (found, truth) = (paths(&known), bench.truth().await);
    assert_eq!(found.len(), truth.len());
    assert!(truth.len() > 150);
    for one in &truth {
        let item = &found[one["identity"].as_str().unwrap()];
        assert_eq!(item["id"], one["id"]);
        assert_eq!(item["file"].is_object(), one["kind"] == "file");
        assert!(one["size"].is_null() || item["size"] == one["size"]);
        assert_eq!(item["fileSystemInfo"]["lastModifiedDateTime"], one["lastModifiedDateTime"]);
        assert_eq!(item["@odata.type"], "#microsoft.graph.driveItem");
        assert!(item["cTag"].is_null() && item["parentReference"]["path"].is_null(), "{item}");
    }
    let roots = items.iter().filter(|item| item["root"].is_object()).count();
    assert!(roots >= 4, "the root heads every page, and there are {roots}");
    let position = |id: &str| items.iter().position(|item| item["id"] == id).unwrap();
    let late = items.iter().filter(|item| {
        let parent = item["parentReference"]["id"].as_str();
        parent.is_some_and(|parent| position(parent) > position(item["id"].as_str().unwrap()))
    });
    assert!(late.count() > 0, "no folder came after what is in it");
    let deepest = truth.iter().map(|one| one["identity"].as_str().unwrap().matches('/').count()).max();
    assert!(deepest.unwrap() > 10 && truth.iter().any(|one| one["size"] == 0));
    assert!(truth.iter().any(|one| one["identity"].as_str().unwrap().contains('#')));
    assert!(truth.iter().all(|one| one["identity"].as_str().unwrap().chars().count() <= 400));
}

#[tokio::test]
async fn later_rounds_lead_to_the_same_drive_as_a_new_crawl() {
    let bench = open(people_with_drives()).await;
    let (mut known, mut link) = bench.known().await;
    for seed in 0..4 {
        let wanted = json!({"seed": seed, "workload": "onedrive", "new": 7, "edited": 6, "moved": 8, "deleted": 11,
            "flags": 6, "restored": 3, "users": [bench.user]});
        let done = bench.control("evolve", wanted).await;
        assert_eq!(
            (done["deleted"].as_u64(), done["moved"].as_u64(), done["new"].as_u64()),
            (Some(11), Some(8), Some(7))
        );
        assert_eq!(done["restored"].as_u64(), Some(if seed == 0 { 0 } else { 3 }));
        let (lines, next) = bench.all(&link, 5).await;
        link = next.unwrap();
        for line in lines.iter().filter(|line| line["deleted"].is_object()) {
            assert!(line["name"].is_null() && line["cTag"].is_null(), "{line}");
        }
        merge(&mut known, lines);
    }
    let truth = bench.truth().await;
    let found = paths(&known);
    let identities: Vec<&String> = found.keys().collect();
    let mut expected: Vec<&str> = truth.iter().map(|one| one["identity"].as_str().unwrap()).collect();
    expected.sort_unstable();
    assert_eq!(identities, expected);
    assert!(truth.iter().all(|one| found[one["identity"].as_str().unwrap()]["id"] == one["id"]));
    let (rest, _) = bench.all(&link, 50).await;
    assert_eq!(rest, Vec::<Value>::new());
}

#[tokio::test]
async fn a_renamed_folder_is_one_line_and_what_is_above_a_change_is_told() {
    let bench = open(people_with_drives()).await;
    let (items, link) = bench.crawl().await;
    let folder = items.iter().find(|item| item["name"] == "level03").unwrap();
    let (status, _) = bench.send(Method::PATCH, &bench.item(folder), &json!({"name": "other"})).await;
    assert_eq!(status, 200);
    let (lines, next) = bench.all(&link, 50).await;
    let names: Vec<&str> = lines.iter().map(|line| line["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["root", "level00", "level01", "level02", "other"]);
    let get = |link: &str| bench.request(Method::GET, link).header("deltaExcludeParent", "true").send();
    let alone: Value = get(&link).await.unwrap().json().await.unwrap();
    assert_eq!(alone["value"].as_array().unwrap().len(), 1);
    assert_eq!(bench.gone(&bench.item(folder)).await, 204);
    let (lines, _) = bench.all(&next.unwrap(), 50).await;
    assert!(lines.len() > 20, "everything below is gone too");
    assert!(lines.iter().all(|line| line["deleted"]["state"] == "deleted"));
    assert!(lines.iter().any(|line| line["id"] == folder["id"]));
}

#[tokio::test]
async fn from_now_and_from_a_time_tell_only_what_is_later() {
    let bench = open(people_with_drives()).await;
    let (none, now) = bench.all(&bench.at("/root/delta?token=latest"), 50).await;
    assert_eq!(none.len(), 0);
    bench.clock.push(5000);
    let since = crate::json::timestamp(bench.clock.now_ms());
    bench.clock.push(5000);
    let (_, made) = bench.put(&bench.at("/root:/new.txt:/content"), "new").await;
    for link in [now.unwrap(), bench.at(&format!("/root/delta?token={}", since.replace(':', "%3A")))] {
        let (lines, _) = bench.all(&link, 50).await;
        assert_eq!(ids(&lines)[1..], [made["id"].as_str().unwrap()], "the root is above it");
    }
}

#[tokio::test]
async fn options_of_the_first_call_hold_for_the_round() {
    let bench = open(people_with_drives()).await;
    let (items, link) = bench.all(&bench.at("/root/delta?$select=id,name,size,deleted&$top=60"), 60).await;
    let file = items.iter().find(|item| item["size"].as_u64().unwrap() > 0).unwrap();
    assert!(file["eTag"].is_null() && file["@microsoft.graph.downloadUrl"].is_null());
    let (status, _) = bench.put(&bench.at("/root:/x.txt:/content"), "x").await;
    assert_eq!(status, 201);
    assert!(bench.all(&link.unwrap(), 9).await.0[0]["webUrl"].is_null());
    let select = "$select=id,@microsoft.graph.downloadUrl";
    let (items, _) = bench.all(&bench.at(&format!("/root/delta?{select}")), 90).await;
    assert!(
        items.iter().any(|item| item["@microsoft.graph.downloadUrl"].is_string() && item["name"].is_null())
    );
    assert_eq!(bench.get(&bench.at("/root/delta?$filter=size%20eq%201")).await.status(), 400);
    assert_eq!(bench.get(&bench.at("/root/delta?$select=colour")).await.status(), 400);
    assert_eq!(bench.get(&bench.at("/root/delta?token=nonsense")).await.status(), 400);
}

#[tokio::test]
async fn a_dead_token_says_where_to_begin_anew() {
    let bench = open(people_with_drives()).await;
    let (items, link) = bench.all(&bench.at("/root/delta?$select=id,name"), 90).await;
    let link = link.unwrap();
    bench.control("expire-delta", json!({"user": bench.user, "workload": "onedrive"})).await;
    let (mut codes, mut with, mut without) = (std::collections::BTreeSet::new(), 0, 0);
    for _ in 0..40 {
        let response = bench.get(&link).await;
        assert_eq!(response.status(), 410);
        match response.headers().get("location").map(|location| location.to_str().unwrap().to_owned()) {
            None => without += 1,
            Some(location) => {
                with += 1;
                if with == 1 {
                    assert_eq!(bench.all(&location, 90).await.0.len(), items.len());
                }
            }
        }
        let error = response.json::<Value>().await.unwrap()["error"].clone();
        assert_eq!(error["code"], "resyncRequired");
        codes.insert(error["innerError"]["code"].as_str().unwrap().to_owned());
    }
    assert!(with > 0 && without > 0 && codes.len() == 2, "{with} {without} {codes:?}");
}

#[tokio::test]
async fn pages_are_disturbed_by_faults_and_lose_nothing() {
    let faults = FaultOptions {
        rate_empty_page: 0.3,
        rate_duplicate_in_page: 0.5,
        rate_phantom_removed: 0.5,
        ..FaultOptions::default()
    };
    let bench = open(SimOptions { faults, ..people_with_drives() }).await;
    let (items, _) = bench.all(&bench.at("/root/delta"), 5).await;
    assert!(items.iter().any(|item| item["deleted"].is_object()), "nothing the client never saw was removed");
    let mut known = std::collections::BTreeMap::new();
    merge(&mut known, items);
    assert_eq!(paths(&known).len(), bench.truth().await.len());
    for fault in ["empty_page", "duplicate_in_page", "phantom_removed"] {
        assert!(bench.sim.counters().faults[fault] > 0, "{fault}");
    }
}

#[tokio::test]
async fn people_without_a_drive_or_with_a_locked_one_are_told_apart() {
    let mut options = people_with_drives();
    options.population.users_without_drive = 1;
    options.population.users_with_locked_drive = 1;
    let mut bench = start(options).await;
    for (user, status, code) in [(2, 404, "ResourceNotFound"), (1, 403, "accessDenied")] {
        bench.user = bench.sim.users()[user].id.clone();
        let response = bench.get("/drive").await;
        assert_eq!(response.status(), status);
        assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], code);
    }
    let nobody = format!("{}/v1.0/drives/b!nobody/root", bench.sim.base_url());
    assert_eq!(bench.get(&nobody).await.status(), 404);
}
