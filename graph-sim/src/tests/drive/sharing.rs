use super::*;

async fn permissions(bench: &DriveBench, item: &Value) -> Vec<Value> {
    bench.json(&format!("{}/permissions", bench.item(item))).await["value"].as_array().unwrap().clone()
}

fn unshared() -> SimOptions {
    let mut options = people_with_drives();
    options.population.drive_shared_percent = 0;
    options
}

async fn a_folder_with_a_file(bench: &DriveBench) -> (Value, Value) {
    let (_, folder) =
        bench.send(Method::POST, &bench.at("/root/children"), &json!({"name": "S", "folder": {}})).await;
    let (_, file) = bench.put(&bench.at("/root:/S/f.txt:/content"), "f").await;
    (folder, file)
}

#[tokio::test]
async fn an_items_own_permissions_are_told_from_those_above() {
    let bench = open(unshared()).await;
    let (folder, file) = a_folder_with_a_file(&bench).await;
    let colleague = bench.sim.users()[1].clone();
    let body = json!({"recipients": [{"objectId": colleague.id}], "roles": ["write"], "requireSignIn": true,
        "sendInvitation": false});
    let (status, given) = bench.send(Method::POST, &format!("{}/invite", bench.item(&folder)), &body).await;
    assert_eq!(status, 200, "{given}");
    assert_eq!(given["value"][0]["grantedToV2"]["user"]["id"], colleague.id.as_str());
    let of_folder = permissions(&bench, &folder).await;
    let of_file = permissions(&bench, &file).await;
    assert_eq!((of_folder.len(), of_file.len()), (2, 2));
    assert!(of_folder[0]["inheritedFrom"].is_null() && of_folder[1]["roles"][0] == "owner");
    assert_eq!((&of_file[0]["id"], &of_file[0]["inheritedFrom"]["id"]), (&of_folder[0]["id"], &folder["id"]));
    let expanded = bench.json(&format!("{}?$expand=permissions", bench.item(&file))).await;
    assert_eq!(expanded["permissions"], json!(of_file));
    let inherited = format!("{}/permissions/{}", bench.item(&file), of_file[0]["id"].as_str().unwrap());
    assert_eq!(bench.gone(&inherited).await, 400);
    let own = format!("{}/permissions/{}", bench.item(&folder), of_folder[0]["id"].as_str().unwrap());
    let (status, changed) = bench.send(Method::PATCH, &own, &json!({"roles": ["read"]})).await;
    assert_eq!((status, changed["roles"][0].as_str()), (200, Some("read")));
    bench.send(Method::POST, &format!("{}/invite", bench.item(&folder)), &body).await;
    assert_eq!(permissions(&bench, &folder).await.len(), 2, "nobody has two");
    let again = permissions(&bench, &folder).await[0].clone();
    let own = format!("{}/permissions/{}", bench.item(&folder), again["id"].as_str().unwrap());
    assert_eq!(bench.json(&own).await["roles"][0], "write");
    assert_eq!((bench.gone(&own).await, bench.gone(&own).await), (204, 404));
    assert_eq!(permissions(&bench, &file).await.len(), 1);
    assert_eq!(bench.sim.counters().would_have_sent_mail, 0);
}

#[tokio::test]
async fn whoever_would_get_a_mail_is_counted() {
    let bench = open(unshared()).await;
    let (folder, _) = a_folder_with_a_file(&bench).await;
    let users = bench.sim.users();
    let body = json!({"recipients": [{"email": users[1].user_principal_name}, {"email": "x@fabrikam.example"}],
        "roles": ["read"], "sendInvitation": true});
    bench.send(Method::POST, &format!("{}/invite", bench.item(&folder)), &body).await;
    assert_eq!(bench.sim.counters().would_have_sent["drive_invite"], 2);
    let link = json!({"type": "view", "scope": "users", "sendNotification": false});
    let create = format!("{}/createLink", bench.item(&folder));
    let (status, made) = bench.send(Method::POST, &create, &link).await;
    assert_eq!((status, made["link"]["scope"].as_str()), (201, Some("users")));
    assert_eq!(bench.send(Method::POST, &create, &link).await, (200, made.clone()));
    assert_eq!(bench.sim.counters().would_have_sent_mail, 2);
    let named = json!({"type": "view", "scope": "users", "recipients": [{"objectId": users[2].id}], "sendNotification": false});
    assert_eq!(bench.send(Method::POST, &create, &named).await.0, 201);
    assert_eq!(bench.sim.counters().would_have_sent["drive_link"], 1, "v1.0 mails whoever is named");
    let grant = format!("{}/permissions/{}/grant", bench.item(&folder), made["id"].as_str().unwrap());
    let (status, granted) = bench
        .send(Method::POST, &grant, &json!({"recipients": [{"objectId": users[1].id}], "roles": ["read"]}))
        .await;
    assert_eq!((status, granted["value"][0]["grantedToIdentitiesV2"].as_array().unwrap().len()), (200, 1));
    assert_eq!(bench.sim.counters().would_have_sent["drive_link"], 2);
}

