use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

fn message(extended: Value) -> Value {
    json!({
        "subject": "Restored", "body": {"contentType": "html", "content": "<p>hé</p>"},
        "from": {"emailAddress": {"name": "A", "address": "a@x.example"}},
        "toRecipients": [{"emailAddress": {"name": "B", "address": "b@x.example"}}],
        "internetMessageId": "<restored@x>", "isRead": false, "importance": "high", "categories": ["Red category"],
        "flag": {"flagStatus": "flagged"}, "singleValueExtendedProperties": extended,
        "attachments": [{"@odata.type": "#microsoft.graph.fileAttachment", "name": "a.txt", "contentType": "text/plain",
            "contentBytes": STANDARD.encode("attached")}],
    })
}

fn restored() -> Value {
    message(json!([
        {"id": "Integer 0x0E07", "value": "4"},
        {"id": "SystemTime 0x0039", "value": "2024-05-01T10:00:00Z"},
        {"id": "SystemTime 0x0E06", "value": "2024-05-01T10:00:05Z"},
        {"id": RESTORE_KEY, "value": "k'1"},
    ]))
}

#[tokio::test]
async fn a_create_with_extended_properties_keeps_dates_and_is_no_draft() {
    let bench = start(options()).await;
    let (status, made) = bench.send(Method::POST, "/mailFolders/inbox/messages", &restored()).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["isDraft"], false);
    let truth = bench.sim.truth(&bench.user).await.unwrap();
    let one = truth.iter().find(|one| Some(one.id.as_str()) == made["id"].as_str()).unwrap();
    assert_eq!(one.sent_date_time, "2024-05-01T10:00:00Z");
    assert_eq!(one.received_date_time, "2024-05-01T10:00:05Z");
    assert_eq!((one.is_read, one.importance.as_str(), one.flag.as_str()), (false, "high", "flagged"));
    assert_eq!(one.internet_message_id, "<restored@x>");
    assert_eq!(one.attachments[0].blake3, blake3::hash(b"attached").to_hex().as_str());
    let (status, draft) = bench.send(Method::POST, "/messages", &message(json!([]))).await;
    assert_eq!((status, draft["isDraft"].as_bool()), (201, Some(true)));
    let filter =
        format!("singleValueExtendedProperties/any(ep: ep/id eq '{RESTORE_KEY}' and ep/value eq 'k''1')");
    let expand = format!("singleValueExtendedProperties($filter=id eq '{RESTORE_KEY}')");
    let query = [("$filter", filter), ("$expand", expand), ("$select", "id".into())];
    let query = crate::query::Query(query.map(|(name, value)| (name.to_owned(), value)).into());
    let found = bench.json(&format!("/mailFolders/inbox/messages?{}", query.encode())).await;
    assert_eq!(ids(found["value"].as_array().unwrap()), [made["id"].as_str().unwrap()]);
    assert_eq!(found["value"][0]["singleValueExtendedProperties"][0]["value"], "k'1");
    assert_eq!(bench.sim.counters().would_have_sent_mail, 0);
}

#[tokio::test]
async fn sensitive_properties_change_only_in_drafts() {
    let bench = start(options()).await;
    let (_, made) = bench.send(Method::POST, "/mailFolders/inbox/messages", &restored()).await;
    let path = format!("/messages/{}", made["id"].as_str().unwrap());
    let (status, body) = bench.send(Method::PATCH, &path, &json!({"subject": "other"})).await;
    assert_eq!((status, body["error"]["code"].as_str()), (403, Some("ErrorAccessDenied")));
    let (status, body) = bench.send(Method::PATCH, &path, &json!({"isRead": true})).await;
    assert_eq!((status, body["isRead"].as_bool()), (200, Some(true)));
    assert_ne!(body["changeKey"], made["changeKey"]);
    assert_eq!(bench.request(Method::DELETE, &path).send().await.unwrap().status(), 204);
    assert_eq!(bench.get(&path).await.status(), 404);
}

#[tokio::test]
async fn large_requests_need_a_session_and_sessions_keep_order() {
    let bench = start(options()).await;
    let (_, made) = bench.send(Method::POST, "/mailFolders/inbox/messages", &restored()).await;
    let path = format!("/messages/{}/attachments", made["id"].as_str().unwrap());
    let big = json!({"@odata.type": "#microsoft.graph.fileAttachment", "name": "b", "contentBytes": "A".repeat(4_300_000)});
    assert_eq!(bench.send(Method::POST, &path, &big).await.0, 413);
    let data: Vec<u8> = (0..5_000_000_u32).map(|n| n as u8).collect();
    let item = json!({"AttachmentItem": {"attachmentType": "file", "name": "big.bin", "size": data.len()}});
    let (status, session) = bench.send(Method::POST, &format!("{path}/createUploadSession"), &item).await;
    assert_eq!(status, 201, "{session}");
    let url = session["uploadUrl"].as_str().unwrap().to_owned();
    let put = |from: usize, to: usize| {
        let range = format!("bytes {from}-{}/{}", to - 1, data.len());
        bench.http.put(&url).header("content-range", range).body(data[from..to].to_vec())
    };
    assert_eq!(put(0, 2_097_152).bearer_auth(&bench.token).send().await.unwrap().status(), 401);
    assert_eq!(put(2_097_152, 4_000_000).send().await.unwrap().status(), 416);
    let first = put(0, 2_097_152).send().await.unwrap();
    assert_eq!(first.status(), 200);
    assert_eq!(first.json::<Value>().await.unwrap()["nextExpectedRanges"], json!(["2097152"]));
    let last = put(2_097_152, data.len()).send().await.unwrap();
    assert_eq!(last.status(), 201);
    assert!(last.headers()["location"].to_str().unwrap().contains("/Attachments('"));
    let truth = bench.sim.truth(&bench.user).await.unwrap();
    let one = truth.iter().find(|one| one.internet_message_id == "<restored@x>").unwrap();
    assert_eq!(one.attachments[1].blake3, blake3::hash(&data).to_hex().as_str());
}

