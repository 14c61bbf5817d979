use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::{FaultOptions, differences_of};

fn people_with_tasks() -> SimOptions {
    let mut options = options();
    options.apps[0].roles.push("Tasks.ReadWrite.All".into());
    options.population.tasks_per_user = 60;
    options
}

async fn truth(bench: &Bench) -> Vec<Value> {
    bench.sim.truth_of("todo", &bench.user).await.unwrap()
}

/// Paths of the lists that hold tasks of their own, the default one first.
async fn lists(bench: &Bench) -> Vec<String> {
    let (all, _) = bench.all("/todo/lists", 2).await;
    let mut own: Vec<&Value> =
        all.iter().filter(|list| list["wellknownListName"] != "flaggedEmails").collect();
    own.sort_by_key(|list| list["wellknownListName"] != "defaultList");
    own.iter().map(|list| format!("/todo/lists/{}", list["id"].as_str().unwrap())).collect()
}

async fn flagged(bench: &Bench) -> String {
    let (all, _) = bench.all("/todo/lists", 50).await;
    let list = all.iter().find(|list| list["wellknownListName"] == "flaggedEmails").unwrap();
    format!("/todo/lists/{}/tasks", list["id"].as_str().unwrap())
}

async fn every_task(bench: &Bench) -> (Vec<Value>, Vec<String>) {
    let (mut items, mut links) = (Vec::new(), Vec::new());
    for list in lists(bench).await {
        let (found, link) = bench.all(&format!("{list}/tasks/delta"), 7).await;
        items.extend(found);
        links.push(link.unwrap());
    }
    (items, links)
}

