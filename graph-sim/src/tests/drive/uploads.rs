use super::*;
use crate::FaultOptions;

const UNIT: usize = 327_680;

fn bytes(size: usize) -> Vec<u8> {
    (0..size as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 15) as u8).collect()
}

/// An upload session and the content that goes through it.
struct Upload<'a> {
    bench: &'a DriveBench,
    url: String,
    content: Vec<u8>,
}

impl Upload<'_> {
    async fn put(&self, from: usize, to: usize) -> Result<Response, reqwest::Error> {
        let range = format!("bytes {from}-{}/{}", to - 1, self.content.len());
        let put = self.bench.http.put(&self.url).header("content-range", range);
        put.body(self.content[from..to].to_vec()).send().await
    }

    async fn put_json(&self, from: usize, to: usize) -> (u16, Value) {
        let response = self.put(from, to).await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn next(&self) -> String {
        let status: Value = self.bench.fetch(&self.url).await.json().await.unwrap();
        status["nextExpectedRanges"][0].as_str().unwrap_or_default().to_owned()
    }
}

async fn upload<'a>(bench: &'a DriveBench, at: &str, item: Value, content: Vec<u8>) -> Upload<'a> {
    let (status, opened) = bench
        .send(Method::POST, &bench.at(&format!("{at}/createUploadSession")), &json!({"item": item}))
        .await;
    assert_eq!(status, 200, "{opened}");
    Upload { bench, url: opened["uploadUrl"].as_str().unwrap().to_owned(), content }
}

