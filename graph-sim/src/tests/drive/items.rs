use super::*;

#[tokio::test]
async fn an_item_is_found_by_id_by_path_and_in_its_folder() {
    let bench = open(people_with_drives()).await;
    let (items, _) = bench.crawl().await;
    let truth = bench.truth().await;
    for item in items.iter().filter(|item| !item["root"].is_object()).take(80) {
        let alone = bench.json(&bench.item(item)).await;
        assert_eq!(alone["eTag"], item["eTag"]);
        assert!(alone["cTag"].is_string());
        let path = truth.iter().find(|one| one["id"] == item["id"]).unwrap()["identity"].as_str().unwrap();
        let encoded: Vec<String> = path[1..]
            .split('/')
            .map(|name| {
                percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
            })
            .collect();
        let by_path = bench.json(&bench.at(&format!("/root:/{}", encoded.join("/").to_uppercase()))).await;
        assert_eq!(by_path["id"], item["id"], "{path}: case does not matter");
        let (folder, name) = path.rsplit_once('/').unwrap();
        let parent = &alone["parentReference"];
        assert!(parent["path"].as_str().unwrap().ends_with(&format!("root:{folder}")), "{parent}");
        let parent = bench.at(&format!("/items/{}", parent["id"].as_str().unwrap()));
        let by_name = bench.json(&format!("{parent}:/{}", encoded.last().unwrap())).await;
        assert_eq!((&by_name["id"], by_name["name"].as_str()), (&item["id"], Some(name)));
    }
    assert_eq!(bench.get(&bench.at("/root:/no%20such%20thing")).await.status(), 404);
    assert_eq!(bench.get(&bench.at("/items/01NONSENSE")).await.status(), 404);
}

#[tokio::test]
async fn lists_of_folders_have_everything_and_their_sums_are_right() {
    let bench = open(people_with_drives()).await;
    let (mut files, mut bytes, mut at) = (0, 0, vec!["/root".to_owned()]);
    while let Some(folder) = at.pop() {
        let (children, _) = bench.all(&bench.at(&format!("{folder}/children")), 3).await;
        let alone = bench.json(&bench.at(&folder)).await;
        assert_eq!(alone["folder"]["childCount"].as_u64().unwrap() as usize, children.len());
        assert_eq!(alone["size"].as_u64(), children.iter().map(|child| child["size"].as_u64()).sum());
        for child in children {
            if child["folder"].is_object() {
                at.push(format!("/items/{}", child["id"].as_str().unwrap()));
            } else {
                files += 1;
                bytes += child["size"].as_u64().unwrap();
            }
        }
    }
    assert_eq!(files, 150);
    let drive = bench.json(&bench.at("")).await;
    assert_eq!(
        (drive["quota"]["used"].as_u64(), drive["driveType"].as_str()),
        (Some(bytes), Some("business"))
    );
    assert_eq!(bench.json("/drives").await["value"][0]["id"], drive["id"]);
}

#[tokio::test]
async fn folders_are_made_renamed_moved_and_deleted() {
    let bench = open(people_with_drives()).await;
    let root = bench.at("/root/children");
    let times =
        json!({"createdDateTime": "2020-01-02T03:04:05Z", "lastModifiedDateTime": "2021-01-02T03:04:05Z"});
    let body = json!({"name": "New", "folder": {}, "fileSystemInfo": times});
    let (status, made) = bench.send(Method::POST, &root, &body).await;
    assert_eq!(
        (status, &made["fileSystemInfo"], made["folder"]["childCount"].as_u64()),
        (201, &times, Some(0))
    );
    assert!(
        made["createdBy"]["application"].is_object() && made["lastModifiedBy"]["application"].is_object()
    );
    let mut again = json!({"name": "nEW", "folder": {}});
    for (behavior, status) in [("fail", 409), ("replace", 200), ("rename", 201)] {
        again["@microsoft.graph.conflictBehavior"] = behavior.into();
        let (found, answer) = bench.send(Method::POST, &root, &again).await;
        assert_eq!(found, status, "{behavior}: {answer}");
        match behavior {
            "fail" => assert_eq!(answer["error"]["code"], "nameAlreadyExists"),
            "replace" => assert_eq!(answer["id"], made["id"]),
            _ => assert_eq!(answer["name"], "nEW 1"),
        }
    }
    let below = format!("{}/children", bench.item(&made));
    let (_, inner) = bench.send(Method::POST, &below, &json!({"name": "Inner", "folder": {}})).await;
    let (_, other) = bench.send(Method::POST, &root, &json!({"name": "Other", "folder": {}})).await;
    let into_itself = json!({"parentReference": {"id": inner["id"]}});
    assert_eq!(bench.send(Method::PATCH, &bench.item(&made), &into_itself).await.0, 400);
    let etag = inner["eTag"].as_str().unwrap();
    let move_it = json!({"parentReference": {"id": other["id"]}, "name": "Moved", "fileSystemInfo": times});
    let patch = |etag: &str| {
        let request = bench.request(Method::PATCH, &bench.item(&inner)).header("if-match", etag);
        request.json(&move_it).send()
    };
    assert_eq!(patch("\"{X},1\"").await.unwrap().status(), 412);
    let moved: Value = patch(etag).await.unwrap().json().await.unwrap();
    assert_eq!((&moved["id"], moved["name"].as_str()), (&inner["id"], Some("Moved")));
    assert_eq!((&moved["parentReference"]["id"], &moved["fileSystemInfo"]), (&other["id"], &times));
    assert_ne!(moved["eTag"], inner["eTag"]);
    assert_eq!(patch(etag).await.unwrap().status(), 412);
    assert_eq!(bench.send(Method::PATCH, &bench.item(&other), &json!({"name": "new"})).await.0, 409);
    assert_eq!(bench.gone(&bench.item(&other)).await, 204);
    assert_eq!(bench.gone(&bench.item(&inner)).await, 404, "it went with its folder");
    assert_eq!(bench.gone(&bench.at("/root")).await, 400);
}

