mod content;
mod upload;

use serde_json::{Value, json as value};

use super::*;
use crate::{
    ErrorClass,
    testing::{Seen, Server, json, refusal, with_header},
};

fn page(items: &[Value]) -> String {
    value!({ "value": items }).to_string()
}

fn body(seen: &Seen) -> Value {
    serde_json::from_slice(&seen.body).unwrap()
}

#[tokio::test]
async fn a_drive_that_was_never_opened_is_none_and_a_locked_one_fails_the_resource() {
    let answers: [(u16, &'static str, &'static str); 3] = [
        (404, "ResourceNotFound", "User's mysite not found."),
        (404, "itemNotFound", "x"),
        (403, "accessDenied", "locked"),
    ];
    for (status, code, message) in answers {
        let body =
            value!({"error": {"code": code, "message": message, "innerError": {"code": "notAllowed"}}});
        let server = Server::start(move |_, _| json(status, body.to_string())).await;
        let result = server.client().user_drive("u").await;
        match status {
            404 => assert_eq!(result.unwrap(), None),
            _ => assert_eq!(result.unwrap_err().class(), ErrorClass::FailResource),
        }
    }
    let drive = value!({"id": "d", "driveType": "business", "quota": {"used": 7}, "new": {"a": 1}});
    let server = Server::start(move |_, seen| {
        let is_list = seen.uri.path().ends_with("drives");
        json(200, if is_list { page(std::slice::from_ref(&drive)) } else { drive.to_string() })
    })
    .await;
    let client = server.client();
    let found = client.user_drive("u").await.unwrap().unwrap();
    assert_eq!((found.id.as_str(), found.used_bytes, &found.raw["new"]["a"]), ("d", Some(7), &value!(1)));
    assert_eq!(client.user_drives("u").await.unwrap(), [found]);
    server.assert_described();
}

