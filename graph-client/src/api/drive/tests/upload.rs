use bytes::Bytes;

use super::*;

const UNIT: usize = 327_680;

fn file(size: u64) -> NewDriveFile {
    NewDriveFile {
        name: "a:b?.txt".into(),
        size,
        times: FileTimes { created: None, modified: Some("2024-05-01T10:00:05Z".into()) },
        conflict: NameConflict::Fail,
    }
}

fn opened(seen: &Seen) -> axum::response::Response {
    let url = format!("http://{}/up?tempauth=secret", seen.header("host").unwrap());
    json(200, value!({"uploadUrl": url, "expirationDateTime": "2030-01-01T00:00:00Z"}).to_string())
}

const UPLOADED: &str = r#"{"id":"new","name":"a","size":1,"file":{}}"#;

#[tokio::test]
async fn a_file_goes_in_even_fragments_without_the_token_and_comes_back_as_an_item() {
    let size = UNIT + 26;
    let server = Server::start(move |_, seen| match seen.header("content-range") {
        None => opened(seen),
        Some(range) if range.starts_with("bytes 0-") => json(202, r#"{"nextExpectedRanges":["327680-"]}"#),
        Some(_) => json(201, UPLOADED),
    })
    .await;
    let client = server.client();
    let mut upload = client.create_drive_upload("d", "p", &file(size as u64)).await.unwrap();
    assert!(!format!("{upload:?}").contains("secret"));
    assert_eq!(upload.fragment_size(), size);
    let content = Bytes::from(vec![7; size]);
    let first = client.upload_drive_fragment(&mut upload, content.slice(..UNIT)).await.unwrap();
    assert_eq!(first, DriveUploadProgress::More { next: UNIT as u64 });
    assert_eq!(upload.fragment_size(), 26);
    let last = client.upload_drive_fragment(&mut upload, content.slice(UNIT..)).await.unwrap();
    assert!(matches!(last, DriveUploadProgress::Done(item) if item.id == "new"));
    let seen = server.seen();
    assert_eq!(seen[0].uri.path(), "/v1.0/drives/d/items/p:/a%3Ab%3F.txt:/createUploadSession");
    let item = value!({"@microsoft.graph.conflictBehavior": "fail", "name": "a:b?.txt", "fileSize": size,
        "fileSystemInfo": {"lastModifiedDateTime": "2024-05-01T10:00:05Z"}});
    assert_eq!(body(&seen[0]), value!({ "item": item }));
    assert_eq!(seen[2].header("content-range"), Some("bytes 327680-327705/327706"));
    assert!(seen[1..].iter().all(|fragment| fragment.header("authorization").is_none()));
    server.assert_described();
}

#[tokio::test]
async fn fragments_that_would_fail_at_the_end_are_not_sent() {
    let server = Server::start(|_, seen| opened(seen)).await;
    let client = server.client();
    let size = 200 * UNIT as u64;
    let mut upload = client.create_drive_upload("d", "p", &file(size)).await.unwrap();
    assert_eq!(upload.fragment_size(), 10 << 20);
    for length in [0, 1, UNIT + 1, 192 * UNIT, 201 * UNIT] {
        let error =
            client.upload_drive_fragment(&mut upload, Bytes::from(vec![0; length])).await.unwrap_err();
        assert!(matches!(error, GraphError::Config { .. }), "{length}");
    }
    assert_eq!((server.seen().len(), upload.next_offset()), (1, 0));
}

#[tokio::test]
async fn after_a_lost_answer_the_session_says_how_far_it_got() {
    let server = Server::start(|n, seen| match n {
        0 => opened(seen),
        1 => json(504, ""),
        2 => refusal(416, "invalidRange"),
        3 => json(200, r#"{"nextExpectedRanges":["327680-655359","700000-"]}"#),
        _ => json(201, UPLOADED),
    })
    .await;
    let client = server.client();
    let mut upload = client.create_drive_upload("d", "p", &file(2 * UNIT as u64)).await.unwrap();
    let progress = client.upload_drive_fragment(&mut upload, Bytes::from(vec![1; UNIT])).await.unwrap();
    assert_eq!(progress, DriveUploadProgress::More { next: UNIT as u64 });
    let last = client.upload_drive_fragment(&mut upload, Bytes::from(vec![1; UNIT])).await.unwrap();
    assert!(matches!(last, DriveUploadProgress::Done(_)));
}

#[tokio::test]
async fn another_process_goes_on_where_the_session_is() {
    let server = Server::start(|_, _| json(200, r#"{"nextExpectedRanges":["327680-"]}"#)).await;
    let client = server.client();
    let mut upload = DriveUpload::reopen(&format!("{}/up", server.url), 2 * UNIT as u64);
    assert_eq!(client.drive_upload_status(&mut upload).await.unwrap(), UNIT as u64);
    assert_eq!(upload.next_offset(), UNIT as u64);
    assert_eq!((server.seen()[0].method.as_str(), server.seen()[0].header("authorization")), ("GET", None));
    client.cancel_drive_upload(upload).await.unwrap();
    assert_eq!(server.seen()[1].method, "DELETE");
}

#[tokio::test]
async fn a_session_that_is_gone_is_started_over_but_not_at_its_very_end() {
    let server =
        Server::start(|n, seen| if n == 0 { opened(seen) } else { refusal(404, "itemNotFound") }).await;
    let client = server.client();
    let mut upload = client.create_drive_upload("d", "p", &file(2 * UNIT as u64)).await.unwrap();
    let fragment = Bytes::from(vec![1; UNIT]);
    let error = client.upload_drive_fragment(&mut upload, fragment.clone()).await.unwrap_err();
    assert_eq!((error.class(), error.status()), (ErrorClass::Reread, Some(404)));
    upload = DriveUpload::reopen(upload.url(), UNIT as u64);
    let error = client.upload_drive_fragment(&mut upload, fragment).await.unwrap_err();
    assert!(matches!(error, GraphError::Ambiguous { .. }), "{error:?}");
}

#[tokio::test]
async fn a_name_that_is_taken_at_the_end_keeps_the_session_for_another_name() {
    let server = Server::start(|_, seen| match (seen.method.as_str(), seen.uri.path()) {
        ("POST", _) => opened(seen),
        ("PUT", "/up") => refusal(409, "nameAlreadyExists"),
        _ => json(201, UPLOADED),
    })
    .await;
    let client = server.client();
    let mut upload = client.create_drive_upload("d", "p", &file(4)).await.unwrap();
    let error = client.upload_drive_fragment(&mut upload, Bytes::from_static(b"0123")).await.unwrap_err();
    assert!(error.has_code("nameAlreadyExists") && error.class() == ErrorClass::Reread, "{error:?}");
    let item = client.commit_drive_upload("d", "A b/C", "other", &upload).await.unwrap();
    assert_eq!(item.id, "new");
    let commit = server.seen().pop().unwrap();
    assert_eq!(commit.uri.path(), "/v1.0/drives/d/root:/A%20b/C");
    assert_eq!(body(&commit)["@microsoft.graph.sourceUrl"], upload.url());
    assert_eq!(commit.header("authorization"), Some("Bearer token-1"));
}

#[tokio::test]
async fn new_content_of_a_file_is_a_new_version() {
    let server = Server::start(|_, seen| opened(seen)).await;
    let times = FileTimes { created: Some("2024-05-01T10:00:05Z".into()), modified: None };
    server.client().create_drive_version_upload("d", "i", 4, &times).await.unwrap();
    let seen = &server.seen()[0];
    assert_eq!(seen.uri.path(), "/v1.0/drives/d/items/i/createUploadSession");
    assert_eq!(body(seen)["item"]["fileSystemInfo"], value!({"createdDateTime": "2024-05-01T10:00:05Z"}));
    server.assert_described();
}

#[tokio::test]
async fn a_drive_that_is_full_fails_the_resource() {
    let server = Server::start(|_, _| refusal(507, "quotaLimitReached")).await;
    let error = server.client().create_drive_upload("d", "p", &file(4)).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::FailResource);
}

#[tokio::test]
async fn a_small_file_is_one_call_that_is_never_repeated_blindly() {
    for conflict in [NameConflict::Replace, NameConflict::Fail, NameConflict::Rename] {
        let server = Server::start(|n, _| if n == 0 { json(502, "") } else { json(201, UPLOADED) }).await;
        let (client, content) = (server.client(), Bytes::from_static(b"x"));
        let error = client.put_drive_file("d", "p", "a#b", content.clone(), conflict).await.unwrap_err();
        assert!(matches!(error, GraphError::Ambiguous { .. }), "{error:?}");
        assert_eq!(server.seen().len(), 1, "a second one would be a version too many");
        let written = client.put_drive_file("d", "p", "a#b", content, conflict).await.unwrap();
        assert_eq!(written.id, "new");
        let seen = &server.seen()[0];
        assert_eq!(seen.uri.path(), "/v1.0/drives/d/items/p:/a%23b:/content");
        assert_eq!(seen.header("content-type"), Some("application/octet-stream"));
        server.assert_described();
    }
    let server = Server::start(|_, _| json(201, UPLOADED)).await;
    let large = Bytes::from(vec![0; (10 << 20) + 1]);
    assert!(server.client().put_drive_file("d", "p", "a", large, NameConflict::Fail).await.is_err());
}

#[tokio::test]
async fn a_folder_that_is_there_is_returned_and_a_file_in_its_place_is_not() {
    for facet in ["folder", "package", "file"] {
        let server = Server::start(move |_, seen| match seen.method.as_str() {
            "POST" => refusal(409, "nameAlreadyExists"),
            _ => json(200, value!({"id": "there", "name": "a b", facet: {}}).to_string()),
        })
        .await;
        let result = server.client().create_drive_folder("d", "p", "a b").await;
        match facet {
            "folder" | "package" => assert_eq!(result.unwrap().id, "there"),
            _ => assert_eq!(result.unwrap_err().status(), Some(409)),
        }
        assert_eq!(server.seen()[1].uri.path(), "/v1.0/drives/d/items/p:/a%20b");
        server.assert_described();
    }
}

#[tokio::test]
async fn an_item_is_renamed_moved_and_dated_only_while_it_is_the_version_that_is_meant() {
    let server = Server::start(|n, _| match n {
        0 => json(200, UPLOADED),
        _ => refusal(412, "resourceModified"),
    })
    .await;
    let client = server.client();
    let update = DriveItemUpdate {
        name: Some("b".into()),
        parent_id: Some("q".into()),
        times: FileTimes { created: None, modified: Some("2024-05-01T10:00:05Z".into()) },
        if_match: Some("\"{x},3\"".into()),
    };
    client.update_drive_item("d", "i", &update).await.unwrap();
    let seen = &server.seen()[0];
    assert_eq!((seen.method.as_str(), seen.header("if-match")), ("PATCH", Some("\"{x},3\"")));
    let expected = value!({"name": "b", "parentReference": {"id": "q"}, "fileSystemInfo": {"lastModifiedDateTime": "2024-05-01T10:00:05Z"}});
    assert_eq!(body(seen), expected);
    let error = client.update_drive_item("d", "i", &update).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Reread);
    server.assert_described();
}
