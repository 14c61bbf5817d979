use std::collections::{BTreeMap, BTreeSet};

use mail_parser::{MessageParser, MimeHeaders};

use super::*;

#[tokio::test]
async fn users_come_in_pages() {
    let bench = start(options()).await;
    let first =
        format!("{}/v1.0/users?$top=2&$select=id,userPrincipalName,accountEnabled", bench.sim.base_url());
    let page = bench.json(&first).await;
    assert_eq!(page["value"].as_array().unwrap().len(), 2);
    assert_eq!(page["value"][0]["accountEnabled"], true);
    let (all, _) = bench.all(&first, 2).await;
    let expected: Vec<_> = bench.sim.users().into_iter().map(|user| user.id).collect();
    assert_eq!(ids(&all), expected);
}

#[tokio::test]
async fn the_folder_tree_is_listed_and_delta_gives_the_same() {
    let bench = start(options()).await;
    let page = bench.json("/mailFolders").await;
    assert!(page["value"].as_array().unwrap().len() <= 10);
    let mut found = BTreeSet::new();
    let mut queue = vec!["msgfolderroot".to_owned()];
    while let Some(parent) = queue.pop() {
        let path = format!("/mailFolders/{parent}/childFolders?includeHiddenFolders=true&$top=3");
        for folder in bench.all(&path, 3).await.0 {
            if folder["childFolderCount"].as_u64().unwrap() > 0 {
                queue.push(folder["id"].as_str().unwrap().into());
            }
            found.insert(folder["id"].as_str().unwrap().to_owned());
        }
    }
    let (delta, link) = bench.all("/mailFolders/delta", 5).await;
    assert_eq!(found, ids(&delta).into_iter().map(ToOwned::to_owned).collect());
    assert!(delta.iter().any(|folder| folder["isHidden"] == true));
    let inbox = bench.json("/mailFolders/Inbox").await;
    assert!(delta.iter().any(|folder| folder["id"] == inbox["id"]));
    bench.send(Method::POST, "/mailFolders/inbox/childFolders", &json!({"displayName": "Later"})).await;
    let (changes, _) = bench.all(&link.unwrap(), 5).await;
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0]["displayName"], "Later");
}

async fn every_message(bench: &Bench, select: &str) -> (Vec<Value>, BTreeMap<String, String>) {
    let (mut items, mut links) = (Vec::new(), BTreeMap::new());
    for folder in bench.all("/mailFolders/delta", 50).await.0 {
        let id = folder["id"].as_str().unwrap();
        let (found, link) = bench.all(&format!("/mailFolders/{id}/messages/delta{select}"), 7).await;
        assert_eq!(found.len() as u64, folder["totalItemCount"].as_u64().unwrap());
        items.extend(found);
        links.insert(id.to_owned(), link.unwrap());
    }
    (items, links)
}

#[tokio::test]
async fn delta_json_is_the_truth() {
    let bench = start(options()).await;
    let (items, _) = every_message(&bench, "").await;
    let truth = bench.sim.truth(&bench.user).await.unwrap();
    assert!(truth.len() > 10);
    assert_eq!(items.len(), truth.len());
    let by_id: BTreeMap<_, _> = truth.iter().map(|one| (one.id.as_str(), one)).collect();
    for item in &items {
        let one = by_id[item["id"].as_str().unwrap()];
        assert_eq!(item["subject"], one.subject.as_str());
        let body = item["body"]["content"].as_str().unwrap();
        assert_eq!(blake3::hash(body.as_bytes()).to_hex().as_str(), one.body_blake3);
        assert_eq!(item["receivedDateTime"], one.received_date_time.as_str());
        assert_eq!(item["isDraft"], one.is_draft);
        assert_eq!(item["flag"]["flagStatus"], one.flag.as_str());
        assert_eq!(item["bccRecipients"].as_array().unwrap().len(), one.bcc.len());
        let visible = one.attachments.iter().any(|attachment| !attachment.is_inline);
        assert_eq!(item["hasAttachments"], visible);
    }
}