#[tokio::test]
async fn a_small_file_comes_in_one_call() {
    let bench = open(people_with_drives()).await;
    let at = |name: &str, query: &str| bench.at(&format!("/root:/{name}:/content{query}"));
    let (status, made) = bench.put(&at("a%3F%23.txt", ""), "x").await;
    assert_eq!((status, made["error"]["code"].as_str()), (400, Some("invalidRequest")), "a question mark");
    let (status, made) = bench.put(&at("caf%C3%A9%20%23.txt", ""), "hello world").await;
    assert_eq!((status, made["name"].as_str()), (201, Some("café #.txt")));
    assert_eq!(made["file"]["hashes"]["quickXorHash"], "aCgDG9jwBhDc4Q1yawMZAAAAAAA=");
    for (query, status, name) in [
        ("?@microsoft.graph.conflictBehavior=fail", 409, Value::Null),
        ("?@microsoft.graph.conflictBehavior=rename", 201, json!("CAFÉ # 1.txt")),
        ("?@microsoft.graph.conflictBehavior=replace", 200, json!("café #.txt")),
        ("", 200, json!("café #.txt")),
    ] {
        let (found, answer) = bench.put(&at("CAF%C3%89%20%23.txt", query), "y").await;
        assert_eq!((found, &answer["name"]), (status, &name), "{query}");
    }
    let (status, empty) = bench.put(&at("empty", ""), "").await;
    assert_eq!((status, empty["size"].as_u64()), (201, Some(0)));
    assert_eq!(empty["file"]["hashes"]["quickXorHash"], "AAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    let big = bytes(5_000_000);
    let (status, made) = bench.put(&at("big.bin", ""), big.clone()).await;
    assert_eq!(status, 201);
    assert_eq!(
        bench.fetch(made["@microsoft.graph.downloadUrl"].as_str().unwrap()).await.bytes().await.unwrap(),
        big
    );
    let guarded = bench.request(Method::PUT, &format!("{}/content", bench.item(&made)));
    assert_eq!(guarded.header("if-match", "\"other\"").body("z").send().await.unwrap().status(), 412);
    bench.control("options", json!({"drive-quota-bytes": 1000})).await;
    assert_eq!(bench.put(&at("more.bin", ""), "z").await.0, 507);
}

#[tokio::test]
async fn a_session_takes_fragments_in_order_and_keeps_the_times() {
    let bench = open(people_with_drives()).await;
    let content = bytes(2 * UNIT + 1000);
    let times =
        json!({"createdDateTime": "2019-05-01T10:00:05Z", "lastModifiedDateTime": "2020-05-01T10:00:05Z"});
    let item = json!({"name": "f.bin", "fileSize": content.len(), "fileSystemInfo": times});
    let session = upload(&bench, "/root:/f.bin:", item, content.clone()).await;
    assert_eq!(bench.get(&session.url).await.status(), 401, "the token would be given away");
    let (status, wrong) = session.put_json(UNIT, 2 * UNIT).await;
    assert_eq!((status, wrong["error"]["innerError"]["code"].as_str()), (416, Some("fragmentOutOfOrder")));
    let (status, more) = session.put_json(0, UNIT).await;
    assert_eq!((status, more["nextExpectedRanges"][0].as_str()), (202, Some("327680-656359")));
    assert_eq!(session.put(0, UNIT).await.unwrap().status(), 416);
    assert_eq!(session.next().await, "327680-656359");
    assert_eq!(session.put_json(UNIT, 2 * UNIT).await.1["nextExpectedRanges"][0], "655360-");
    assert_eq!(bench.get(&bench.at("/root:/f.bin")).await.status(), 404, "not before all is there");
    let (status, made) = session.put_json(2 * UNIT, content.len()).await;
    assert_eq!((status, &made["fileSystemInfo"]), (201, &times));
    assert_eq!(
        bench.fetch(made["@microsoft.graph.downloadUrl"].as_str().unwrap()).await.bytes().await.unwrap(),
        content
    );
    assert_eq!(bench.fetch(&session.url).await.status(), 404, "a session ends with its file");
    let version =
        upload(&bench, &format!("/items/{}", made["id"].as_str().unwrap()), json!({}), bytes(70)).await;
    let (status, again) = version.put_json(0, 70).await;
    assert_eq!((status, &again["id"], again["size"].as_u64()), (200, &made["id"], Some(70)));
    assert_eq!(again["fileSystemInfo"]["createdDateTime"], times["createdDateTime"]);
}

#[tokio::test]
async fn what_is_wrong_with_fragments_shows() {
    let bench = open(people_with_drives()).await;
    let content = bytes(UNIT + 500);
    let uneven = upload(&bench, "/root:/u.bin:", json!({"fileSize": content.len()}), content.clone()).await;
    assert_eq!(uneven.put(0, 1000).await.unwrap().status(), 202, "only the end tells");
    assert_eq!(uneven.put(1000, content.len()).await.unwrap().status(), 400);
    let other = upload(&bench, "/root:/o.bin:", json!({"fileSize": 17}), content.clone()).await;
    assert_eq!(other.put(0, 1000).await.unwrap().status(), 400, "another total");
    let no_range = bench.http.put(&other.url).body("x").send().await.unwrap();
    assert_eq!(no_range.status(), 400);
    assert_eq!(bench.http.delete(&other.url).send().await.unwrap().status(), 204);
    assert_eq!(bench.http.delete(&other.url).send().await.unwrap().status(), 404);
    let late = upload(&bench, "/root:/l.bin:", json!({"fileSize": content.len()}), content).await;
    bench.clock.push(24 * 60 * 60 * 1000);
    let (status, gone) = late.put_json(0, UNIT).await;
    assert_eq!((status, gone["error"]["innerError"]["code"].as_str()), (404, Some("uploadSessionNotFound")));
    let (status, full) = {
        let bench = open(people_with_drives()).await;
        let body = json!({"item": {"fileSize": 2_000_000_000_000_u64}});
        bench.send(Method::POST, &bench.at("/root:/x:/createUploadSession"), &body).await
    };
    assert_eq!((status, full["error"]["code"].as_str()), (507, Some("quotaLimitReached")));
}

#[tokio::test]
async fn a_name_that_is_taken_at_the_end_keeps_the_session() {
    let bench = open(people_with_drives()).await;
    let fail = json!({"@microsoft.graph.conflictBehavior": "fail", "fileSize": 40});
    let session = upload(&bench, "/root:/taken.bin:", fail.clone(), bytes(40)).await;
    let (_, first) = bench.put(&bench.at("/root:/taken.bin:/content"), "first").await;
    let (status, refused) = session.put_json(0, 40).await;
    assert_eq!((status, refused["error"]["code"].as_str()), (409, Some("nameAlreadyExists")));
    assert_eq!(bench.fetch(&session.url).await.status(), 200);
    let (_, folder) =
        bench.send(Method::POST, &bench.at("/root/children"), &json!({"name": "F", "folder": {}})).await;
    let commit = json!({"name": "kept.bin", "@microsoft.graph.conflictBehavior": "rename",
        "@microsoft.graph.sourceUrl": session.url});
    let (status, made) = bench.send(Method::PUT, &bench.at("/root:/F"), &commit).await;
    assert_eq!(
        (status, made["name"].as_str(), &made["parentReference"]["id"]),
        (201, Some("kept.bin"), &folder["id"])
    );
    assert_eq!(bench.send(Method::PUT, &bench.at("/root:/F"), &commit).await.0, 404);
    let (status, refused) = bench
        .send(Method::POST, &bench.at("/root:/taken.bin:/createUploadSession"), &json!({"item": fail}))
        .await;
    assert_eq!((status, refused["error"]["code"].as_str()), (409, Some("nameAlreadyExists")));
    let guarded = bench.request(Method::POST, &bench.at("/root:/taken.bin:/createUploadSession"));
    let guarded = guarded.header("if-none-match", first["eTag"].as_str().unwrap()).json(&json!({}));
    assert_eq!(guarded.send().await.unwrap().status(), 412);
}

#[tokio::test]
async fn a_session_may_wait_for_its_commit() {
    let bench = open(people_with_drives()).await;
    let body = json!({"item": {"fileSize": 30}, "deferCommit": true});
    let (_, opened) = bench.send(Method::POST, &bench.at("/root:/d.bin:/createUploadSession"), &body).await;
    let session =
        Upload { bench: &bench, url: opened["uploadUrl"].as_str().unwrap().to_owned(), content: bytes(30) };
    assert_eq!(bench.http.post(&session.url).send().await.unwrap().status(), 400);
    assert_eq!(session.put(0, 30).await.unwrap().status(), 202);
    assert_eq!(session.next().await, "");
    assert_eq!(bench.get(&bench.at("/root:/d.bin")).await.status(), 404);
    assert_eq!(bench.http.post(&session.url).send().await.unwrap().status(), 201);
    assert_eq!(bench.json(&bench.at("/root:/d.bin")).await["size"], 30);
}

#[tokio::test]
async fn after_a_broken_connection_the_session_says_how_far_it_got() {
    let faults = FaultOptions { seed: 3, rate_lost_answer: 0.3, rate_reset: 0.3, ..FaultOptions::default() };
    let bench = open(people_with_drives()).await;
    let content = bytes(9 * UNIT + 17);
    let session = upload(&bench, "/root:/r.bin:", json!({"fileSize": content.len()}), content.clone()).await;
    bench.control("options", json!({"faults": faults})).await;
    let (mut from, mut broken) = (0, 0);
    for _ in 0..200 {
        match session.put(from, (from + UNIT).min(content.len())).await {
            Ok(response) if response.status() == 202 => {
                from += UNIT;
                continue;
            }
            Ok(response) if response.status() == 201 => break,
            // It came before, and the answer was lost.
            Ok(response) => assert_eq!(response.status(), 416),
            Err(_) => broken += 1,
        }
        let Ok(status) = bench.http.get(&session.url).send().await else { continue };
        if status.status() == 404 {
            break;
        }
        let status: Value = status.json().await.unwrap();
        let next = status["nextExpectedRanges"][0].as_str().unwrap();
        from = next.split('-').next().unwrap().parse().unwrap();
    }
    assert!(broken > 2 && bench.sim.counters().faults["lost_answer"] > 0, "{broken}");
    bench.control("options", json!({"faults": FaultOptions::default()})).await;
    let made = bench.json(&bench.at("/root:/r.bin")).await;
    assert_eq!(
        bench.fetch(made["@microsoft.graph.downloadUrl"].as_str().unwrap()).await.bytes().await.unwrap(),
        content
    );
}

#[tokio::test]
async fn what_was_done_stays_done_when_its_answer_is_lost() {
    let bench = open(people_with_drives()).await;
    bench.control("options", json!({"faults": {"rate-lost-answer": 1.0}})).await;
    let create =
        bench.request(Method::POST, &bench.at("/root/children")).json(&json!({"name": "L", "folder": {}}));
    assert!(create.send().await.is_err());
    assert_eq!(bench.json(&bench.at("/root:/L")).await["name"], "L");
}
