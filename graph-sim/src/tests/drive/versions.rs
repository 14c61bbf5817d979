use super::*;

#[tokio::test]
async fn versions_are_listed_newest_first_and_had_by_themselves() {
    let mut options = people_with_drives();
    options.population.drive_versioned_percent = 100;
    let bench = open(options).await;
    let truth = bench.truth().await;
    let one = truth.iter().find(|one| one["versions"].as_array().is_some_and(|all| all.len() == 3)).unwrap();
    let item = bench.item(one);
    let listed = bench.json(&format!("{item}/versions")).await["value"].as_array().unwrap().clone();
    assert_eq!(ids(&listed), ["4.0", "3.0", "2.0", "1.0"]);
    assert_eq!(listed[0]["size"], one["size"]);
    let current = bench.get(&format!("{item}/versions/4.0/content")).await;
    assert_eq!(current.status(), 400, "the item itself has it");
    for (version, expected) in listed[1..].iter().rev().zip(one["versions"].as_array().unwrap()) {
        let at = format!("{item}/versions/{}", version["id"].as_str().unwrap());
        assert_eq!(bench.json(&at).await, *version);
        let url = bench.location(&format!("{at}/content")).await;
        let bytes = bench.fetch(&url).await.bytes().await.unwrap();
        assert_eq!(json!({"size": bytes.len(), "blake3": blake3::hash(&bytes).to_hex().as_str()}), *expected);
    }
    assert_eq!(bench.get(&format!("{item}/versions/9.0/content")).await.status(), 404);
    assert_eq!(bench.get(&bench.at("/root/versions")).await.status(), 400);
}

#[tokio::test]
async fn new_content_makes_a_version_and_another_name_does_not() {
    let bench = open(people_with_drives()).await;
    for content in ["one", "two", "three"] {
        bench.put(&bench.at("/root:/v.txt:/content"), content).await;
    }
    let item = bench.json(&bench.at("/root:/v.txt")).await;
    bench.send(Method::PATCH, &bench.item(&item), &json!({"name": "w.txt"})).await;
    let listed = bench.json(&format!("{}/versions", bench.item(&item))).await;
    assert_eq!(ids(listed["value"].as_array().unwrap()), ["3.0", "2.0", "1.0"]);
    let url = bench.location(&format!("{}/versions/1.0/content", bench.item(&item))).await;
    assert_eq!(bench.fetch(&url).await.text().await.unwrap(), "one");
}
