use super::*;

fn limited(change: impl FnOnce(&mut crate::SimLimits)) -> SimOptions {
    let mut options = people_with_drives();
    change(&mut options.limits);
    options
}

async fn units(bench: &DriveBench) -> u64 {
    bench.sim.counters().resource_units
}

#[tokio::test]
async fn every_call_costs_what_sharepoint_says() {
    let bench = open(people_with_drives()).await;
    let (items, link) = bench.all(&bench.at("/root/delta"), 1000).await;
    let file = a_file(&items).clone();
    let item = bench.item(&file);
    let invite = json!({"recipients": [{"objectId": bench.sim.users()[1].id}], "roles": ["read"]});
    let mut before = units(&bench).await;
    let mut costs = async |what: &str, expected: u64| {
        let now = units(&bench).await;
        assert_eq!(now - before, expected, "{what}");
        before = now;
    };
    bench.json(&item).await;
    costs("an item", 1).await;
    bench.json(&bench.at("/root/delta?$top=1")).await;
    costs("delta without a token", 2).await;
    bench.json(&bench.at("/root/delta?token=latest")).await;
    costs("delta from now", 2).await;
    bench.json(&link.unwrap()).await;
    costs("delta with a token", 1).await;
    bench.json(&bench.at("/root/children")).await;
    costs("a list", 2).await;
    bench.json(&format!("{item}/permissions")).await;
    costs("permissions", 5).await;
    bench.json(&format!("{item}?$expand=permissions")).await;
    costs("an item with permissions", 5).await;
    bench.send(Method::POST, &format!("{item}/invite"), &invite).await;
    costs("an invitation", 5).await;
    let url = bench.location(&format!("{item}/content")).await;
    costs("where content is", 1).await;
    bench.fetch(&url).await.bytes().await.unwrap();
    costs("content", 1).await;
    bench.put(&bench.at("/root:/c.txt:/content"), "c").await;
    costs("a small file", 2).await;
    let body = json!({"item": {"fileSize": 3}});
    let (_, session) = bench.send(Method::POST, &bench.at("/root:/d.txt:/createUploadSession"), &body).await;
    costs("a session", 2).await;
    let url = session["uploadUrl"].as_str().unwrap();
    bench.fetch(url).await;
    costs("its status", 1).await;
    bench.http.put(url).header("content-range", "bytes 0-2/3").body("abc").send().await.unwrap();
    costs("a fragment", 2).await;
    bench.gone(&item).await;
    costs("a deletion", 2).await;
}

#[tokio::test]
async fn the_minute_fills_for_all_drives_of_the_tenant_and_says_so_before() {
    let mut bench = open(limited(|limits| limits.sharepoint_units_per_minute = 20)).await;
    let mut warned = None;
    for calls in 2..=20 {
        let response = bench.get(&bench.at("/root")).await;
        assert_eq!(response.status(), 200, "{calls}");
        let header =
            |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        if let Some(remaining) = header("ratelimit-remaining") {
            warned.get_or_insert(calls);
            assert_eq!(remaining, (20 - calls).to_string());
            assert_eq!(header("ratelimit-limit").as_deref(), Some("20"));
            assert!((1..=60).contains(&header("ratelimit-reset").unwrap().parse().unwrap()));
        }
    }
    assert_eq!(warned, Some(16));
    let (before, user) = (bench.sim.users()[0].id.clone(), bench.sim.users()[1].id.clone());
    bench.bench.user = user;
    let refused = bench.get("/drive").await;
    assert_eq!(refused.status(), 429, "another drive of the same tenant");
    assert!(refused.headers().contains_key("retry-after"));
    bench.bench.user = before;
    assert_eq!(bench.get("/mailFolders").await.status(), 200, "a mailbox has its own");
    bench.clock.push(400);
    assert_eq!(bench.get(&bench.at("/root")).await.status(), 429);
    bench.clock.push(62_000);
    assert_eq!(bench.get(&bench.at("/root")).await.status(), 200);
    assert_eq!(bench.sim.counters().throttled_429, 2);
}

#[tokio::test]
async fn the_day_and_the_hour_fill_too() {
    let bench = open(limited(|limits| limits.sharepoint_units_per_day = 4)).await;
    for _ in 0..3 {
        assert_eq!(bench.get(&bench.at("/root")).await.status(), 200);
    }
    assert_eq!(bench.get(&bench.at("/root")).await.status(), 429);
    let bench = open(limited(|limits| limits.sharepoint_egress_bytes_per_hour = 5000)).await;
    let (items, _) = bench.crawl().await;
    let file = a_file(&items);
    let url = file["@microsoft.graph.downloadUrl"].as_str().unwrap();
    assert_eq!(bench.fetch(url).await.status(), 200);
    let refused = bench.http.get(url).header("range", "bytes=0-2999").send().await.unwrap();
    assert_eq!(refused.status(), 509);
    assert!(refused.headers().contains_key("retry-after"));
    let bench = open(limited(|limits| limits.sharepoint_ingress_bytes_per_hour = 1000)).await;
    assert_eq!(bench.put(&bench.at("/root:/a:/content"), "x".repeat(900)).await.0, 201);
    assert_eq!(bench.put(&bench.at("/root:/b:/content"), "x".repeat(900)).await.0, 509);
}

#[tokio::test]
async fn faults_throttle_the_content_hosts_as_well() {
    let bench = open(people_with_drives()).await;
    let (items, _) = bench.crawl().await;
    let url = a_file(&items)["@microsoft.graph.downloadUrl"].as_str().unwrap();
    bench.control("options", json!({"faults": {"rate-429": 1.0}})).await;
    assert_eq!(bench.fetch(url).await.status(), 429);
    bench.control("options", json!({"faults": {"rate-429": 0.0}})).await;
    bench.clock.push(10_000);
    assert_eq!(bench.fetch(url).await.status(), 200);
}
