//! A snapshot is searched without Microsoft.

use std::{collections::HashSet, time::Duration};

use futures::TryStreamExt as _;
use holdfast_proto::{
    coordinator::{search_response::Answer, *},
    status::ErrorCode,
};

use crate::{
    backed_up_twice, prepared, refused,
    snapshot::MadeSnapshot,
    world::{World, eventually},
};

fn search(query: &str) -> SearchRequest {
    SearchRequest { tenant: "contoso".to_owned(), query: query.to_owned(), ..Default::default() }
}

/// What is told, in order, and the end.
async fn told(world: &World, request: SearchRequest) -> (Vec<Answer>, SearchEnd) {
    let answers = world.operator().search(request).await.unwrap().into_inner();
    let mut answers: Vec<Answer> =
        answers.try_filter_map(async |answer| Ok(answer.answer)).try_collect().await.unwrap();
    let Some(Answer::End(end)) = answers.pop() else { panic!("the end comes last") };
    assert!(!answers.iter().any(|answer| matches!(answer, Answer::End(_))), "there is one end");
    (answers, end)
}

/// The hits and what is told at the end.
async fn answers(world: &World, request: SearchRequest) -> (Vec<SearchHit>, SearchEnd) {
    let (answers, end) = told(world, request).await;
    let hit = |answer| match answer {
        Answer::Hit(hit) => Some(hit),
        Answer::Progress(_) | Answer::End(_) => None,
    };
    (answers.into_iter().filter_map(hit).collect(), end)
}

fn found(hits: &[SearchHit]) -> Vec<(String, String)> {
    hits.iter().map(|hit| (hit.entry.clone().unwrap().id, hit.path.clone())).collect()
}

