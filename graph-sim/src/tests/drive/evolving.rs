use super::*;
use crate::differences_of;

#[tokio::test]
async fn the_same_seed_gives_the_same_drive_and_another_does_not() {
    let (one, two) = (open(people_with_drives()).await, open(people_with_drives()).await);
    let other = open(SimOptions { seed: 2, ..people_with_drives() }).await;
    assert_eq!(one.truth().await, two.truth().await);
    assert_ne!(one.truth().await, other.truth().await);
}

/// What a client can know of an item.
struct Original {
    path: String,
    item: Value,
    /// Newest first.
    contents: Vec<bytes::Bytes>,
    permissions: Vec<Value>,
}

async fn read(bench: &DriveBench, path: String, item: Value) -> Original {
    let at = bench.item(&item);
    let mut contents = Vec::new();
    if item["file"].is_object() {
        let listed = bench.json(&format!("{at}/versions")).await;
        for version in listed["value"].as_array().unwrap() {
            let content = match contents.is_empty() {
                true => format!("{at}/content"),
                false => format!("{at}/versions/{}/content", version["id"].as_str().unwrap()),
            };
            contents.push(bench.fetch(&bench.location(&content).await).await.bytes().await.unwrap());
        }
    }
    let permissions = bench.json(&format!("{at}/permissions")).await["value"].as_array().unwrap().clone();
    Original { path, item, contents, permissions }
}

async fn make(bench: &DriveBench, original: Original) {
    let Original { path, item, contents, permissions } = original;
    let encode = |text: &str| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let (folder, name) = path.rsplit_once('/').unwrap();
    let encoded = path[1..].split('/').map(encode).collect::<Vec<_>>().join("/");
    let mut made = Value::Null;
    if item["folder"].is_object() {
        let parent = folder.split('/').skip(1).map(encode).collect::<Vec<_>>().join("/");
        let parent = if parent.is_empty() { "/root".to_owned() } else { format!("/root:/{parent}:") };
        let body = json!({"name": name, "folder": {}});
        made = bench.send(Method::POST, &bench.at(&format!("{parent}/children")), &body).await.1;
    }
    for content in contents.into_iter().rev() {
        made = bench.put(&bench.at(&format!("/root:/{encoded}:/content")), content).await.1;
    }
    for permission in permissions.iter().filter(|one| one["inheritedFrom"].is_null()) {
        give(bench, &made, permission).await;
    }
    let patch = json!({"fileSystemInfo": item["fileSystemInfo"]});
    let (status, answer) = bench.send(Method::PATCH, &bench.item(&made), &patch).await;
    assert_eq!(status, 200, "{path}: {answer}");
}

async fn give(bench: &DriveBench, item: &Value, permission: &Value) {
    let (link, user) = (&permission["link"], &permission["grantedToV2"]["user"]);
    let recipient = match user["id"].is_string() {
        true => json!({"objectId": user["id"]}),
        false => json!({"email": user["email"]}),
    };
    let (action, body) = match link.is_object() {
        true => ("createLink", json!({"type": link["type"], "scope": link["scope"]})),
        false => (
            "invite",
            json!({"recipients": [recipient], "roles": permission["roles"], "sendInvitation": false}),
        ),
    };
    let (status, answer) = bench.send(Method::POST, &format!("{}/{action}", bench.item(item)), &body).await;
    assert!(status < 300, "{answer}");
}

#[tokio::test]
async fn what_graph_shows_is_enough_to_make_the_drive_again() {
    let mut options = people_with_drives();
    options.population.drive_versioned_percent = 30;
    options.population.drive_shared_percent = 30;
    options.limits.enabled = false;
    let bench = open(options).await;
    let before = bench.truth().await;
    let (known, _) = bench.known().await;
    let mut originals = Vec::new();
    for (path, item) in paths(&known) {
        originals.push(read(&bench, path, item).await);
    }
    let wiped = bench.control("wipe", json!({"user": bench.user, "workload": "onedrive"})).await;
    assert_eq!(wiped["drive_items"].as_u64(), Some(before.len() as u64));
    assert_eq!(bench.truth().await, Vec::<Value>::new());
    // Paths are in order, and a folder's is a prefix of those in it.
    for original in originals {
        make(&bench, original).await;
    }
    assert_eq!(differences_of(&before, &bench.truth().await), Vec::<String>::new());
    assert_eq!(bench.sim.counters().would_have_sent_mail, 0);
}
