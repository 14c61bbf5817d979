use super::*;
use crate::{FaultOptions, differences_of};

fn people_with_contacts() -> SimOptions {
    let mut options = options();
    options.apps[0].roles.push("Contacts.ReadWrite".into());
    options.population.contacts_per_user = 60;
    options
}

async fn truth(bench: &Bench) -> Vec<Value> {
    bench.sim.truth_of("contacts", &bench.user).await.unwrap()
}

/// The paths of all folders' contacts: the default folder, which no list names, and all below it.
async fn collections(bench: &Bench) -> Vec<String> {
    let mut paths = vec!["/contacts".to_owned()];
    let mut queue = vec!["/contactFolders".to_owned()];
    while let Some(at) = queue.pop() {
        for folder in bench.all(&at, 2).await.0 {
            let folder = format!("/contactFolders/{}", folder["id"].as_str().unwrap());
            paths.push(format!("{folder}/contacts"));
            queue.push(format!("{folder}/childFolders"));
        }
    }
    paths
}

async fn every_contact(bench: &Bench) -> (Vec<Value>, Vec<String>) {
    let (mut items, mut links) = (Vec::new(), Vec::new());
    for path in collections(bench).await {
        let (found, link) = bench.all(&format!("{path}/delta"), 7).await;
        items.extend(found);
        links.push(link.unwrap());
    }
    (items, links)
}

