use super::description::description;
use super::*;

fn with_settings() -> SimOptions {
    let mut options = options();
    options.apps[0].roles.push("MailboxSettings.ReadWrite".into());
    options.openapi = description();
    let population = &mut options.population;
    (population.inbox_rules_per_user, population.categories_per_user) = (8, 5);
    (population.search_folders_per_user, population.recoverable_messages_per_user) = (4, 3);
    options
}

fn named<'a>(items: &'a [Value], name: &str) -> &'a Value {
    items.iter().find(|item| item["displayName"] == name).unwrap()
}

#[tokio::test]
async fn rules_are_listed_made_changed_and_deleted_and_one_that_sends_is_counted() {
    let bench = start(with_settings()).await;
    let at = "/mailFolders/inbox/messageRules";
    let (rules, _) = bench.all(at, 3).await;
    assert_eq!(rules.len(), 8);
    assert_eq!(rules.iter().filter(|rule| rule["hasError"] == true).count(), 1);
    let read_only = rules.iter().find(|rule| rule["isReadOnly"] == true).unwrap();
    let one = |rule: &Value| format!("{at}/{}", rule["id"].as_str().unwrap());
    assert_eq!(bench.send(Method::PATCH, &one(read_only), &json!({"sequence": 1})).await.0, 403);
    assert_eq!(bench.sim.counters().would_have_sent_mail, 0, "what was there before sends nothing anew");

    let to = json!([{"emailAddress": {"address": "a@x.example"}}]);
    let body = json!({"displayName": "f", "sequence": 9, "isEnabled": false, "actions": {"forwardTo": to}});
    let (status, made) = bench.send(Method::POST, at, &body).await;
    assert_eq!((status, bench.sim.counters().would_have_sent_mail), (201, 0));
    assert_eq!(bench.send(Method::PATCH, &one(&made), &json!({"isEnabled": true})).await.0, 200);
    assert_eq!(bench.sim.counters().would_have_sent_mail, 1);
    assert_eq!(bench.request(Method::DELETE, &one(&made)).send().await.unwrap().status(), 204);
    for wrong in [
        json!({"displayName": "x", "actions": {}}),
        json!({"displayName": "x", "actions": {"moveToFolder": "nonsense"}}),
        json!({"actions": {"delete": true}}),
    ] {
        assert_eq!(bench.send(Method::POST, at, &wrong).await.0, 400, "{wrong}");
    }
    assert_eq!(bench.get("/mailFolders/drafts/messageRules").await.status(), 400);
    assert_eq!(bench.sim.counters().openapi_violations, Vec::<String>::new());
}

#[tokio::test]
async fn a_category_is_one_by_its_name_and_only_its_colour_changes() {
    let bench = start(with_settings()).await;
    let at = "/outlook/masterCategories";
    assert_eq!(bench.all(at, 2).await.0.len(), 5);
    let (_, made) = bench.send(Method::POST, at, &json!({"displayName": "Red", "color": "preset0"})).await;
    assert_eq!(bench.send(Method::POST, at, &json!({"displayName": "RED"})).await.0, 409);
    let one = format!("{at}/{}", made["id"].as_str().unwrap());
    assert_eq!(bench.send(Method::PATCH, &one, &json!({"displayName": "Blue"})).await.0, 400);
    assert_eq!(bench.send(Method::PATCH, &one, &json!({"color": "preset7"})).await.1["color"], "preset7");
    assert_eq!(bench.request(Method::DELETE, &one).send().await.unwrap().status(), 204);
    assert_eq!(bench.get(&one).await.status(), 404);
    assert_eq!(bench.sim.counters().openapi_violations, Vec::<String>::new());
}

#[tokio::test]
async fn settings_take_what_may_be_written_and_replies_that_are_switched_on_are_counted() {
    let bench = start(SimOptions { token_lifetime_seconds: 100_000, ..with_settings() }).await;
    let at = "/mailboxSettings";
    let before = bench.json(at).await;
    assert_eq!(before["automaticRepliesSetting"]["status"], "alwaysEnabled");
    let off = json!({"timeZone": "UTC", "automaticRepliesSetting": {"status": "disabled"}});
    let (status, after) = bench.send(Method::PATCH, at, &off).await;
    assert_eq!((status, &after["timeZone"]), (200, &json!("UTC")));
    let replies = &after["automaticRepliesSetting"];
    assert_eq!(replies["internalReplyMessage"], before["automaticRepliesSetting"]["internalReplyMessage"]);
    bench.clock.push(3_600_000);
    let later = bench.json(at).await;
    assert_ne!(later["automaticRepliesSetting"], *replies, "what was never scheduled moves with the clock");
    assert_eq!(bench.sim.counters().would_have_sent_mail, 0);
    for wrong in [json!({"userPurpose": "room"}), json!({"timeZone": 1}), json!({"colour": "red"})] {
        assert_eq!(bench.send(Method::PATCH, at, &wrong).await.0, 400, "{wrong}");
    }
    let on = json!({"automaticRepliesSetting": {"status": "alwaysEnabled"}});
    assert_eq!(bench.send(Method::PATCH, at, &on).await.0, 200);
    assert_eq!(bench.sim.counters().would_have_sent_mail, 1);
}