#[tokio::test]
async fn names_that_sharepoint_does_not_take_are_refused() {
    let bench = open(people_with_drives()).await;
    let root = bench.at("/root/children");
    for name in ["", " a", "a ", "a:b", "a?", "a/b", "a|b", "~$a", "CON", "desktop.ini", "_vti_x", "a."] {
        let (status, answer) = bench.send(Method::POST, &root, &json!({"name": name, "folder": {}})).await;
        assert_eq!((status, answer["error"]["code"].as_str()), (400, Some("invalidRequest")), "{name:?}");
    }
    let mut at = root;
    let mut last = Value::Null;
    for _ in 0..3 {
        let (_, made) = bench.send(Method::POST, &at, &json!({"name": "x".repeat(200), "folder": {}})).await;
        if made["id"].is_string() {
            at = format!("{}/children", bench.item(&made));
        }
        last = made;
    }
    assert_eq!(last["error"]["code"], "pathIsTooLong");
    assert_eq!(bench.send(Method::POST, &at, &json!({"name": "a", "file": {}})).await.0, 400);
}

#[tokio::test]
async fn what_is_locked_is_not_changed_and_what_is_odd_is_said() {
    let mut options = people_with_drives();
    let population = &mut options.population;
    (population.drive_locked_per_user, population.drive_notebooks_per_user) = (1, 2);
    (population.drive_malware_per_user, population.drive_shortcuts_per_user) = (1, 1);
    let bench = open(options).await;
    let (items, _) = bench.crawl().await;
    let named = |name: &str| items.iter().find(|item| item["name"] == name).unwrap();
    let locked = bench.item(named("locked 0.docx"));
    assert_eq!(bench.get(&locked).await.status(), 200);
    assert_eq!(bench.send(Method::PATCH, &locked, &json!({"name": "b"})).await.0, 423);
    assert_eq!(bench.gone(&locked).await, 423);
    assert_eq!(bench.get(&format!("{locked}/content")).await.status(), 423);
    let infected = named("infected 0.docx");
    assert!(infected["malware"].is_object() && infected["@microsoft.graph.downloadUrl"].is_null());
    let refused = bench.get(&format!("{}/content", bench.item(infected))).await;
    assert_eq!(refused.status(), 403);
    assert_eq!(refused.headers()["x-virus-infected"], "true");
    assert_eq!(refused.json::<Value>().await.unwrap()["error"]["code"], "malwareDetected");
    let notebook = named("Notebook 1");
    assert!(notebook["folder"].is_null() && notebook["file"].is_null());
    assert_eq!(notebook["package"]["type"], "oneNote");
    let parts: Vec<&Value> =
        items.iter().filter(|item| item["parentReference"]["id"] == notebook["id"]).collect();
    assert_eq!(parts.iter().filter(|part| part["file"]["mimeType"] == "application/msonenote").count(), 2);
    assert_eq!(bench.get(&format!("{}/content", bench.item(notebook))).await.status(), 400);
    let link = named("Shared by a colleague 0");
    assert_ne!(link["remoteItem"]["parentReference"]["driveId"], link["parentReference"]["driveId"]);
    let unreadable = bench.truth().await.iter().filter(|one| one["isReadable"] == false).count();
    assert_eq!(unreadable, 2);
}