#[tokio::test]
async fn a_crawl_keeps_everything_but_the_address_of_the_content() {
    let file = r#"{"@microsoft.graph.downloadUrl":"https://x/secret?tempauth=1","id":"f","name":"a b.txt","size":12,"parentReference":{"driveId":"d","id":"root"},"file":{"mimeType":"text/plain","hashes":{"quickXorHash":"aCgDG9jwBhDc4Q1yawMZAAAAAAA="}},"fileSystemInfo":{"createdDateTime":"2024-05-01T10:00:05Z"},"lastModifiedDateTime":"2024-05-02T10:00:05Z","shared":{},"future":[1.50]}"#;
    let rest = [
        value!({"id": "root", "root": {}, "folder": {"childCount": 2}, "parentReference": {"id": "?"}}),
        value!({"id": "gone", "deleted": {"state": "deleted"}, "parentReference": {"id": "root"}}),
        value!({"id": "n", "name": "Notes", "package": {"type": "oneNote"}, "folder": {}}),
        value!({"id": "l", "remoteItem": {"id": "x"}, "file": {}}),
        value!({"id": "m", "file": {}, "malware": {"description": "x"}, "@microsoft.graph.sharedChanged": "True"}),
        value!({"id": "?", "novelty": {}}),
    ];
    let server = Server::start(move |n, seen| {
        let host = seen.header("host").unwrap();
        match n {
            0 => json(200, format!(r#"{{"value":[{file}],"@odata.nextLink":"http://{host}/v1.0/drives/d/root/delta?token=n"}}"#)),
            _ => {
                let link = format!("http://{host}/v1.0/drives/d/root/delta?token=d");
                json(200, value!({"value": rest, "@odata.deltaLink": link}).to_string())
            }
        }
    })
    .await;
    let client = server.client();
    let first = client.drive_delta("d", None).await.unwrap();
    let Change::Present(item) = &first.items[0] else { panic!("removed") };
    assert_eq!((item.name.as_str(), item.size, item.parent_id.as_deref()), ("a b.txt", 12, Some("root")));
    assert_eq!(item.hash(), Some("aCgDG9jwBhDc4Q1yawMZAAAAAAA="));
    assert_eq!((item.created_ms, item.modified_ms), (Some(1_714_557_605_000), Some(1_714_644_005_000)));
    assert!(item.is_shared && !item.sharing_changed && !item.has_malware && item.download_url.is_some());
    let raw = String::from_utf8(item.raw.to_vec()).unwrap();
    assert!(raw.ends_with(r#""shared":{},"future":[1.50]}"#) && raw.starts_with(r#"{"id":"f","#), "{raw}");
    assert!(!format!("{item:?}").contains("secret"));

    let last = client.drive_delta("d", first.next.as_deref()).await.unwrap();
    assert!(last.delta.unwrap().ends_with("token=d"));
    assert_eq!(last.items[1], Change::Removed { id: "gone".into(), reason: "deleted".into() });
    let kinds: Vec<_> = last
        .items
        .iter()
        .filter_map(|change| match change {
            Change::Present(item) => Some((item.is_root, item.is_notebook(), item.kind.clone())),
            Change::Removed { .. } => None,
        })
        .collect();
    let folder = DriveItemKind::Folder { child_count: Some(2) };
    let package = DriveItemKind::Package { kind: "oneNote".into() };
    let file = DriveItemKind::File { mime_type: None, hash: None };
    assert_eq!(
        kinds,
        [
            (true, false, folder),
            (false, true, package),
            (false, false, DriveItemKind::Remote),
            (false, false, file),
            (false, false, DriveItemKind::Unknown),
        ]
    );
    assert!(matches!(&last.items[0], Change::Present(root) if root.parent_id.is_none()));
    assert!(matches!(&last.items[4], Change::Present(bad) if bad.has_malware && bad.sharing_changed));

    let seen = server.seen();
    assert_eq!(seen[0].uri.to_string(), "/v1.0/drives/d/root/delta?$top=500");
    assert_eq!(seen[0].header("prefer"), Some("hierarchicalsharing"));
    assert_eq!(seen[1].header("prefer"), Some("hierarchicalsharing"));
    server.assert_described();
}

#[tokio::test]
async fn a_dead_token_says_where_the_enumeration_begins_again() {
    let server = Server::start(|_, seen| {
        let host = seen.header("host").unwrap();
        let link = format!("http://{host}/v1.0/drives/d/root/delta?token=scratch");
        let inner = r#"{"error":{"code":"resyncRequired","message":"m","innerError":{"code":"resyncChangesUploadDifferences"}}}"#;
        match seen.uri.query().unwrap_or_default() {
            "token=scratch" => json(200, page(&[value!({"id": "f", "file": {}})])),
            _ => with_header(json(410, inner), "location", &link),
        }
    })
    .await;
    let client = server.client();
    let link = format!("{}/v1.0/drives/d/root/delta?token=dead", server.url);
    let error = client.drive_delta("d", Some(&link)).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (ErrorClass::Resync, "resyncChangesUploadDifferences"));
    let GraphError::Status(status) = error else { panic!("{error}") };
    let again = client.drive_delta("d", status.restart_link.as_deref()).await.unwrap();
    assert_eq!(again.items.len(), 1);
}

#[tokio::test]
async fn the_delta_link_of_now_is_had_without_a_crawl() {
    let server = Server::start(|_, _| json(200, r#"{"value":[],"@odata.deltaLink":"https://x/now"}"#)).await;
    assert_eq!(server.client().drive_delta_from_now("d").await.unwrap(), "https://x/now");
    assert_eq!(server.seen()[0].uri.query(), Some("token=latest"));
    let server = Server::start(|_, _| json(200, page(&[]))).await;
    assert!(server.client().drive_delta_from_now("d").await.is_err());
}

#[tokio::test]
async fn permissions_say_whether_they_are_the_items_own() {
    let own = value!({"id": "p", "roles": ["write"], "link": {"type": "edit", "scope": "anonymous", "webUrl": "x"}, "hasPassword": true});
    let inherited = value!({"id": "q", "roles": ["read"], "inheritedFrom": {"id": "root"}, "grantedToV2": {"user": {"id": "u"}}});
    let nobody = value!({"id": "r", "inheritedFrom": null});
    let server =
        Server::start(move |_, _| json(200, page(&[own.clone(), inherited.clone(), nobody.clone()]))).await;
    let found = server.client().drive_permissions("d", "i").await.unwrap();
    assert_eq!(found.iter().map(|p| p.is_inherited).collect::<Vec<_>>(), [false, true, false]);
    assert!(found[0].has_password && found[0].roles == ["write"]);
    assert_eq!(found[0].link.as_ref().unwrap().scope.as_deref(), Some("anonymous"));
    assert_eq!(found[1].raw["grantedToV2"]["user"]["id"], "u");
    server.assert_described();
}

#[tokio::test]
async fn giving_permissions_back_tells_nobody() {
    let server = Server::start(|_, seen| match seen.uri.path().rsplit('/').next().unwrap() {
        "invite" => json(200, page(&[value!({"id": "p", "roles": ["read"]})])),
        "createLink" => json(201, r#"{"id":"l","link":{"type":"view","scope":"organization"}}"#),
        _ => refusal(404, "itemNotFound"),
    })
    .await;
    let client = server.client();
    let grant =
        NewGrant { object_ids: vec!["u".into()], addresses: vec!["g@y".into()], roles: vec!["read".into()] };
    assert_eq!(client.grant_drive_permission("d", "i", &grant).await.unwrap()[0].id, "p");
    let link = NewLink {
        kind: "view".into(),
        scope: "organization".into(),
        expires: Some("2030-01-01T00:00:00Z".into()),
    };
    assert_eq!(client.create_drive_link("d", "i", &link).await.unwrap().id, "l");
    client.delete_drive_permission("d", "i", "p").await.unwrap();
    let seen = server.seen();
    let expected = value!({"recipients": [{"objectId": "u"}, {"email": "g@y"}], "roles": ["read"], "requireSignIn": true, "sendInvitation": false});
    assert_eq!(body(&seen[0]), expected);
    let made = body(&seen[1]);
    assert_eq!(
        (&made["sendNotification"], &made["expirationDateTime"]),
        (&value!(false), &value!("2030-01-01T00:00:00Z"))
    );
    assert!(made.get("recipients").is_none());
    server.assert_described();
}

#[tokio::test]
async fn each_kind_of_call_is_charged_its_units() {
    let server = Server::start(|_, seen| match seen.uri.path().rsplit('/').next().unwrap() {
        "i" => json(200, r#"{"id":"i","file":{}}"#),
        _ => json(200, page(&[])),
    })
    .await;
    let clock = crate::testing::TestClock::shared();
    let ledger = std::sync::Arc::new(crate::LocalLedger::new(crate::QuotaLimits::default(), clock.clone()));
    let client = server.client_on(ledger.clone(), clock, |_| {});
    let key = client.quota_key(Scope::SharePoint);
    let mut before = 0;
    let mut charged = async || {
        let used = crate::QuotaLedger::usage(&*ledger, &key).await[0].used;
        std::mem::replace(&mut before, used).abs_diff(used)
    };
    client.drive_item("d", "i").await.unwrap();
    assert_eq!(charged().await, 1);
    client.drive_delta("d", None).await.unwrap();
    assert_eq!(charged().await, 2);
    let link = format!("{}/v1.0/drives/d/root/delta?token=t", server.url);
    client.drive_delta("d", Some(&link)).await.unwrap();
    assert_eq!(charged().await, 1);
    client.drive_permissions("d", "i").await.unwrap();
    assert_eq!(charged().await, 5);
    client.delete_drive_item("d", "i").await.unwrap();
    assert_eq!(charged().await, 2);
}

#[tokio::test]
async fn what_microsoft_says_is_left_slows_everybody_down_before_a_429() {
    let server = Server::start(|n, _| {
        let good = json(200, r#"{"id":"i","file":{}}"#);
        if n > 0 {
            return good;
        }
        with_header(with_header(good, "RateLimit-Remaining", "0"), "RateLimit-Reset", "30")
    })
    .await;
    let client = server.client_with(|options| options.max_wait = std::time::Duration::from_secs(1));
    client.drive_item("d", "i").await.unwrap();
    let refused = client.drive_item("d", "i").await.unwrap_err();
    assert!(matches!(refused, GraphError::Throttled { code: None, .. }), "{refused}");
    assert_eq!(server.seen().len(), 1);
}