#[tokio::test]
async fn search_folders_are_made_found_by_a_property_and_changed() {
    let bench = start(with_settings()).await;
    let below = "/mailFolders/searchfolders/childFolders";
    assert_eq!(bench.all(below, 2).await.0.len(), 3);
    let (in_tree, _) = bench.all("/mailFolders/delta", 50).await;
    let search = "#microsoft.graph.mailSearchFolder";
    assert_eq!(in_tree.iter().filter(|folder| folder["@odata.type"] == search).count(), 1);
    assert!(
        in_tree
            .iter()
            .all(|folder| folder["displayName"] != "Finder" && folder["displayName"] != "Deletions")
    );

    let body = json!({"@odata.type": search, "displayName": "Mine", "includeNestedFolders": true,
        "sourceFolderIds": ["inbox"], "filterQuery": "isRead eq false",
        "singleValueExtendedProperties": [{"id": RESTORE_KEY, "value": "k"}]});
    let (status, made) = bench.send(Method::POST, below, &body).await;
    assert_eq!((status, &made["@odata.type"]), (201, &json!(search)), "{made}");
    let expand = RESTORE_KEY.replace(' ', "%20");
    let expand = format!("$expand=singleValueExtendedProperties($filter=id%20eq%20'{expand}')");
    let (found, _) = bench.all(&format!("{below}?{expand}"), 10).await;
    assert_eq!(named(&found, "Mine")["singleValueExtendedProperties"][0]["value"], "k");
    let one = format!("/mailFolders/{}", made["id"].as_str().unwrap());
    let (_, changed) = bench
        .send(Method::PATCH, &one, &json!({"@odata.type": search, "filterQuery": "isRead eq true"}))
        .await;
    assert_eq!(changed["filterQuery"], "isRead eq true");
    assert_eq!(bench.send(Method::POST, below, &json!({"displayName": "plain"})).await.0, 403);
    let mut wrong = body;
    wrong["sourceFolderIds"] = json!([]);
    wrong["displayName"] = "Other".into();
    assert_eq!(bench.send(Method::POST, below, &wrong).await.0, 400);
    let messages = format!("{one}/messages");
    assert_eq!(bench.send(Method::POST, &messages, &json!({"subject": "s"})).await.0, 403);
    assert_eq!(bench.sim.counters().openapi_violations, Vec::<String>::new());
}

#[tokio::test]
async fn recoverable_items_are_read_where_the_tenant_allows_it_and_nothing_is_put_there() {
    let bench = start(with_settings()).await;
    let at = "/mailFolders/recoverableitemsdeletions";
    assert_eq!(bench.json(at).await["totalItemCount"], 3);
    let (messages, link) = bench.all(&format!("{at}/messages/delta"), 2).await;
    assert_eq!((messages.len(), link.is_some()), (3, true));
    assert_eq!(bench.send(Method::POST, &format!("{at}/messages"), &json!({"subject": "s"})).await.0, 403);
    bench.control("options", json!({"recoverable-items": false})).await;
    assert_eq!(bench.get(at).await.status(), 403);
    assert_eq!(bench.get(&format!("{at}/messages/delta")).await.status(), 403);
}

#[tokio::test]
async fn an_app_without_the_role_sees_no_settings_and_a_truth_names_folders_by_path() {
    let mut options = with_settings();
    options.apps[0].roles.pop();
    let bench = start(options).await;
    for at in ["/mailboxSettings", "/outlook/masterCategories", "/mailFolders/inbox/messageRules"] {
        assert_eq!(bench.get(at).await.status(), 403, "{at}");
    }
    let truth = bench.sim.truth_of("mailbox-settings", &bench.user).await.unwrap();
    let kinds = |kind: &str| truth.iter().filter(|one| one["kind"] == kind).count();
    assert_eq!((kinds("rule"), kinds("category"), kinds("searchFolder"), kinds("settings")), (8, 5, 4, 1));
    assert!(truth[0]["actions"]["moveToFolder"].as_str().unwrap().starts_with('/'));
    let evolved = json!({"seed": 1, "workload": "mailbox-settings", "users": [bench.user], "new": 2,
        "edited": 1, "moved": 0, "deleted": 1, "flags": 1});
    bench.control("evolve", evolved).await;
    let after = bench.sim.truth_of("mailbox-settings", &bench.user).await.unwrap();
    assert_eq!(after.iter().filter(|one| one["kind"] == "rule").count(), 9);
    bench.control("wipe", json!({"user": bench.user, "workload": "mailbox-settings"})).await;
    let after = bench.sim.truth_of("mailbox-settings", &bench.user).await.unwrap();
    assert!(after.iter().all(|one| one["kind"] == "searchFolder" || one["kind"] == "settings"));
}