#[tokio::test]
async fn who_cannot_be_invited_is_refused() {
    let bench = open(unshared()).await;
    let (folder, _) = a_folder_with_a_file(&bench).await;
    let invite = format!("{}/invite", bench.item(&folder));
    let body =
        |recipient: Value| json!({"recipients": [recipient], "roles": ["read"], "sendInvitation": false});
    let (status, refused) = bench.send(Method::POST, &invite, &body(json!({"objectId": "nobody"}))).await;
    assert_eq!((status, refused["error"]["innerError"]["code"].as_str()), (400, Some("noResolvedUsers")));
    bench.control("options", json!({"external-sharing": false})).await;
    let (status, refused) =
        bench.send(Method::POST, &invite, &body(json!({"email": "x@fabrikam.example"}))).await;
    assert_eq!((status, refused["error"]["innerError"]["code"].as_str()), (403, Some("sharingDisabled")));
    let mut wrong = body(json!({"objectId": bench.sim.users()[1].id}));
    wrong["roles"] = json!(["king"]);
    assert_eq!(bench.send(Method::POST, &invite, &wrong).await.0, 400);
}

#[tokio::test]
async fn delta_says_sharing_where_it_begins_and_its_changes_when_asked() {
    let bench = open(unshared()).await;
    let (folder, file) = a_folder_with_a_file(&bench).await;
    let (items, link) = bench.crawl().await;
    assert!(items.iter().all(|item| item["shared"].is_null()));
    let colleague = bench.sim.users()[1].id.clone();
    let body = json!({"recipients": [{"objectId": colleague}], "roles": ["read"], "sendInvitation": false});
    let (_, given) = bench.send(Method::POST, &format!("{}/invite", bench.item(&folder)), &body).await;
    assert_eq!(bench.all(&link, 50).await.0.len(), 0, "nobody asked for sharing changes");
    let get = |link: String, prefer: &'static str| {
        bench.http.get(link).bearer_auth(&bench.token).header("prefer", prefer).send()
    };
    let all = "deltashowremovedasdeleted, deltatraversepermissiongaps, deltashowsharingchanges";
    let page: Value = get(link.clone(), all).await.unwrap().json().await.unwrap();
    let line = &page["value"][0];
    assert_eq!((&line["id"], line["@microsoft.graph.sharedChanged"].as_str()), (&folder["id"], Some("True")));
    let shared = async |prefer: &'static str| -> Vec<String> {
        let first = format!("{}?$top=999", bench.at("/root/delta"));
        let page: Value = get(first, prefer).await.unwrap().json().await.unwrap();
        let shared = page["value"].as_array().unwrap().iter().filter(|item| item["shared"].is_object());
        shared.map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    };
    let (folder_id, file_id) = (folder["id"].as_str().unwrap(), file["id"].as_str().unwrap());
    assert_eq!(shared("hierarchicalsharing").await, [folder_id]);
    assert_eq!(shared("odata.x=1").await, [folder_id, file_id]);
    let own = format!("{}/permissions/{}", bench.item(&folder), given["value"][0]["id"].as_str().unwrap());
    bench.gone(&own).await;
    let alone = bench.json(&bench.item(&folder)).await;
    assert_eq!(alone["shared"], json!({}), "unique, and shared with nobody");
}

#[tokio::test]
async fn sharing_changes_need_full_control() {
    let mut options = unshared();
    options.apps[0].roles.retain(|role| role != "Sites.FullControl.All");
    let bench = open(options).await;
    let all = "deltashowremovedasdeleted, deltatraversepermissiongaps, deltashowsharingchanges";
    let ask = bench.http.get(bench.at("/root/delta")).bearer_auth(&bench.token).header("prefer", all);
    assert_eq!(ask.send().await.unwrap().status(), 403);
    bench.crawl().await;
}