#[tokio::test]
async fn lists_have_well_known_ones_and_delta() {
    let bench = start(people_with_tasks()).await;
    let (all, link) = bench.all("/todo/lists/delta", 2).await;
    let known: Vec<&str> = all.iter().map(|list| list["wellknownListName"].as_str().unwrap()).collect();
    assert_eq!(known.iter().filter(|name| **name == "defaultList").count(), 1);
    assert_eq!(known.iter().filter(|name| **name == "flaggedEmails").count(), 1);
    assert!(known.iter().filter(|name| **name == "none").count() >= 2);
    let (status, made) = bench.send(Method::POST, "/todo/lists", &json!({"displayName": "Tasks"})).await;
    assert_eq!((status, made["wellknownListName"].as_str()), (201, Some("none")));
    let path = format!("/todo/lists/{}", made["id"].as_str().unwrap());
    let (status, renamed) = bench.send(Method::PATCH, &path, &json!({"displayName": "Other"})).await;
    assert_eq!((status, renamed["displayName"].as_str()), (200, Some("Other")));
    let (changes, link) = bench.all(&link.unwrap(), 50).await;
    assert_eq!(ids(&changes), [made["id"].as_str().unwrap()]);
    assert_eq!(bench.request(Method::DELETE, &path).send().await.unwrap().status(), 204);
    let (changes, _) = bench.all(&link.unwrap(), 50).await;
    assert_eq!(changes[0]["@removed"]["reason"], "deleted");
    assert_eq!(bench.all("/todo/lists?$filter=displayName%20eq%20'Tasks'", 9).await.0.len(), 1);
    let default = &lists(&bench).await[0];
    assert_eq!(bench.request(Method::DELETE, default).send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn delta_json_is_the_truth_without_what_hangs_on_tasks() {
    let bench = start(people_with_tasks()).await;
    let (items, _) = every_task(&bench).await;
    let truth = truth(&bench).await;
    assert_eq!((items.len(), truth.len()), (60, 60));
    let mut hanging = 0;
    for one in &truth {
        let item = items.iter().find(|item| item["id"] == one["id"]).unwrap();
        for name in
            ["title", "body", "status", "dueDateTime", "completedDateTime", "recurrence", "isReminderOn"]
        {
            assert_eq!(item[name], one[name], "{name}");
        }
        let files = one["attachments"].as_array().unwrap().len();
        assert_eq!(item["hasAttachments"], files > 0);
        assert!(item["checklistItems"].is_null() && item["linkedResources"].is_null());
        hanging += one["checklistItems"].as_array().unwrap().len() + files;
    }
    assert!(hanging > 10);
}

#[tokio::test]
async fn delta_reports_new_edited_moved_deleted_and_ticked() {
    let bench = start(people_with_tasks()).await;
    let (before, links) = every_task(&bench).await;
    let wanted = json!({"seed": 3, "workload": "todo", "new": 4, "edited": 5, "moved": 3, "deleted": 2, "flags": 6,
        "users": [bench.user]});
    let done = bench.control("evolve", wanted).await;
    assert_eq!((done["moved"].as_u64(), done["flags"].as_u64()), (Some(3), Some(6)));
    let (mut present, mut removed) = (Vec::new(), 0);
    for link in links {
        for item in bench.all(&link, 2).await.0 {
            if item["@removed"].is_object() { removed += 1 } else { present.push(item) }
        }
    }
    let old = ids(&before);
    assert_eq!((present.len(), removed), (4 + 5 + 3 + 6, 3 + 2));
    let new = ids(&present).iter().filter(|id| !old.contains(id)).count();
    assert_eq!(new, 4 + 3, "a task moved to another list is a new task");
}

#[tokio::test]
async fn what_hangs_on_a_task_changes_its_etag_and_is_in_its_delta() {
    let bench = start(people_with_tasks()).await;
    let list = &lists(&bench).await[0];
    let body = json!({"title": "Restored", "importance": "high", "status": "completed",
        "dueDateTime": {"dateTime": "2026-12-01T00:00:00", "timeZone": "UTC"},
        "linkedResources": [{"applicationName": "A", "displayName": "D", "externalId": "k1", "webUrl": "https://x.example"}],
        "extensions": [{"@odata.type": "#microsoft.graph.openTypeExtension", "extensionName": "com.x.key", "key": "k1"}]});
    let (status, made) = bench.send(Method::POST, &format!("{list}/tasks"), &body).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["dueDateTime"]["dateTime"], "2026-12-01T00:00:00.0000000");
    assert!(made["completedDateTime"]["dateTime"].is_string());
    let (_, mut link) = bench.all(&format!("{list}/tasks/delta"), 50).await;
    let task = format!("{list}/tasks/{}", made["id"].as_str().unwrap());
    let mut etag = made["@odata.etag"].clone();
    let file = json!({"@odata.type": "#microsoft.graph.taskFileAttachment", "name": "a.txt",
        "contentType": "text/plain", "contentBytes": STANDARD.encode("attached")});
    let line = json!({"displayName": "Step", "isChecked": true});
    let another = json!({"webUrl": "https://y.example", "applicationName": "B", "displayName": "E"});
    let mut made_at = Vec::new();
    for (collection, body) in [("checklistItems", line), ("linkedResources", another), ("attachments", file)]
    {
        let (status, child) = bench.send(Method::POST, &format!("{task}/{collection}"), &body).await;
        assert_eq!(status, 201, "{collection}: {child}");
        let changed = bench.json(&task).await;
        assert_ne!(changed["@odata.etag"], etag, "{collection}");
        etag = changed["@odata.etag"].clone();
        let (changes, next) = bench.all(link.as_deref().unwrap(), 50).await;
        assert_eq!(ids(&changes), [made["id"].as_str().unwrap()], "{collection}");
        link = next;
        made_at.push(format!("{task}/{collection}/{}", child["id"].as_str().unwrap()));
    }
    let line = bench.json(&made_at[0]).await;
    assert!(line["checkedDateTime"].is_string() && line["createdDateTime"].is_string());
    let (_, unticked) = bench.send(Method::PATCH, &made_at[0], &json!({"isChecked": false})).await;
    assert!(unticked["checkedDateTime"].is_null());
    assert_eq!(bench.json(&format!("{task}/linkedResources")).await["value"].as_array().unwrap().len(), 2);
    assert_eq!(bench.get(&format!("{}/$value", made_at[2])).await.text().await.unwrap(), "attached");
    assert_eq!(bench.json(&made_at[2]).await["contentBytes"], STANDARD.encode("attached"));
    assert!(bench.json(&format!("{task}/attachments")).await["value"][0]["contentBytes"].is_null());
    assert_eq!(bench.json(&format!("{task}/extensions")).await["value"][0]["key"], "k1");
    let whole = bench.json(&format!("{task}?$expand=checklistItems,linkedResources,extensions")).await;
    assert_eq!(whole["checklistItems"][0]["displayName"], "Step");
    let select = "$select=id,name,contentType,size,lastModifiedDateTime";
    let file = bench.json(&format!("{}?{select}", made_at[2])).await;
    assert_eq!((file["size"].as_u64(), &file["contentBytes"]), (Some(8), &Value::Null));
    assert_eq!(bench.get(&format!("{task}/attachments?$select=isInline")).await.status(), 400);
    assert_eq!(
        bench.get(&format!("{task}/checklistItems?$filter=isChecked%20eq%20true")).await.status(),
        400
    );
    for at in &made_at {
        assert_eq!(bench.request(Method::DELETE, at).send().await.unwrap().status(), 204, "{at}");
        assert_eq!(bench.get(at).await.status(), 404, "{at}");
    }
    assert_ne!(bench.json(&task).await["@odata.etag"], etag);
}

#[tokio::test]
async fn a_large_file_comes_by_a_session_with_the_token() {
    let bench = start(people_with_tasks()).await;
    let list = &lists(&bench).await[0];
    let (_, made) = bench.send(Method::POST, &format!("{list}/tasks"), &json!({"title": "t"})).await;
    let task = format!("{list}/tasks/{}", made["id"].as_str().unwrap());
    let data: Vec<u8> = (0..5_000_000_u32).map(|n| n as u8).collect();
    let info = json!({"attachmentInfo": {"attachmentType": "file", "name": "big.bin", "size": data.len()}});
    let (status, session) =
        bench.send(Method::POST, &format!("{task}/attachments/createUploadSession"), &info).await;
    assert_eq!(status, 201, "{session}");
    let url = session["uploadUrl"].as_str().unwrap().to_owned();
    let put = |from: usize, to: usize| {
        let range = format!("bytes {from}-{}/{}", to - 1, data.len());
        let put = bench.http.put(format!("{url}/content")).header("content-range", range);
        put.header("content-type", "application/octet-stream").body(data[from..to].to_vec())
    };
    assert_eq!(put(0, 2_097_152).send().await.unwrap().status(), 401);
    assert_eq!(put(2_097_152, 4_000_000).bearer_auth(&bench.token).send().await.unwrap().status(), 416);
    let first = put(0, 2_097_152).bearer_auth(&bench.token).send().await.unwrap();
    assert_eq!(first.status(), 200);
    assert_eq!(first.json::<Value>().await.unwrap()["nextExpectedRanges"], json!(["2097152"]));
    assert_eq!(bench.json(&url).await["nextExpectedRanges"], json!(["2097152"]));
    let last = put(2_097_152, data.len()).bearer_auth(&bench.token).send().await.unwrap();
    assert_eq!(last.status(), 201);
    let at = last.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(bench.get(&format!("{at}/$value")).await.bytes().await.unwrap().as_ref(), data);
    assert_eq!(bench.json(&task).await["hasAttachments"], true);
    let info =
        json!({"attachmentInfo": {"attachmentType": "file", "name": "huge", "size": 26 * 1024 * 1024}});
    assert_eq!(
        bench.send(Method::POST, &format!("{task}/attachments/createUploadSession"), &info).await.0,
        413
    );
}

#[tokio::test]
async fn flagged_mail_is_a_list_that_nobody_writes_to() {
    let mut options = people_with_tasks();
    options.population.messages_per_user = 120;
    let bench = start(options).await;
    let at = flagged(&bench).await;
    let mail = bench.sim.truth(&bench.user).await.unwrap();
    let count = mail.iter().filter(|message| message.flag != "notFlagged").count();
    let (tasks, link) = bench.all(&format!("{at}/delta"), 3).await;
    assert_eq!(tasks.len(), count);
    assert_eq!(bench.all(&at, 3).await.0.len(), count);
    assert!(count > 3);
    let one = format!("{at}/{}", tasks[0]["id"].as_str().unwrap());
    assert_eq!(bench.json(&one).await["title"], tasks[0]["title"]);
    assert_eq!(bench.send(Method::POST, &at, &json!({"title": "x"})).await.0, 400);
    assert_eq!(bench.send(Method::PATCH, &one, &json!({"title": "x"})).await.0, 400);
    let unflagged = mail.iter().find(|message| message.flag == "notFlagged").unwrap();
    let flag = json!({"flag": {"flagStatus": "flagged"}});
    assert_eq!(bench.send(Method::PATCH, &format!("/messages/{}", unflagged.id), &flag).await.0, 200);
    let (changes, _) = bench.all(&link.unwrap(), 3).await;
    assert_eq!((changes.len(), changes[0]["title"].as_str()), (1, Some(unflagged.subject.as_str())));
    assert_eq!(truth(&bench).await.len(), 60, "flagged mail is no task of its own");
}

#[tokio::test]
async fn what_graph_shows_is_enough_to_make_the_tasks_again() {
    let bench = start(people_with_tasks()).await;
    let before = truth(&bench).await;
    let mut originals = Vec::new();
    for list in lists(&bench).await {
        let shown = bench.json(&list).await;
        for task in bench.all(&format!("{list}/tasks"), 50).await.0 {
            let at = format!("{list}/tasks/{}", task["id"].as_str().unwrap());
            let mut children = Vec::new();
            for collection in ["checklistItems", "attachments"] {
                for child in bench.all(&format!("{at}/{collection}"), 50).await.0 {
                    let child =
                        bench.json(&format!("{at}/{collection}/{}", child["id"].as_str().unwrap())).await;
                    children.push((collection, child));
                }
            }
            let mut body = task;
            body["linkedResources"] = bench.json(&format!("{at}/linkedResources")).await["value"].clone();
            originals.push((shown.clone(), body, children));
        }
    }
    assert_eq!(bench.control("wipe", json!({"user": bench.user, "workload": "todo"})).await["tasks"], 60);
    assert_eq!(truth(&bench).await, Vec::<Value>::new());
    let default = lists(&bench).await[0].clone();
    let mut made = std::collections::BTreeMap::new();
    for (list, body, children) in originals {
        let name = list["displayName"].as_str().unwrap().to_owned();
        let at = if list["wellknownListName"] == "defaultList" {
            default.clone()
        } else {
            if !made.contains_key(&name) {
                let (_, list) = bench.send(Method::POST, "/todo/lists", &json!({"displayName": name})).await;
                made.insert(name.clone(), format!("/todo/lists/{}", list["id"].as_str().unwrap()));
            }
            made[&name].clone()
        };
        let (status, task) = bench.send(Method::POST, &format!("{at}/tasks"), &body).await;
        assert_eq!(status, 201, "{task}");
        for (collection, child) in children {
            let below = format!("{at}/tasks/{}/{collection}", task["id"].as_str().unwrap());
            let (status, answer) = bench.send(Method::POST, &below, &child).await;
            assert_eq!(status, 201, "{answer}");
        }
    }
    assert_eq!(differences_of(&before, &truth(&bench).await), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_wrong_is_refused_and_faults_strike() {
    let bench = start(people_with_tasks()).await;
    let list = &lists(&bench).await[0];
    for wrong in [
        json!({}),
        json!({"title": 1}),
        json!({"title": "t", "status": "lost"}),
        json!({"title": "t", "x": 1}),
        json!({"title": "t", "dueDateTime": {"dateTime": "2026-12-01T00:00:00"}}),
    ] {
        assert_eq!(bench.send(Method::POST, &format!("{list}/tasks"), &wrong).await.0, 400, "{wrong}");
    }
    assert_eq!(bench.get(&format!("{list}/tasks/delta?$expand=checklistItems")).await.status(), 400);
    assert_eq!(bench.get("/todo/lists/nonsense").await.status(), 400);
    let faults = FaultOptions {
        rate_empty_page: 0.3,
        rate_duplicate_in_page: 0.5,
        rate_phantom_removed: 0.5,
        ..FaultOptions::default()
    };
    let bench = start(SimOptions { faults, ..people_with_tasks() }).await;
    let (items, links) = every_task(&bench).await;
    let present: Vec<Value> = items.iter().filter(|item| item["@removed"].is_null()).cloned().collect();
    let mut distinct = ids(&present);
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 60);
    assert!(present.len() > 60 && items.len() > present.len());
    bench.control("expire-delta", json!({"user": bench.user})).await;
    assert_eq!(bench.get(&links[0]).await.status(), 410);
}
