use serde_json::json as value;

use super::*;
use crate::testing::{Server, json, refusal};

fn page(items: &[Value]) -> String {
    value!({ "value": items }).to_string()
}

fn folder(id: &str, parent: &str) -> Value {
    value!({"id": id, "displayName": id, "parentFolderId": parent})
}

#[tokio::test]
async fn all_folders_are_found_the_default_one_first_and_none_twice() {
    let server = Server::start(|_, seen| {
        let children = |of: &str| match of {
            "default" => page(&[folder("below", "default"), folder("listed", "default")]),
            "listed" => page(&[folder("deep", "listed")]),
            _ => page(&[]),
        };
        match seen.uri.path().trim_start_matches("/v1.0/users/u/contactFolders") {
            "/contacts" => json(200, folder("default", "root").to_string()),
            "" => json(200, page(&[folder("listed", "default"), folder("default", "root")])),
            path => json(200, children(path.trim_start_matches('/').split('/').next().unwrap())),
        }
    })
    .await;
    let folders = server.client().contact_folders("u").await.unwrap();
    let ids: Vec<_> = folders.iter().map(|folder| (folder.id.as_str(), folder.is_default)).collect();
    assert_eq!(ids, [("default", true), ("listed", false), ("below", false), ("deep", false)]);
    server.assert_described();
}

/// default ─ a ─ b, and c beside the default one; the delta shows what is nested or leaves it out.
async fn folders_by_delta(
    shown: &'static [&'static str],
    default: Option<&str>,
) -> (Vec<String>, Vec<String>) {
    let server = Server::start(move |_, seen| {
        let all = [("b", "a"), ("a", "default"), ("c", "root"), ("default", "root")];
        match seen.uri.path().trim_start_matches("/v1.0/users/u/contactFolders/") {
            "contacts" => json(200, folder("default", "root").to_string()),
            "delta" => {
                let listed = all.iter().filter(|(id, _)| shown.contains(id));
                json(200, page(&listed.map(|(id, parent)| folder(id, parent)).collect::<Vec<_>>()))
            }
            "a/childFolders" => json(200, page(&[folder("b", "a")])),
            _ => json(200, page(&[])),
        }
    })
    .await;
    let folders = server.client().contact_folders_by_delta("u", default).await.unwrap();
    server.assert_described();
    let seen = server.seen();
    let calls = seen.iter().map(|seen| seen.uri.path().rsplit('/').next().unwrap().to_owned());
    (folders.into_iter().map(|folder| folder.id).collect(), calls.collect())
}

#[tokio::test]
async fn a_delta_of_folders_is_believed_only_where_it_shows_what_is_nested() {
    let (folders, calls) = folders_by_delta(&["b", "a", "c", "default"], Some("default")).await;
    assert_eq!((folders.join(" ").as_str(), calls.join(" ").as_str()), ("default a c b", "delta"));
    let (folders, calls) = folders_by_delta(&["a", "c"], None).await;
    assert_eq!(folders.join(" "), "default a c b", "the walk finds what the delta leaves out");
    assert_eq!(calls.join(" "), "contacts delta childFolders childFolders childFolders");
    let (folders, calls) = folders_by_delta(&[], Some("default")).await;
    assert_eq!((folders.join(" ").as_str(), calls.join(" ").as_str()), ("default", "delta"));
}

