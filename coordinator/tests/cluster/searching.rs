//! A snapshot is searched without Microsoft.

use futures::TryStreamExt as _;
use holdfast_proto::{
    coordinator::{search_response::Answer, *},
    status::ErrorCode,
};

use crate::{backed_up_twice, refused, world::World};

fn search(query: &str) -> SearchRequest {
    SearchRequest { tenant: "contoso".to_owned(), query: query.to_owned(), ..Default::default() }
}

/// The hits and what is told at the end.
async fn answers(world: &World, request: SearchRequest) -> (Vec<SearchHit>, SearchEnd) {
    let answers = world.operator().search(request).await.unwrap().into_inner();
    let mut answers: Vec<Answer> =
        answers.try_filter_map(async |answer| Ok(answer.answer)).try_collect().await.unwrap();
    let Some(Answer::End(end)) = answers.pop() else { panic!("the end comes last") };
    let hit = |answer| match answer {
        Answer::Hit(hit) => hit,
        Answer::End(_) => panic!("there is one end"),
    };
    (answers.into_iter().map(hit).collect(), end)
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