fn rows(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter().map(|(id, path)| ((*id).to_owned(), (*path).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_snapshots_are_searched_by_words_people_folders_and_dates() {
    let mut world = World::start(|_| ()).await;
    let made = backed_up_twice(&mut world).await;
    let (hits, end) = answers(&world, search("subject from:from@x.test")).await;
    let newest = rows(&[("m1", "/Inbox/Projects"), ("m3", "/Inbox/Projects"), ("m9", "/Inbox")]);
    assert_eq!(found(&hits), newest);
    assert_eq!((end.snapshots, end.items, end.hits, end.limit_reached), (1, 6, 3, false));
    assert!(end.unread.is_empty());
    let hit = &hits[0];
    assert_eq!((hit.snapshot.as_str(), hit.resource.as_str()), (made[1].as_str(), "user:ann@contoso.test"));
    assert_eq!(hit.workload, "mail");

    let (hits, _) = answers(&world, search("in:/inbox/projects subject")).await;
    assert_eq!(found(&hits), rows(&[("m1", "/Inbox/Projects"), ("m3", "/Inbox/Projects")]));
    let (hits, _) = answers(&world, search("projects")).await;
    assert_eq!(found(&hits), rows(&[("projects", "/Inbox")]), "folders are found by name, too");
    let (hits, _) =
        answers(&world, search("\"subject 9\" after:2023-11-14 before:2023-11-15 larger:101")).await;
    assert_eq!(found(&hits), rows(&[("m9", "/Inbox")]));
    for nothing in ["subject nobody", "before:2023-11-14", "larger:102", "in:/Nowhere"] {
        assert!(answers(&world, search(nothing)).await.0.is_empty(), "{nothing}");
    }
    let old = SearchRequest { snapshot: made[0].clone(), ..search("\"subject 2\"") };
    assert_eq!(found(&answers(&world, old).await.0), rows(&[("m2", "/Inbox")]), "as it was then");
    world.stop().await;
}

/// Backs up two mailboxes; who, and the ids of the records that only this one's snapshot has.
async fn two_mailboxes(world: &mut World) -> [(&'static str, HashSet<Vec<u8>>); 2] {
    world.connect().await;
    let mut made = Vec::new();
    for (round, user) in (0..).zip(["user:ann@contoso.test", "user:ben@contoso.test"]) {
        world.start_backup(user).await;
        let lease = world.claim_next().await;
        let snapshot = MadeSnapshot::of(&lease, round).await;
        snapshot.copy_to(&world.nodes);
        prepared(world, &lease, &snapshot.pin).await;
        eventually("the job is done", async || world.job(&lease.job).await.state == "done").await;
        // A fake node keeps the pins of one resource: the next one has the same sequence.
        world.nodes.iter().for_each(|node| node.state.lock().unwrap().pins.clear());
        made.push((user, snapshot.record_ids()));
    }
    let [(ann, of_ann), (ben, of_ben)] = made.try_into().unwrap();
    [(ann, &of_ann - &of_ben), (ben, &of_ben - &of_ann)]
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_slow_snapshot_to_see_the_hits_of_another() {
    let mut world = World::start(|_| ()).await;
    // Whichever is searched first: each is the slow one once.
    for (slow, records) in two_mailboxes(&mut world).await {
        for node in &world.nodes {
            node.state.lock().unwrap().withheld.clone_from(&records);
        }
        let mut answers = world.operator().search(search("subject")).await.unwrap().into_inner();
        let mut next = async || answers.message().await.unwrap().and_then(|answer| answer.answer).unwrap();
        let first = tokio::time::timeout(Duration::from_secs(20), next()).await.expect("a hit comes");
        let Answer::Hit(hit) = first else { panic!("{first:?}") };
        assert_ne!(hit.resource, slow);
        for node in &world.nodes {
            node.release();
        }
        let (mut hits, mut done) = (vec![hit.resource], Vec::new());
        let end = loop {
            match next().await {
                Answer::Hit(hit) => hits.push(hit.resource),
                Answer::Progress(progress) => done.push((progress.snapshots_done, progress.snapshots)),
                Answer::End(end) => break end,
            }
        };
        assert_eq!((hits.len(), hits.iter().filter(|who| *who == slow).count()), (6, 3));
        assert_eq!(done, [(1, 2), (2, 2)]);
        assert_eq!((end.snapshots, end.hits), (2, 6));
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_ends_at_its_limit_and_is_on_record() {
    let mut world = World::start(|_| ()).await;
    backed_up_twice(&mut world).await;
    let (hits, end) = answers(&world, SearchRequest { limit: 2, ..search("subject") }).await;
    assert_eq!((hits.len(), end.hits, end.limit_reached), (2, 2, true));
    let nobody = SearchRequest { resources: vec!["user:ben@contoso.test".to_owned()], ..search("subject") };
    assert_eq!(answers(&world, nobody).await.1, SearchEnd::default(), "he has no snapshot");
    let contacts = SearchRequest { workloads: vec!["contacts".to_owned()], ..search("subject") };
    assert!(answers(&world, contacts).await.0.is_empty());
    let mut operator = world.operator();
    refused(operator.search(search("subject:x")).await, ErrorCode::BadRequest, "the filters are");
    let foreign = SearchRequest { snapshot: "0000000000000000".to_owned(), ..search("x") };
    refused(operator.search(foreign).await, ErrorCode::NotFound, "holdfast snapshots");
    let audit = operator.list_audit(ListAuditRequest { newest: 100 }).await.unwrap().into_inner();
    assert_eq!(audit.rows.iter().filter(|row| row.action == "snapshot.search").count(), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_without_storage_says_so_and_one_damaged_snapshot_is_left_out() {
    let mut world = World::start(|_| ()).await;
    backed_up_twice(&mut world).await;
    for node in &world.nodes {
        let mut state = node.state.lock().unwrap();
        state.records.values_mut().for_each(|record| *record = bytes::Bytes::from_static(b"not a record"));
    }
    let (hits, end) = answers(&world, search("subject")).await;
    assert!(hits.is_empty());
    assert_eq!((end.snapshots, end.unread.len()), (0, 1), "{end:?}");
    assert_eq!(end.unread[0].resource, "user:ann@contoso.test");
    assert!(!end.unread[0].reason.is_empty());
    world.stop().await;
}