#[tokio::test]
async fn a_delta_keeps_contacts_as_they_come_and_ids_immutable_on_every_page() {
    let raw = r#"{"@odata.etag":"W/\"CQ==\"","id":"c","parentFolderId":"f","displayName":"Ann","primaryEmailAddress":{"address":"a@b"},"future":1.50}"#;
    let server = Server::start(move |n, seen| {
        let link = format!("http://{}/v1.0/users/u/contactFolders/f/contacts/delta?$skiptoken=x", seen.header("host").unwrap());
        match n {
            0 => json(200, format!(r#"{{"value":[{raw}],"@odata.nextLink":"{link}"}}"#)),
            _ => json(200, r#"{"value":[{"id":"r","@removed":{"reason":"deleted"}},{"id":"p","displayName":"x"}],"@odata.deltaLink":"d"}"#),
        }
    })
    .await;
    let client = server.client();
    let first = client.contacts_delta("u", "f", None).await.unwrap();
    let Change::Present(contact) = &first.items[0] else { panic!("removed") };
    assert_eq!((contact.change_key.as_str(), contact.is_partial), ("CQ==", false));
    assert_eq!(contact.raw, raw.as_bytes());
    let last = client.contacts_delta("u", "f", first.next.as_deref()).await.unwrap();
    assert_eq!(last.items[0], Change::Removed { id: "r".into(), reason: "deleted".into() });
    assert!(matches!(&last.items[1], Change::Present(contact) if contact.is_partial));
    for seen in server.seen() {
        assert_eq!(seen.header("prefer"), Some(r#"odata.maxpagesize=250, IdType="ImmutableId""#));
    }
    server.assert_described();
}

#[tokio::test]
async fn a_contact_without_a_photo_has_none() {
    let server = Server::start(|n, _| match n {
        0 => json(200, "jpeg"),
        _ => refusal(404, "ImageNotFound"),
    })
    .await;
    let client = server.client();
    assert_eq!(client.contact_photo("u", "c").await.unwrap().unwrap(), "jpeg");
    assert_eq!(client.contact_photo("u", "c").await.unwrap(), None);
    assert_eq!(client.user_photo("u").await.unwrap(), None);
    server.assert_described();
}

#[tokio::test]
async fn a_contact_is_created_once_and_given_its_photo() {
    let server = Server::start(|n, seen| match (n, seen.method.as_str()) {
        (0, "POST") => json(201, r#"{"id":"new"}"#),
        (1, "PUT") => refusal(404, "ErrorItemNotFound"),
        (2, "PUT") => json(200, ""),
        (3, "DELETE") => refusal(404, "ErrorItemNotFound"),
        _ => json(502, ""),
    })
    .await;
    let client = server.client();
    assert_eq!(client.create_contact("u", "f", &value!({"givenName": "Ann"})).await.unwrap(), "new");
    let photo = Bytes::from_static(b"x");
    client.set_contact_photo("u", "new", photo.clone(), "image/jpeg").await.unwrap();
    assert_eq!(server.seen()[2].header("content-type"), Some("image/jpeg"));
    client.delete_contact("u", "new").await.unwrap();
    for result in [
        client.create_contact("u", "f", &value!({})).await.map(drop),
        client.create_contact_folder("u", "f", "n").await.map(drop),
    ] {
        assert!(matches!(result, Err(GraphError::Ambiguous { .. })), "{result:?}");
    }
    assert!(client.set_contact_photo("u", "new", photo, "image/\n").await.is_err());
    server.assert_described();
}

#[tokio::test]
async fn contacts_are_found_by_their_restore_key() {
    let marked = value!({"id": "m", "singleValueExtendedProperties": [{"id": "x", "value": "key"}]});
    let server = Server::start(move |_, _| json(200, page(&[marked.clone(), value!({"id": "n"})]))).await;
    let client = server.client();
    let property = "String {x} Name it's";
    let of_folder = client.contacts_by_property("u", "f", property, None).await.unwrap();
    let of_calendar = client.calendar_events_by_property("u", "c", property, None).await.unwrap();
    for items in [of_folder.items, of_calendar.items] {
        let marks: Vec<_> = items.iter().map(|item| (item.id.as_str(), item.value.as_deref())).collect();
        assert_eq!(marks, [("m", Some("key")), ("n", None)]);
        assert_eq!(items[1].raw, r#"{"id":"n"}"#);
    }
    assert!(server.seen()[0].uri.query().unwrap().contains("Name%20it%27%27s"));
    server.assert_described();
}
