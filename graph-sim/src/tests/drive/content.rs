use super::*;
use crate::FaultOptions;

async fn with(faults: FaultOptions) -> (DriveBench, Value) {
    let bench = open(SimOptions { faults, ..people_with_drives() }).await;
    let (items, _) = bench.crawl().await;
    let file = a_file(&items).clone();
    (bench, file)
}

fn download_url(item: &Value) -> &str {
    item["@microsoft.graph.downloadUrl"].as_str().unwrap()
}

#[tokio::test]
async fn content_is_elsewhere_and_has_the_size_and_the_hash_that_are_said() {
    let bench = open(people_with_drives()).await;
    let (items, _) = bench.crawl().await;
    for item in files(&items).take(40) {
        let location = bench.location(&format!("{}/content", bench.item(item))).await;
        for url in [&location, download_url(item)] {
            let response = bench.fetch(url).await;
            assert_eq!(response.headers()["etag"], item["eTag"].as_str().unwrap());
            assert_eq!(response.headers()["content-type"], item["file"]["mimeType"].as_str().unwrap());
            let bytes = response.bytes().await.unwrap();
            assert_eq!(bytes.len() as u64, item["size"].as_u64().unwrap());
            let kept = crate::blob::Data::Kept { hash: [0; 32], bytes };
            assert_eq!(crate::quick_xor::of(&kept), item["file"]["hashes"]["quickXorHash"].as_str().unwrap());
        }
    }
    let name = &bench.sim.users()[0].user_principal_name;
    assert_eq!(bench.sim.counters().requests[name]["drive_download"], 80);
}

#[tokio::test]
async fn an_address_takes_no_token_and_dies_with_its_time() {
    let (bench, file) = with(FaultOptions::default()).await;
    let url = download_url(&file);
    assert_eq!(bench.get(url).await.status(), 401, "the token would be given away");
    assert_eq!(bench.fetch(url).await.status(), 200);
    let forged = format!("{}x", &url[..url.len() - 1]);
    assert_eq!(bench.fetch(&forged).await.status(), 404);
    bench.clock.push(3_600_000);
    assert_eq!(bench.fetch(url).await.status(), 401);
    let (bench, file) = with(FaultOptions { rate_expired_download: 1.0, ..FaultOptions::default() }).await;
    assert_eq!(bench.fetch(download_url(&file)).await.status(), 401);
    assert_eq!(bench.sim.counters().faults["expired_download"], 1);
}

#[tokio::test]
async fn parts_are_had_by_range() {
    let (bench, file) = with(FaultOptions::default()).await;
    let (url, size) = (download_url(&file), file["size"].as_u64().unwrap());
    let whole = bench.fetch(url).await.bytes().await.unwrap();
    for (range, part) in [
        ("bytes=0-9".to_owned(), 0..10),
        ("bytes=100-2999".to_owned(), 100..3000),
        (format!("bytes={}-", size - 7), size as usize - 7..size as usize),
        ("bytes=-5".to_owned(), size as usize - 5..size as usize),
        (format!("bytes=2000-{}", size + 50), 2000..size as usize),
    ] {
        let response = bench.http.get(url).header("range", &range).send().await.unwrap();
        assert_eq!(response.status(), 206, "{range}");
        let expected = format!("bytes {}-{}/{size}", part.start, part.end - 1);
        assert_eq!(response.headers()["content-range"], expected.as_str());
        assert_eq!(response.bytes().await.unwrap(), whole.slice(part));
    }
    for range in [format!("bytes={size}-"), "bytes=9-3".to_owned(), "lines=1-2".to_owned()] {
        let response = bench.http.get(url).header("range", &range).send().await.unwrap();
        assert_eq!(response.status(), 416, "{range}");
        assert_eq!(response.headers()["content-range"], format!("bytes */{size}").as_str());
    }
    let other = bench.http.get(url).header("range", "bytes=0-9").header("if-range", "\"another\"");
    assert_eq!(other.send().await.unwrap().status(), 200);
    bench.control("options", json!({"faults": {"rate-range-ignored": 1.0}})).await;
    let response = bench.http.get(url).header("range", "bytes=5-9").send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.content_length()), (200, Some(size)));
}

