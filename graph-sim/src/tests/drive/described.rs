use super::*;
use crate::tests::description::description;

/// Every kind of call; what does not match Microsoft's description is counted by the simulator.
#[tokio::test]
async fn drives_match_microsofts_description() {
    let Some(path) = description() else { return };
    let mut options = SimOptions { openapi: Some(path), ..people_with_drives() };
    options.limits.enabled = false;
    let population = &mut options.population;
    (population.drive_notebooks_per_user, population.drive_shortcuts_per_user) = (1, 1);
    (population.drive_malware_per_user, population.drive_locked_per_user) = (1, 1);
    (population.drive_shared_percent, population.drive_versioned_percent) = (50, 50);
    let bench = open(options).await;
    for at in ["", "/root", "/root/children", "/root/permissions", "/items/root/delta"] {
        bench.json(&bench.at(at)).await;
    }
    bench.json("/drives").await;
    let (items, link) = bench.crawl().await;
    for item in items.iter().take(60) {
        let at = bench.item(item);
        bench
            .json(&format!(
                "{at}?$expand=permissions&$select=id,name,@microsoft.graph.downloadUrl,permissions"
            ))
            .await;
        bench.json(&format!("{at}/permissions")).await;
        bench.get(&format!("{at}/versions")).await;
        bench.get(&format!("{at}/content")).await;
    }
    let (status, folder) =
        bench.send(Method::POST, &bench.at("/root/children"), &json!({"name": "N", "folder": {}})).await;
    assert_eq!(status, 201);
    let (_, file) =
        bench.put(&bench.at("/root:/N/a.txt:/content?@microsoft.graph.conflictBehavior=fail"), "a").await;
    bench.put(&format!("{}/content", bench.item(&file)), "b").await;
    let id = file["id"].as_str().unwrap();
    bench.get(&bench.at(&format!("/items/{id}/versions/1.0"))).await;
    bench.get(&bench.at(&format!("/items/{id}/versions/1.0/content"))).await;
    let times = json!({"lastModifiedDateTime": "2020-01-01T00:00:00Z"});
    bench.send(Method::PATCH, &bench.item(&file), &json!({"name": "c.txt", "fileSystemInfo": times})).await;
    let invite = json!({"recipients": [{"objectId": bench.sim.users()[1].id}], "roles": ["read"], "requireSignIn": true,
        "sendInvitation": false});
    let (_, given) = bench.send(Method::POST, &format!("{}/invite", bench.item(&folder)), &invite).await;
    let link_body = json!({"type": "view", "scope": "users", "sendNotification": false});
    let (_, made) =
        bench.send(Method::POST, &format!("{}/createLink", bench.item(&folder)), &link_body).await;
    let permission =
        |one: &Value| format!("{}/permissions/{}", bench.item(&folder), one["id"].as_str().unwrap());
    bench.json(&permission(&made)).await;
    bench.send(Method::PATCH, &permission(&given["value"][0]), &json!({"roles": ["write"]})).await;
    let grant = json!({"recipients": [{"objectId": bench.sim.users()[2].id}], "roles": ["read"]});
    bench.send(Method::POST, &format!("{}/grant", permission(&made)), &grant).await;
    bench.gone(&permission(&made)).await;
    let item = json!({"item": {"@microsoft.graph.conflictBehavior": "rename", "name": "s.bin", "fileSize": 3,
        "fileSystemInfo": times}});
    let (status, session) =
        bench.send(Method::POST, &bench.at("/root:/N/s.bin:/createUploadSession"), &item).await;
    assert_eq!(status, 200);
    let version = json!({"item": {"fileSize": 3}});
    bench.send(Method::POST, &format!("{}/createUploadSession", bench.item(&file)), &version).await;
    let commit = json!({"name": "t.bin", "@microsoft.graph.sourceUrl": session["uploadUrl"]});
    assert_eq!(bench.send(Method::PUT, &bench.at("/root:/N"), &commit).await.0, 400);
    bench.all(&link, 7).await;
    bench.json(&bench.at("/root:/N")).await;
    bench.json(&bench.at("/root:/N:/children")).await;
    bench.gone(&bench.item(&file)).await;
    bench.get(&bench.item(&file)).await;
    bench.control("expire-delta", json!({"user": bench.user})).await;
    assert_eq!(bench.get(&link).await.status(), 410);
    assert_eq!(bench.sim.counters().openapi_violations, Vec::<String>::new());
}

#[tokio::test]
async fn what_microsoft_does_not_describe_is_still_found() {
    let Some(path) = description() else { return };
    let bench = open(SimOptions { openapi: Some(path), ..people_with_drives() }).await;
    bench.get(&bench.at("/root/delta?$invented=1")).await;
    bench.get(&bench.at("/root:/x:/nonsense/y")).await;
    bench.send(Method::POST, &bench.at("/root/children"), &json!({"name": 1, "folder": {}})).await;
    let violations = bench.sim.counters().openapi_violations;
    assert_eq!(violations.len(), 3, "{violations:?}");
}