#[tokio::test]
async fn mime_parses_to_the_truth_and_differs_on_each_read() {
    let mut options = options();
    options.population.messages_per_user = 150;
    options.population.users = 1;
    let bench = start(options).await;
    let mut kinds = BTreeSet::new();
    for one in bench.sim.truth(&bench.user).await.unwrap() {
        let path = format!("/messages/{}/$value", one.id);
        let response = bench.get(&path).await;
        let length = response.content_length().unwrap();
        let bytes = response.bytes().await.unwrap();
        assert_eq!(bytes.len() as u64, length);
        let message = MessageParser::default().parse(&bytes[..]).unwrap();
        assert_eq!(message.subject().unwrap(), one.subject);
        let body = if one.body_content_type == "html" { message.body_html(0) } else { message.body_text(0) };
        assert_eq!(
            blake3::hash(body.unwrap().as_bytes()).to_hex().as_str(),
            one.body_blake3,
            "{}",
            one.subject
        );
        let parts: Vec<_> = message.attachments().collect();
        let expected: Vec<_> = one.attachments.iter().filter(|a| a.kind != "reference").collect();
        assert_eq!(parts.len(), expected.len());
        for attachment in expected {
            kinds.insert((attachment.kind.clone(), attachment.is_inline));
            if attachment.kind == "file" {
                let part =
                    parts.iter().find(|part| part.attachment_name() == Some(&attachment.name)).unwrap();
                assert_eq!(blake3::hash(part.contents()).to_hex().as_str(), attachment.blake3);
                assert_eq!(part.contents().len() as u64, attachment.size);
            }
        }
        if parts.len() > 1 {
            assert_ne!(bytes, bench.get(&path).await.bytes().await.unwrap());
        }
    }
    assert!(kinds.len() >= 3, "{kinds:?}");
    assert_eq!(bench.sim.counters().content_requests.len(), 1);
}