#[tokio::test]
async fn folders_are_a_tree_and_delta_gives_all_but_the_default_one() {
    let bench = start(people_with_contacts()).await;
    let (folders, link) = bench.all("/contactFolders/delta", 1).await;
    assert_eq!(folders.len() + 1, collections(&bench).await.len());
    let default = bench.json("/contactFolders/contacts").await;
    assert_eq!(default["displayName"], "Contacts");
    assert!(!ids(&folders).contains(&default["id"].as_str().unwrap()));
    let nested = folders.iter().filter(|folder| folder["parentFolderId"] != default["id"]).count();
    assert_eq!(nested, 1);
    let body = json!({"displayName": "Restored"});
    let (status, made) = bench.send(Method::POST, "/contactFolders", &body).await;
    assert_eq!((status, &made["parentFolderId"]), (201, &default["id"]));
    let (status, again) =
        bench.send(Method::POST, "/contactFolders", &json!({"displayName": "RESTORED"})).await;
    assert_eq!((status, again["error"]["code"].as_str()), (409, Some("ErrorFolderExists")));
    let path = format!("/contactFolders/{}", made["id"].as_str().unwrap());
    let (status, below) = bench.send(Method::POST, &format!("{path}/childFolders"), &body).await;
    assert_eq!((status, &below["parentFolderId"]), (201, &made["id"]));
    let (changes, link) = bench.all(&link.unwrap(), 50).await;
    assert_eq!(ids(&changes), [made["id"].as_str().unwrap(), below["id"].as_str().unwrap()]);
    assert_eq!(bench.request(Method::DELETE, &path).send().await.unwrap().status(), 204);
    let (changes, _) = bench.all(&link.unwrap(), 50).await;
    assert_eq!(changes.iter().filter(|one| one["@removed"]["reason"] == "deleted").count(), 2);
    assert_eq!(bench.request(Method::DELETE, "/contactFolders/contacts").send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn delta_json_is_the_truth_and_lists_agree() {
    let bench = start(people_with_contacts()).await;
    let (items, _) = every_contact(&bench).await;
    let truth = truth(&bench).await;
    assert_eq!((items.len(), truth.len()), (60, 60));
    for one in &truth {
        let item = items.iter().find(|item| item["id"] == one["id"]).unwrap();
        for name in
            ["displayName", "emailAddresses", "businessPhones", "birthday", "personalNotes", "categories"]
        {
            assert_eq!(item[name], one[name], "{name}");
        }
        assert_eq!(item["primaryEmailAddress"], one["emailAddresses"][0]);
    }
    let mut listed = 0;
    for path in collections(&bench).await {
        listed += bench.all(&format!("{path}?$select=id,displayName&$top=4"), 4).await.0.len();
    }
    assert_eq!(listed, 60);
}

#[tokio::test]
async fn delta_reports_new_edited_moved_and_deleted_but_no_photos() {
    let bench = start(people_with_contacts()).await;
    let (before, links) = every_contact(&bench).await;
    let user = bench.user.clone();
    let wanted = json!({"seed": 3, "workload": "contacts", "new": 4, "edited": 5, "moved": 3, "deleted": 2,
        "flags": 6, "users": [user]});
    let done = bench.control("evolve", wanted).await;
    assert_eq!((done["moved"].as_u64(), done["flags"].as_u64()), (Some(3), Some(6)));
    let (mut present, mut removed) = (Vec::new(), Vec::new());
    for link in links {
        for item in bench.all(&link, 2).await.0 {
            let id = item["id"].as_str().unwrap().to_owned();
            if item["@removed"].is_object() { removed.push(id) } else { present.push(id) }
        }
    }
    assert_eq!(present.len(), 4 + 5 + 3);
    assert_eq!(removed.len(), 3 + 2);
    assert_eq!(
        removed.iter().filter(|id| present.contains(id)).count(),
        3,
        "a moved contact keeps its immutable id"
    );
    let old = ids(&before);
    assert_eq!(present.iter().filter(|id| !old.contains(&id.as_str())).count(), 4);
}

#[tokio::test]
async fn a_contact_is_created_changed_found_by_its_key_and_deleted() {
    let bench = start(people_with_contacts()).await;
    let body = json!({"givenName": "Ada", "surname": "Byron", "mobilePhone": "1", "nickName": null,
        "emailAddresses": [{"name": "Ada", "address": "ada@x.example"}], "birthday": "1815-12-10T11:59:00Z",
        "homeAddress": {"city": "London"}, "changeKey": "ignored",
        "singleValueExtendedProperties": [{"id": RESTORE_KEY, "value": "k'1"}]});
    let (status, made) = bench.send(Method::POST, "/contacts", &body).await;
    assert_eq!(
        (status, made["displayName"].as_str(), made["fileAs"].as_str()),
        (201, Some("Ada Byron"), Some("Byron, Ada"))
    );
    assert!(made["singleValueExtendedProperties"].is_null());
    let path = format!("/contacts/{}", made["id"].as_str().unwrap());
    let filter =
        format!("singleValueExtendedProperties/any(ep: ep/id eq '{RESTORE_KEY}' and ep/value eq 'k''1')");
    let expand = format!("singleValueExtendedProperties($filter=id eq '{RESTORE_KEY}')");
    let query = [("$filter", filter), ("$expand", expand), ("$select", "id".into())];
    let query = crate::query::Query(query.map(|(name, value)| (name.to_owned(), value)).into());
    let found = bench.json(&format!("/contacts?{}", query.encode())).await;
    assert_eq!(ids(found["value"].as_array().unwrap()), [made["id"].as_str().unwrap()]);
    assert_eq!(found["value"][0]["singleValueExtendedProperties"][0]["value"], "k'1");
    assert!(found["value"][0]["displayName"].is_null());
    let (status, changed) = bench.send(Method::PATCH, &path, &json!({"mobilePhone": "2"})).await;
    assert_eq!(
        (status, changed["mobilePhone"].as_str(), changed["surname"].as_str()),
        (200, Some("2"), Some("Byron"))
    );
    assert_ne!(changed["@odata.etag"], made["@odata.etag"]);
    for wrong in [json!({"invented": 1}), json!({"surname": 1}), json!({"children": "x"})] {
        assert_eq!(bench.send(Method::PATCH, &path, &wrong).await.0, 400, "{wrong}");
    }
    assert_eq!(bench.get("/contacts?$orderby=surname").await.status(), 400);
    assert_eq!(bench.get("/contacts/delta?$filter=surname%20eq%20'x'").await.status(), 400);
    let elsewhere = path.replace("/contacts", &collections(&bench).await[1]);
    assert_eq!(bench.get(&elsewhere).await.status(), 404);
    assert_eq!(bench.request(Method::DELETE, &path).send().await.unwrap().status(), 204);
    assert_eq!(bench.get(&path).await.status(), 404);
    assert_eq!(bench.get("/contacts/nonsense").await.status(), 400);
}

#[tokio::test]
async fn photos_are_there_or_404_and_change_no_etag() {
    let bench = start(people_with_contacts()).await;
    let (mut with, mut without) = (0, 0);
    for one in truth(&bench).await {
        let response = bench.get(&format!("/contacts/{}/photo/$value", one["id"].as_str().unwrap())).await;
        match one["photoBlake3"].as_str() {
            Some(hash) => {
                assert_eq!(response.headers()["content-type"], "image/jpeg");
                assert_eq!(blake3::hash(&response.bytes().await.unwrap()).to_hex().as_str(), hash);
                with += 1;
            }
            None => {
                assert_eq!(response.status(), 404);
                without += 1;
            }
        }
    }
    assert!(with > 5 && without > 5, "{with} {without}");
    let (_, made) = bench.send(Method::POST, "/contacts", &json!({"displayName": "x"})).await;
    let path = format!("/contacts/{}", made["id"].as_str().unwrap());
    let put = bench.request(Method::PUT, &format!("{path}/photo/$value")).header("content-type", "image/png");
    assert_eq!(put.body(vec![1_u8, 2, 3]).send().await.unwrap().status(), 200);
    let read = bench.get(&format!("{path}/photo/$value")).await;
    assert_eq!(read.headers()["content-type"], "image/png");
    assert_eq!(read.bytes().await.unwrap().as_ref(), [1, 2, 3]);
    assert_eq!(bench.json(&format!("{path}/photo")).await["width"], 96);
    assert_eq!(bench.json(&path).await["@odata.etag"], made["@odata.etag"]);
    let text =
        bench.request(Method::PUT, &format!("{path}/photo/$value")).header("content-type", "text/plain");
    assert_eq!(text.body("x").send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn a_mutable_id_dies_with_a_move() {
    let mut options = people_with_contacts();
    options.population.contacts_per_user = 1;
    let bench = start(options).await;
    let (items, _) = every_contact(&bench).await;
    let immutable = format!("/contacts/{}", items[0]["id"].as_str().unwrap());
    let url = bench.url(&immutable);
    let shown: Value =
        bench.http.get(url).bearer_auth(&bench.token).send().await.unwrap().json().await.unwrap();
    let mutable = format!("/contacts/{}", shown["id"].as_str().unwrap());
    assert_ne!(mutable, immutable);
    assert_eq!(bench.get(&mutable).await.status(), 200);
    bench.control("evolve", json!({"workload": "contacts", "moved": 1, "users": [bench.user]})).await;
    assert_eq!(bench.get(&mutable).await.status(), 404);
    assert_eq!(bench.get(&immutable).await.status(), 200);
}

#[tokio::test]
async fn what_graph_shows_is_enough_to_make_the_contacts_again() {
    let bench = start(people_with_contacts()).await;
    let before = truth(&bench).await;
    let mut originals = Vec::new();
    for one in &before {
        let at = format!("/contacts/{}", one["id"].as_str().unwrap());
        let photo = bench.get(&format!("{at}/photo/$value")).await;
        let photo = if photo.status() == 200 { Some(photo.bytes().await.unwrap()) } else { None };
        originals.push((one["folderPath"].as_str().unwrap().to_owned(), bench.json(&at).await, photo));
    }
    assert_eq!(
        bench.control("wipe", json!({"user": bench.user, "workload": "contacts"})).await["contacts"],
        60
    );
    assert_eq!(truth(&bench).await, Vec::<Value>::new());
    assert_eq!(differences_of(&before, &[]).len(), before.len());
    let mut folders = std::collections::BTreeMap::from([("/Contacts".to_owned(), "contacts".to_owned())]);
    originals.sort_by_key(|(path, ..)| path.matches('/').count());
    for (path, body, photo) in originals {
        let mut at = "/Contacts".to_owned();
        for name in path.split('/').skip(2) {
            let below = format!("/contactFolders/{}/childFolders", folders[&at]);
            at = format!("{at}/{name}");
            if !folders.contains_key(&at) {
                let (status, made) = bench.send(Method::POST, &below, &json!({"displayName": name})).await;
                assert_eq!(status, 201, "{made}");
                folders.insert(at.clone(), made["id"].as_str().unwrap().to_owned());
            }
        }
        let below = format!("/contactFolders/{}/contacts", folders[&at]);
        let (status, made) = bench.send(Method::POST, &below, &body).await;
        assert_eq!(status, 201, "{made}");
        if let Some(photo) = photo {
            let put = bench
                .request(Method::PUT, &format!("/contacts/{}/photo/$value", made["id"].as_str().unwrap()));
            assert_eq!(
                put.header("content-type", "image/jpeg").body(photo).send().await.unwrap().status(),
                200
            );
        }
    }
    assert_eq!(differences_of(&before, &truth(&bench).await), Vec::<String>::new());
}

#[tokio::test]
async fn the_faults_of_mail_strike_contacts_too() {
    let faults = FaultOptions {
        rate_empty_page: 0.3,
        rate_duplicate_in_page: 0.5,
        rate_phantom_removed: 0.5,
        ..FaultOptions::default()
    };
    let bench = start(SimOptions { faults, ..people_with_contacts() }).await;
    let (items, links) = every_contact(&bench).await;
    let present: Vec<Value> = items.iter().filter(|item| item["@removed"].is_null()).cloned().collect();
    let mut distinct = ids(&present);
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 60);
    assert!(present.len() > 60 && items.len() > present.len());
    bench.control("expire-delta", json!({"user": bench.user, "workload": "contacts"})).await;
    let response = bench.get(&links[0]).await;
    assert_eq!(response.status(), 410);
    bench.control("options", json!({"faults": {"rate-404": 1.0}})).await;
    assert_eq!(bench.get(&format!("/contacts/{}", distinct[0])).await.status(), 404);
    bench.control("options", json!({"faults": {"rate-404": 0.0, "rate-corrupt-item": 1.0}})).await;
    let corrupt = bench.get(&format!("/contacts/{}", distinct[0])).await;
    assert_eq!(corrupt.status(), 500);
    assert_eq!(corrupt.json::<Value>().await.unwrap()["error"]["code"], "ErrorCorruptData");
}

#[tokio::test]
async fn an_app_of_mail_sees_no_contacts() {
    let mut options = people_with_contacts();
    options.apps[0].roles = vec!["Mail.ReadWrite".into()];
    let bench = start(options).await;
    let response = bench.get("/contacts").await;
    assert_eq!(response.status(), 403);
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "ErrorAccessDenied");
    let mut options = people_with_contacts();
    options.apps[0].roles = vec!["Contacts.Read".into()];
    let bench = start(options).await;
    assert_eq!(bench.get("/contacts").await.status(), 200);
    assert_eq!(bench.send(Method::POST, "/contacts", &json!({"displayName": "x"})).await.0, 403);
    let counters = bench.sim.counters();
    let mailbox = &counters.requests[&bench.sim.users()[0].user_principal_name];
    assert_eq!((mailbox["contact_list"], mailbox["contact_create"]), (1, 1));
}
