use serde_json::json as value;

use super::*;
use crate::{
    AttachmentKind, AttachmentOwner, NewAttachment,
    testing::{Server, json, with_header},
};

fn page(items: &[Value]) -> String {
    value!({ "value": items }).to_string()
}

#[tokio::test]
async fn lists_say_which_of_them_only_shows_flagged_mail() {
    let lists = [
        value!({"id": "a", "displayName": "Tasks", "wellknownListName": "defaultList", "isOwner": true}),
        value!({"id": "b", "wellknownListName": "flaggedEmails"}),
        value!({"id": "c", "wellknownListName": "none", "isOwner": false}),
        value!({"id": "d", "@removed": {"reason": "deleted"}}),
    ];
    let server = Server::start(move |_, _| json(200, page(&lists))).await;
    let found = server.client().todo_lists_delta("u", None).await.unwrap();
    let present: Vec<_> = found
        .items
        .iter()
        .filter_map(|change| match change {
            Change::Present(list) => Some((list.is_flagged_mail(), list.well_known.is_some(), list.is_owner)),
            Change::Removed { .. } => None,
        })
        .collect();
    assert_eq!(present, [(false, true, true), (true, true, true), (false, false, false)]);
    assert_eq!(server.seen()[0].header("prefer"), Some("odata.maxpagesize=100"));
    server.assert_described();
}

#[tokio::test]
async fn a_task_and_what_hangs_on_it_are_kept_as_they_come() {
    let raw = r#"{"@odata.etag":"W/\"k\"","id":"t","title":"buy","hasAttachments":true,"future":{"x":1.50}}"#;
    let server = Server::start(move |_, seen| match seen.uri.path().rsplit('/').next().unwrap() {
        "delta" => json(200, format!(r#"{{"value":[{raw}],"@odata.deltaLink":"d"}}"#)),
        "t" => json(200, raw),
        "attachments" => json(200, page(&[value!({"@odata.type": "#microsoft.graph.taskFileAttachment", "id": "a", "name": "n", "size": 5})])),
        "$value" => json(200, "bytes"),
        _ => json(200, page(&[value!({"id": "x", "odd": 1})])),
    })
    .await;
    let client = server.client();
    let delta = client.todo_tasks_delta("u", "l", None).await.unwrap();
    let Change::Present(task) = &delta.items[0] else { panic!("removed") };
    assert_eq!((task.change_key.as_str(), task.has_attachments, &task.raw[..]), ("k", true, raw.as_bytes()));
    assert_eq!(client.todo_task("u", "l", "t").await.unwrap(), **task);
    for part in [TodoTaskPart::ChecklistItems, TodoTaskPart::LinkedResources] {
        assert_eq!(client.todo_task_part("u", "l", "t", part).await.unwrap()[0]["odd"], 1);
    }
    let owner = AttachmentOwner::TodoTask { list: "l", task: "t" };
    let attachments = client.attachments_of("u", owner).await.unwrap();
    assert_eq!((&attachments[0].kind, attachments[0].size), (&AttachmentKind::File, 5));
    let value = client.attachment_value_of("u", owner, "a").await.unwrap();
    assert_eq!(value.read_all(10).await.unwrap(), "bytes");
    server.assert_described();
}

#[tokio::test]
async fn lists_tasks_and_parts_are_created_once() {
    let server =
        Server::start(|n, _| if n < 3 { json(201, format!(r#"{{"id":"{n}"}}"#)) } else { json(502, "") })
            .await;
    let client = server.client();
    assert_eq!(client.create_todo_list("u", &value!({"displayName": "l"})).await.unwrap(), "0");
    assert_eq!(client.create_todo_task("u", "0", &value!({"title": "t"})).await.unwrap(), "1");
    let step = value!({"displayName": "s"});
    let part = TodoTaskPart::ChecklistItems;
    assert_eq!(client.create_todo_task_part("u", ("0", "1"), part, &step).await.unwrap(), "2");
    let lost = client.create_todo_task("u", "0", &value!({})).await.unwrap_err();
    assert!(matches!(lost, GraphError::Ambiguous { .. }), "{lost:?}");
    server.assert_described();
}

#[tokio::test]
async fn an_attachment_of_a_task_is_uploaded_within_graph_with_the_token() {
    let server = Server::start(|_, seen| {
        let session = "/v1.0/users/u/todo/lists/l/tasks/t/attachmentSessions/s";
        match seen.method.as_str() {
            "POST" => {
                let url = format!("http://{}{session}", seen.header("host").unwrap());
                json(201, value!({ "uploadUrl": url }).to_string())
            }
            _ if seen.header("content-range") == Some("bytes 0-3/6") => {
                json(200, r#"{"NextExpectedRanges":["4"]}"#)
            }
            _ => with_header(json(201, ""), "location", "https://x/tasks/t/Attachments/AA%3D"),
        }
    })
    .await;
    let client = server.client();
    let attachment = NewAttachment {
        name: "n".into(),
        size: 6,
        content_type: Some("text/plain".into()),
        is_inline: false,
        content_id: None,
    };
    let mut session = client.create_task_upload_session("u", ("l", "t"), &attachment).await.unwrap();
    client.upload_piece(&mut session, Bytes::from_static(b"0123")).await.unwrap();
    assert_eq!(
        client.upload(&mut session, &Bytes::from_static(b"012345")).await.unwrap().as_deref(),
        Some("AA=")
    );
    let seen = server.seen();
    let info = value!({"attachmentType": "file", "name": "n", "size": 6, "contentType": "text/plain"});
    assert_eq!(serde_json::from_slice::<Value>(&seen[0].body).unwrap(), value!({ "attachmentInfo": info }));
    for piece in &seen[1..] {
        assert!(piece.uri.path().ends_with("/attachmentSessions/s/content"));
        assert_eq!(piece.header("authorization"), Some("Bearer token-1"));
    }
    server.assert_described();
}

#[tokio::test]
async fn tasks_are_found_by_the_restore_key_in_their_extension() {
    let mut marked =
        value!({"id": "a", "title": "t", "extensions": [{"extensionName": "other", "restoreKey": "x"}]});
    marked["extensions"].as_array_mut().unwrap().push(restore_extension("key"));
    let tasks = [marked, value!({"id": "b", "extensions": []}), value!({"id": "c"})];
    let server = Server::start(move |_, _| json(200, page(&tasks))).await;
    let found = server.client().todo_tasks_by_restore_key("u", "l", None).await.unwrap().items;
    let marks: Vec<_> = found.iter().map(|task| (task.id.as_str(), task.value.as_deref())).collect();
    assert_eq!(marks, [("a", Some("key")), ("b", None), ("c", None)]);
    server.assert_described();
}