#[tokio::test]
async fn attachments_are_listed_and_read_one_by_one() {
    let mut options = options();
    (options.population.users, options.population.messages_per_user) = (1, 150);
    let bench = start(options).await;
    let mut seen = BTreeSet::new();
    for one in bench.sim.truth(&bench.user).await.unwrap() {
        let path = format!("/messages/{}/attachments?$select=id,name,contentType,size,isInline", one.id);
        let list = bench.json(&format!("{path},microsoft.graph.fileAttachment/contentId")).await;
        for (shown, real) in list["value"].as_array().unwrap().iter().zip(&one.attachments) {
            assert!(shown["contentBytes"].is_null());
            assert_eq!(shown["contentId"].as_str(), real.content_id.as_deref());
            assert!(shown["size"].as_u64().unwrap() >= real.size);
            seen.insert(real.kind.clone());
            let at = format!("/messages/{}/attachments/{}", one.id, shown["id"].as_str().unwrap());
            let value = bench.get(&format!("{at}/$value")).await;
            if real.kind == "reference" {
                assert_eq!(value.status(), 405);
            } else {
                let bytes = value.bytes().await.unwrap();
                assert_eq!(blake3::hash(&bytes).to_hex().as_str(), real.blake3);
            }
            if real.kind == "item" {
                let item = bench.json(&format!("{at}?$expand=microsoft.graph.itemattachment/item")).await;
                assert_eq!(item["item"]["subject"], real.name.as_str());
            }
        }
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
}

#[tokio::test]
async fn delta_reports_new_edited_moved_deleted_and_flagged() {
    let bench = start(options()).await;
    let (before, links) = every_message(&bench, "?$select=id,changeKey").await;
    let user = bench.user.clone();
    let done = bench
        .control(
            "evolve",
            json!({"seed": 5, "new": 4, "edited": 3, "moved": 2, "deleted": 2, "flags": 3, "users": [user]}),
        )
        .await;
    assert_eq!(done["moved"], 2);
    let (mut present, mut removed) = (BTreeSet::new(), BTreeSet::new());
    for link in links.values() {
        for item in bench.all(link, 3).await.0 {
            let id = item["id"].as_str().unwrap().to_owned();
            if item["@removed"].is_object() {
                removed.insert(id)
            } else {
                present.insert(id)
            };
        }
    }
    let old: BTreeSet<_> = ids(&before).into_iter().map(ToOwned::to_owned).collect();
    assert_eq!(present.difference(&old).count(), 4);
    assert_eq!(present.intersection(&removed).count(), 2, "a move is removed here and present there");
    assert_eq!(removed.difference(&present).count(), 2);
    assert_eq!(present.len(), 4 + 3 + 2 + 3);
}

#[tokio::test]
async fn mutable_ids_die_with_a_move_and_immutable_ones_do_not() {
    let bench = start(options()).await;
    let url = bench.url("/mailFolders/inbox/messages?$top=1&$select=id");
    let page: Value =
        bench.http.get(&url).bearer_auth(&bench.token).send().await.unwrap().json().await.unwrap();
    let mutable = page["value"][0]["id"].as_str().unwrap().to_owned();
    let immutable = bench.json(&url).await["value"][0]["id"].as_str().unwrap().to_owned();
    assert_ne!(mutable, immutable);
    let (status, moved) = bench
        .send(Method::POST, &format!("/messages/{mutable}/move"), &json!({"destinationId": "archive"}))
        .await;
    assert_eq!((status, moved["id"].as_str()), (201, Some(immutable.as_str())));
    assert_eq!(bench.get(&format!("/messages/{immutable}")).await.status(), 200);
    let gone = bench.get(&format!("/messages/{mutable}")).await;
    assert_eq!(gone.status(), 404);
    assert_eq!(gone.json::<Value>().await.unwrap()["error"]["code"], "ErrorItemNotFound");
}

#[tokio::test]
async fn the_same_seed_gives_the_same_truth_and_another_does_not() {
    let (one, two) = (start(options()).await, start(options()).await);
    let truth = one.sim.truth(&one.user).await.unwrap();
    assert_eq!(truth, two.sim.truth(&two.user).await.unwrap());
    let other = start(SimOptions { seed: 2, ..options() }).await;
    let other = other.sim.truth(&other.user).await.unwrap();
    assert_ne!(truth[0].body_blake3, other[0].body_blake3);
}

#[tokio::test]
async fn the_population_has_about_the_wanted_size() {
    let mut options = options();
    options.population =
        Population { users: 4, messages_per_user: 500, total_bytes: 160_000_000, ..Population::default() };
    let bench = start(options).await;
    let mut total = 0;
    let mut messages = 0;
    for user in bench.sim.users() {
        for one in bench.sim.truth(&user.id).await.unwrap() {
            messages += 1;
            total += one.attachments.iter().map(|attachment| attachment.size * 78 / 57).sum::<u64>() + 4000;
        }
    }
    assert!((1990..=2010).contains(&messages), "{messages}");
    assert!((120_000_000..200_000_000).contains(&total), "{total}");
}

#[tokio::test]
async fn message_files_are_given_back_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let raw = "From: A <a@x.example>\r\nTo: b@y.example\r\nSubject: From a file\r\nMessage-ID: <1@x>\r\n\
        Date: Fri, 01 May 2026 10:00:00 +0000\r\nContent-Type: text/plain\r\n\r\nHello\r\n";
    std::fs::write(folder.path().join("one.eml"), raw).unwrap();
    let mut options = options();
    options.population.eml_folder = Some(folder.path().into());
    let bench = start(options).await;
    let truth = bench.sim.truth(&bench.user).await.unwrap();
    let one = truth.iter().find(|one| one.subject == "From a file").unwrap();
    assert_eq!(one.folder_path, "/Inbox");
    assert_eq!(one.received_date_time, "2026-05-01T10:00:00Z");
    let read = bench.get(&format!("/messages/{}/$value", one.id)).await.text().await.unwrap();
    assert_eq!(read, raw);
}

#[tokio::test]
async fn what_is_not_understood_is_refused() {
    let bench = start(options()).await;
    for (path, status) in [
        ("/mailFolders/clutter", 404),
        ("/mailFolders/nonsense", 400),
        ("/mailFolders?$select=colour", 400),
        ("/mailFolders/inbox/messages?$select=colour", 400),
        ("/mailFolders/inbox/messages?$filter=importance%20eq%20'high'", 400),
        ("/mailFolders/inbox/messages?$orderby=subject", 400),
        ("/messages/x/attachments?$select=contentId", 400),
        ("/messages/delta", 400),
        ("/nonsense", 400),
    ] {
        assert_eq!(bench.get(path).await.status(), status, "{path}");
    }
    let ordered = bench
        .json("/mailFolders/inbox/messages?$orderby=receivedDateTime%20desc&$select=receivedDateTime")
        .await;
    let dates: Vec<_> =
        ordered["value"].as_array().unwrap().iter().map(|one| one["receivedDateTime"].to_string()).collect();
    assert!(dates.len() > 2 && dates.is_sorted_by(|a, b| a >= b), "{dates:?}");
}
