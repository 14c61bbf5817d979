use std::sync::{Arc, Mutex};

use axum::{
    body::Body,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures::StreamExt as _;

use super::*;
use crate::QuickXorHash;

const CONTENT: &[u8] = b"0123456789abcdefghij";

fn hash() -> String {
    let mut hash = QuickXorHash::new();
    hash.update(CONTENT);
    hash.finish()
}

/// The item, with an address on the download host.
fn item(host: &str, path: &str) -> Value {
    value!({
        "id": "i", "name": "n", "size": CONTENT.len(), "cTag": "c1",
        "file": {"hashes": {"quickXorHash": hash()}},
        "@microsoft.graph.downloadUrl": format!("{host}{path}"),
    })
}

/// What a download host answers to a range, or to none.
fn ranged(seen: &Seen, content: &[u8]) -> Response {
    let total = content.len();
    let Some(range) = seen.header("range").and_then(|range| range.strip_prefix("bytes=")) else {
        return content.to_vec().into_response();
    };
    let (start, end) = range.split_once('-').unwrap();
    let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
    let response = (StatusCode::PARTIAL_CONTENT, content[start..=end].to_vec()).into_response();
    with_header(response, "content-range", &format!("bytes {start}-{end}/{total}"))
}

/// The first bytes of an answer that breaks off.
fn broken(response: Response, bytes: usize) -> Response {
    let (parts, _) = with_header(response, "content-length", &CONTENT.len().to_string()).into_parts();
    let pieces = futures::stream::iter([Ok(Bytes::copy_from_slice(&CONTENT[..bytes])), Err("broken")]);
    // What came is sent while the rest is waited for.
    let pieces = pieces.then(async |piece| {
        if piece.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        piece
    });
    Response::from_parts(parts, Body::from_stream(pieces))
}

async fn read(download: &mut DriveDownload) -> Result<Vec<u8>, GraphError> {
    let mut all = Vec::new();
    while let Some(piece) = download.next().await? {
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

/// A Graph server whose item is at the download host, and the two of them.
async fn graph(host: &Server) -> Server {
    let host = host.url.clone();
    Server::start(move |n, _| json(200, item(&host, &format!("/file{n}")).to_string())).await
}

async fn source(graph: &Server) -> DriveContent {
    DriveContent::of_item("d", &graph.client().drive_item("d", "i").await.unwrap())
}

#[tokio::test]
async fn content_comes_from_another_host_without_the_token_and_is_checked() {
    let host = Server::start(|_, seen| ranged(seen, CONTENT)).await;
    let graph = graph(&host).await;
    let content = source(&graph).await;
    assert!(!format!("{content:?}").contains("file0"));
    let mut download = graph.client().drive_download(content);
    assert_eq!(read(&mut download).await.unwrap(), CONTENT);
    assert_eq!((download.check(), download.offset()), (ContentCheck::Matches, 20));
    let seen = &host.seen()[0];
    assert_eq!((seen.header("authorization"), seen.header("range")), (None, None));
    assert_eq!((seen.header("accept"), seen.header("accept-encoding")), (Some("*/*"), Some("identity")));
    assert_eq!(graph.seen().len(), 1, "the address was there already");
    graph.assert_described();
}

#[tokio::test]
async fn a_download_goes_on_where_it_broke_whether_or_not_ranges_are_taken() {
    for takes_ranges in [true, false] {
        let host = Server::start(move |n, seen| match n {
            0 => broken(ranged(seen, CONTENT), 7),
            _ if takes_ranges => ranged(seen, CONTENT),
            _ => CONTENT.to_vec().into_response(),
        })
        .await;
        let graph = graph(&host).await;
        let mut download = graph.client().drive_download(source(&graph).await);
        assert_eq!(read(&mut download).await.unwrap(), CONTENT);
        assert_eq!(download.check(), ContentCheck::Matches);
        assert_eq!(host.seen()[1].header("range"), Some("bytes=7-19"));
        assert_eq!(host.seen().len(), 2);
    }
}

#[tokio::test]
async fn a_host_that_gives_less_than_was_asked_for_is_asked_again() {
    let host = Server::start(|_, seen| match seen.header("range") {
        Some("bytes=5-19") => {
            let part = (StatusCode::PARTIAL_CONTENT, CONTENT[5..9].to_vec()).into_response();
            with_header(part, "content-range", "bytes 5-8/20")
        }
        _ => ranged(seen, CONTENT),
    })
    .await;
    let graph = graph(&host).await;
    let mut download = graph.client().drive_download_part(source(&graph).await, 5..20);
    assert_eq!(read(&mut download).await.unwrap(), &CONTENT[5..]);
    assert_eq!(host.seen()[1].header("range"), Some("bytes=9-19"));
}

#[tokio::test]
async fn a_host_that_always_breaks_is_given_up() {
    let host = Server::start(|_, seen| broken(ranged(seen, CONTENT), 0)).await;
    let graph = graph(&host).await;
    let client = graph.client_with(|options| options.max_attempts = 2);
    let error = read(&mut client.drive_download(source(&graph).await)).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Retry);
    assert_eq!(host.seen().len(), 2);
}

#[tokio::test]
async fn an_expired_address_is_replaced_once() {
    for status in [401, 403, 404] {
        let host = Server::start(move |_, seen| match seen.uri.path() {
            "/file0" => json(status, ""),
            _ => ranged(seen, CONTENT),
        })
        .await;
        let graph = graph(&host).await;
        let mut download = graph.client().drive_download(source(&graph).await);
        assert_eq!(read(&mut download).await.unwrap(), CONTENT, "{status}");
        assert_eq!((graph.seen().len(), host.seen().len()), (2, 2));
    }
    let host = Server::start(|_, _| json(403, "")).await;
    let graph = graph(&host).await;
    let error = read(&mut graph.client().drive_download(source(&graph).await)).await.unwrap_err();
    assert_eq!((error.class(), graph.seen().len()), (ErrorClass::SkipItem, 2));
}

#[tokio::test]
async fn a_file_that_changes_meanwhile_begins_anew() {
    // (the version that the download host names, the length it names) after the break
    for (etag, content) in [("\"2\"", CONTENT), ("\"1\"", &CONTENT[..19])] {
        let host = Server::start(move |n, seen| match n {
            0 => with_header(broken(ranged(seen, CONTENT), 7), "etag", "\"1\""),
            _ => {
                let total = content.len();
                let part = (StatusCode::PARTIAL_CONTENT, content[7..].to_vec()).into_response();
                let part = with_header(part, "content-range", &format!("bytes 7-{}/{total}", total - 1));
                with_header(part, "etag", etag)
            }
        })
        .await;
        let graph = graph(&host).await;
        let error = read(&mut graph.client().drive_download(source(&graph).await)).await.unwrap_err();
        assert!(matches!(error, GraphError::Changed), "{error:?}");
        assert_eq!((error.class(), error.code()), (ErrorClass::Reread, "changed"));
    }
}

#[tokio::test]
async fn an_item_that_changed_while_its_address_expired_begins_anew() {
    let host = Server::start(|_, _| json(404, "")).await;
    let url = host.url.clone();
    let graph = Server::start(move |n, _| {
        let mut item = item(&url, "/x");
        item["cTag"] = value!(format!("c{n}"));
        json(200, item.to_string())
    })
    .await;
    let error = read(&mut graph.client().drive_download(source(&graph).await)).await.unwrap_err();
    assert!(matches!(error, GraphError::Changed), "{error:?}");
}

#[tokio::test]
async fn parts_are_exact_and_their_hashes_join() {
    for takes_ranges in [true, false] {
        let host = Server::start(move |_, seen| {
            if takes_ranges { ranged(seen, CONTENT) } else { CONTENT.to_vec().into_response() }
        })
        .await;
        let graph = graph(&host).await;
        let (client, content) = (graph.client(), source(&graph).await);
        let mut head = client.drive_download_part(content.clone(), 0..7);
        let mut tail = client.drive_download_part(content, 7..20);
        assert_eq!(read(&mut tail).await.unwrap(), &CONTENT[7..]);
        assert_eq!(read(&mut head).await.unwrap(), &CONTENT[..7]);
        assert_eq!((head.check(), tail.check()), (ContentCheck::NoHash, ContentCheck::NoHash));
        let mut joined = head.hash().clone();
        joined.join(tail.hash());
        assert_eq!(joined.finish(), hash());
        let ranges: Vec<_> = host.seen().iter().map(|seen| seen.header("range").map(str::to_owned)).collect();
        assert_eq!(ranges, [Some("bytes=7-19".to_owned()), Some("bytes=0-6".to_owned())]);
    }
}

#[tokio::test]
async fn infected_content_is_skipped_whatever_the_status() {
    for status in [200, 403, 500] {
        let host =
            Server::start(move |_, _| with_header(json(status, "x"), "x-virus-infected", "true")).await;
        let graph = graph(&host).await;
        let error = read(&mut graph.client().drive_download(source(&graph).await)).await.unwrap_err();
        assert_eq!((error.class(), error.code()), (ErrorClass::SkipItem, "malwareDetected"), "{status}");
        assert_eq!((host.seen().len(), graph.seen().len()), (1, 1), "{status}");
    }
}

#[tokio::test]
async fn what_is_whole_but_other_than_said_is_reported_not_refused() {
    let other = Server::start(|_, _| b"another content, longer".to_vec().into_response()).await;
    let graph = graph(&other).await;
    let mut download = graph.client().drive_download(source(&graph).await);
    assert_eq!(read(&mut download).await.unwrap(), b"another content, longer");
    assert_eq!(download.check(), ContentCheck::Differs);
}

#[tokio::test]
async fn an_empty_file_is_not_asked_for() {
    let server = Server::start(|_, _| json(500, "")).await;
    let item: DriveItem = DriveItem::from_object(br#"{"id":"i","size":0,"file":{}}"#).unwrap();
    let mut download = server.client().drive_download(DriveContent::of_item("d", &item));
    assert_eq!(download.next().await.unwrap(), None);
    assert_eq!((download.check(), server.seen().len()), (ContentCheck::NoHash, 0));
}

#[tokio::test]
async fn an_earlier_version_is_found_by_a_redirect_that_is_not_followed_with_the_token() {
    let host = Server::start(|_, seen| ranged(seen, CONTENT)).await;
    let url = host.url.clone();
    let graph = Server::start(move |_, seen| match seen.uri.path().rsplit('/').next().unwrap() {
        "content" => with_header(json(302, ""), "location", &format!("{url}/old")),
        "versions" => json(
            200,
            page(&[
                value!({"id": "2.0", "size": 9, "lastModifiedDateTime": "2024-05-01T10:00:05Z", "x": 1}),
                value!({"id": "1.0", "size": CONTENT.len()}),
            ]),
        ),
        _ => json(200, r#"{"id":"i","file":{}}"#),
    })
    .await;
    let client = graph.client();
    let item = client.drive_item("d", "i").await.unwrap();
    let versions = client.drive_versions("d", "i").await.unwrap();
    assert_eq!(versions[0].modified_ms, Some(1_714_557_605_000));
    assert!(versions[0].raw.ends_with(br#""x":1}"#));
    let mut download = client.drive_download(DriveContent::of_version("d", &item, &versions[1]));
    assert_eq!(read(&mut download).await.unwrap(), CONTENT);
    assert_eq!(download.check(), ContentCheck::NoHash);
    assert_eq!(graph.seen()[2].uri.path(), "/v1.0/drives/d/items/i/versions/1.0/content");
    assert_eq!(host.seen()[0].header("authorization"), None);
    graph.assert_described();
}

#[tokio::test]
async fn a_part_of_a_notebook_that_is_not_to_be_had_is_skipped() {
    let host = Server::start(|_, _| json(503, "")).await;
    let url = host.url.clone();
    let graph = Server::start(move |_, _| {
        let mut item = item(&url, "/x");
        item["file"]["mimeType"] = value!("application/msonenote");
        json(200, item.to_string())
    })
    .await;
    let client = graph.client_with(|options| options.max_attempts = 1);
    let error = read(&mut client.drive_download(source(&graph).await)).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::SkipItem);
}

#[tokio::test]
async fn a_throttled_download_pauses_sharepoint_and_goes_on_later() {
    let is_busy = Arc::new(Mutex::new(true));
    let busy = is_busy.clone();
    let host = Server::start(move |_, seen| match *busy.lock().unwrap() {
        true => with_header(json(429, ""), "retry-after", "0.1"),
        false => ranged(seen, CONTENT),
    })
    .await;
    let graph = graph(&host).await;
    let client = graph.client_with(|options| options.max_attempts = 1);
    let mut download = client.drive_download(source(&graph).await);
    assert_eq!(download.next().await.unwrap_err().class(), ErrorClass::Wait);
    *is_busy.lock().unwrap() = false;
    assert_eq!(read(&mut download).await.unwrap(), CONTENT);
    assert_eq!(download.check(), ContentCheck::Matches);
}

#[tokio::test]
async fn the_bytes_of_a_download_are_charged_before_they_come() {
    let host = Server::start(|_, seen| ranged(seen, CONTENT)).await;
    let graph = graph(&host).await;
    let content = source(&graph).await;
    let clock = crate::testing::TestClock::shared();
    let limits = crate::QuotaLimits { sharepoint_egress_bytes: 30, ..crate::QuotaLimits::default() };
    let ledger = Arc::new(crate::LocalLedger::new(limits, clock.clone()));
    let client = graph.client_on(ledger, clock, |_| {});
    read(&mut client.drive_download(content.clone())).await.unwrap();
    let error = read(&mut client.drive_download(content)).await.unwrap_err();
    assert!(matches!(error, GraphError::Throttled { code: None, .. }), "{error}");
    assert_eq!(host.seen().len(), 1);
}