#[tokio::test]
async fn what_is_known_is_not_sent_and_what_has_changed_has_another_tag() {
    let (bench, file) = with(FaultOptions::default()).await;
    let content = format!("{}/content", bench.item(&file));
    let known = bench.request(Method::GET, &content).header("if-none-match", file["eTag"].as_str().unwrap());
    assert_eq!(known.send().await.unwrap().status(), 304);
    let before = bench.json(&bench.item(&file)).await;
    let (status, after) = bench.put(&content, "other content").await;
    assert_eq!((status, after["size"].as_u64()), (200, Some(13)));
    assert_ne!((&before["eTag"], &before["cTag"]), (&after["eTag"], &after["cTag"]));
    let response = bench.fetch(download_url(&file)).await;
    assert_eq!(response.headers()["etag"], after["eTag"].as_str().unwrap());
    assert_eq!(
        response.text().await.unwrap(),
        "other content",
        "an address is of the file, not of its content"
    );
    let (_, renamed) = bench.send(Method::PATCH, &bench.item(&file), &json!({"name": "x.bin"})).await;
    assert_eq!(renamed["cTag"], after["cTag"]);
    bench.gone(&bench.item(&file)).await;
    assert_eq!(bench.fetch(download_url(&file)).await.status(), 404);
}

#[tokio::test]
async fn downloads_break_and_fail_by_decree() {
    let (bench, file) = with(FaultOptions::default()).await;
    bench.control("options", json!({"faults": {"rate-truncate": 1.0}})).await;
    let response = bench.fetch(download_url(&file)).await;
    assert_eq!(response.content_length(), file["size"].as_u64());
    assert!(response.bytes().await.is_err());
    for (fault, status) in
        [("rate-503", 503), ("rate-504", 504), ("rate-509", 509), ("rate-corrupt-item", 500)]
    {
        bench.control("options", json!({"faults": {"rate-truncate": 0.0, fault: 1.0}})).await;
        assert_eq!(bench.fetch(download_url(&file)).await.status(), status, "{fault}");
        bench.control("options", json!({"faults": {fault: 0.0}})).await;
    }
    bench.control("options", json!({"faults": {"rate-reset": 1.0}})).await;
    assert!(bench.http.get(download_url(&file)).send().await.unwrap_err().is_request());
}

#[tokio::test]
async fn hashes_are_stale_or_missing_by_decree() {
    let (bench, file) = with(FaultOptions { rate_stale_hash: 1.0, ..FaultOptions::default() }).await;
    let fresh = bench.json(&bench.item(&file)).await;
    let hash = |item: &Value| item["file"]["hashes"]["quickXorHash"].clone();
    assert!(hash(&file).is_string() && hash(&fresh) != hash(&file));
    bench.control("options", json!({"faults": {"rate-missing-hash": 1.0}})).await;
    assert!(bench.json(&bench.item(&file)).await["file"]["hashes"].is_null());
    let mut options = people_with_drives();
    options.population.drive_notebooks_per_user = 1;
    options.faults.rate_notebook_503 = 1.0;
    let bench = open(options).await;
    let part = bench.json(&bench.at("/root:/Notebook%200/Meetings.one")).await;
    assert_eq!(bench.get(&format!("{}/content", bench.item(&part))).await.status(), 503);
}

#[tokio::test]
async fn content_may_be_on_another_host() {
    let bench = open(people_with_drives()).await;
    let host = format!("localhost:{}", bench.sim.addr().port());
    bench.control("options", json!({"content-host": host})).await;
    let (items, _) = bench.crawl().await;
    let file = a_file(&items);
    assert!(download_url(file).starts_with(&format!("http://{host}/")));
    // A client that follows by itself sends no token to another host.
    let bytes = bench.get(&format!("{}/content", bench.item(file))).await.bytes().await.unwrap();
    assert_eq!(bytes.len() as u64, file["size"].as_u64().unwrap());
}
