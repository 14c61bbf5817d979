use serde_json::json as value;

use super::*;
use crate::testing::{Server, json, refusal};

#[tokio::test]
async fn rules_categories_and_settings_are_read_and_written_as_microsoft_describes() {
    let server = Server::start(|_, seen| {
        let path = seen.uri.path().trim_start_matches("/v1.0/users/u/");
        match (seen.method.as_str(), path) {
            ("GET", "mailFolders/inbox/messageRules") => json(
                200,
                value!({"value": [{"id": "r", "displayName": "R", "isReadOnly": true, "future": 1}]})
                    .to_string(),
            ),
            ("GET", "outlook/masterCategories") => json(
                200,
                value!({"value": [{"id": "c", "displayName": "Red", "color": "preset0"}]}).to_string(),
            ),
            ("GET", "mailboxSettings") => {
                json(200, value!({"@odata.context": "x", "timeZone": "UTC"}).to_string())
            }
            ("POST", _) => json(201, value!({"id": "new", "displayName": "N", "color": "none"}).to_string()),
            ("PATCH", _) => json(200, "{}"),
            _ => refusal(404, "ErrorItemNotFound"),
        }
    })
    .await;
    let client = server.client();
    let rules = client.inbox_rules("u").await.unwrap();
    assert!(rules[0].is_read_only && rules[0].raw["future"] == 1);
    let categories = client.mail_categories("u").await.unwrap();
    assert_eq!((categories[0].display_name.as_str(), categories[0].color.as_str()), ("Red", "preset0"));
    assert_eq!(client.mailbox_settings("u").await.unwrap(), value!({"timeZone": "UTC"}));
    let rule = value!({"displayName": "N", "sequence": 1, "isEnabled": false, "actions": {"moveToFolder": "f"},
        "conditions": {"subjectContains": ["x"]}});
    assert_eq!(client.create_inbox_rule("u", &rule).await.unwrap().id, "new");
    client.change_inbox_rule("u", "r", &rule).await.unwrap();
    assert_eq!(client.create_mail_category("u", "N", "none").await.unwrap().id, "new");
    client.recolor_mail_category("u", "c", "preset1").await.unwrap();
    let settings = value!({"timeZone": "UTC", "automaticRepliesSetting": {"status": "disabled"}});
    client.change_mailbox_settings("u", &settings).await.unwrap();
    server.assert_described();
}

#[tokio::test]
async fn a_rule_whose_creation_is_unknown_is_not_made_twice() {
    let server = Server::start(|_, _| json(502, "")).await;
    let error = server.client().create_inbox_rule("u", &value!({"displayName": "x"})).await.unwrap_err();
    assert!(matches!(error, GraphError::Ambiguous { .. }), "{error:?}");
    assert_eq!(server.seen().len(), 1);
}