#[tokio::test]
async fn attachments_of_non_drafts_can_be_refused() {
    let bench = start(SimOptions { attachments_on_non_drafts: false, ..options() }).await;
    let small =
        json!({"@odata.type": "#microsoft.graph.fileAttachment", "name": "b", "contentBytes": "QQ=="});
    for (extended, expected) in [(json!([{"id": "Integer 0x0E07", "value": "4"}]), 403), (json!([]), 201)] {
        let (_, made) = bench.send(Method::POST, "/mailFolders/inbox/messages", &message(extended)).await;
        let path = format!("/messages/{}/attachments", made["id"].as_str().unwrap());
        assert_eq!(bench.send(Method::POST, &path, &small).await.0, expected);
    }
}

#[tokio::test]
async fn folders_are_made_once() {
    let bench = start(options()).await;
    let body = json!({"displayName": "Holdfast staging", "isHidden": true});
    let (status, made) = bench.send(Method::POST, "/mailFolders", &body).await;
    assert_eq!((status, made["isHidden"].as_bool()), (201, Some(true)));
    let (status, again) =
        bench.send(Method::POST, "/mailFolders", &json!({"displayName": "holdfast STAGING"})).await;
    assert_eq!((status, again["error"]["code"].as_str()), (409, Some("ErrorFolderExists")));
    let path = format!("/mailFolders/{}", made["id"].as_str().unwrap());
    assert_eq!(bench.request(Method::DELETE, &path).send().await.unwrap().status(), 204);
    assert_eq!(bench.request(Method::DELETE, "/mailFolders/inbox").send().await.unwrap().status(), 400);
    bench.control("wipe", json!({"user": bench.user})).await;
    assert_eq!(bench.sim.truth(&bench.user).await.unwrap(), []);
    let left = bench.json("/mailFolders/msgfolderroot/childFolders?$top=100").await;
    assert_eq!(left["value"].as_array().unwrap().len(), 8);
}

#[tokio::test]
async fn calls_that_send_mail_are_counted() {
    let bench = start(options()).await;
    let page = bench.json("/mailFolders/drafts/messages?$top=1").await;
    let id = page["value"][0]["id"].as_str().unwrap_or("x");
    for path in ["/sendMail".to_owned(), format!("/messages/{id}/send"), format!("/messages/{id}/forward")] {
        assert_eq!(bench.send(Method::POST, &path, &json!({})).await.0, 202);
    }
    assert_eq!(bench.sim.counters().would_have_sent_mail, 3);
}

/// Every message of the first mailbox, created again from what Graph shows of it.
#[tokio::test]
async fn what_graph_shows_is_enough_to_make_the_mailbox_again() {
    let mut options = options();
    (options.population.users, options.population.messages_per_user) = (2, 120);
    options.population.max_message_bytes = 900_000;
    let bench = start(options).await;
    let before = bench.sim.truth(&bench.user).await.unwrap();
    let mut made = Vec::new();
    for one in &before {
        let mut body = bench.json(&format!("/messages/{}", one.id)).await;
        let attachments =
            format!("/messages/{}/attachments?$expand=microsoft.graph.itemattachment/item", one.id);
        body["attachments"] = bench.json(&attachments).await["value"].clone();
        let mut extended = vec![
            json!({"id": "SystemTime 0x0039", "value": one.sent_date_time}),
            json!({"id": "SystemTime 0x0E06", "value": one.received_date_time}),
        ];
        if !one.is_draft {
            extended.push(json!({"id": "Integer 0x0E07", "value": if one.is_read { "5" } else { "4" }}));
        }
        body["singleValueExtendedProperties"] = json!(extended);
        made.push((body["parentFolderId"].as_str().unwrap().to_owned(), body));
    }
    for one in &before {
        let path = format!("/messages/{}", one.id);
        assert_eq!(bench.request(Method::DELETE, &path).send().await.unwrap().status(), 204);
    }
    assert_eq!(crate::differences(&before, &bench.sim.truth(&bench.user).await.unwrap()).len(), before.len());
    for (folder, body) in &made {
        let (status, answer) =
            bench.send(Method::POST, &format!("/mailFolders/{folder}/messages"), body).await;
        assert_eq!(status, 201, "{answer}");
    }
    let after = bench.sim.truth(&bench.user).await.unwrap();
    assert_eq!(crate::differences(&before, &after), Vec::<String>::new());
    assert!(before.iter().flat_map(|one| &one.attachments).any(|one| one.kind == "item"));
    let mut changed = after.clone();
    changed[0].bcc.clear();
    changed[0].subject.push('x');
    changed[1].attachments.push(crate::TruthAttachment {
        name: "n".into(),
        content_type: "t".into(),
        is_inline: false,
        content_id: None,
        size: 1,
        blake3: "b".into(),
        kind: "file".into(),
    });
    assert!(crate::differences(&before, &changed).len() >= 2);
}
