use std::collections::BTreeMap;

use holdfast_model::ExportFormat;
use serde_json::{Value, json};

use crate::harness::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cards_are_read_by_an_independent_reader() {
    let mut world = World::new(30).await;
    world.back_up().await;
    let truth = world.truth_by_id().await;
    let cards = world.export_and_read(ExportFormat::Vcf).await;
    let cards: BTreeMap<&str, &Value> =
        cards.iter().map(|card| (card["uid"].as_str().unwrap(), card)).collect();
    assert_eq!(cards.len(), truth.len());
    let mut n_photos = 0;
    for (id, contact) in &truth {
        let card = cards[id.as_str()];
        for (in_card, property) in [("name", "displayName"), ("given", "givenName"), ("family", "surname")] {
            assert_eq!(card[in_card], contact[property]);
        }
        let addresses =
            contact["emailAddresses"].as_array().unwrap().iter().map(|one| one["address"].clone());
        assert_eq!(card["addresses"], json!(addresses.collect::<Vec<_>>()));
        assert_eq!(card["photo"].is_null(), contact["photoBlake3"].is_null());
        n_photos += usize::from(!card["photo"].is_null());
    }
    assert!(n_photos > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_holds_everything_and_the_photo_beside_it() {
    let mut world = World::new(10).await;
    world.back_up().await;
    let truth = world.truth_by_id().await;
    let out = tempfile::tempdir().unwrap();
    let done = world.export(ExportFormat::Json, out.path()).await;
    assert_eq!((done.account.stored, done.failed.len()), (10, 0));
    let (mut folders, mut n_contacts, mut n_photos) = (vec![out.path().to_owned()], 0, 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension().and_then(|extension| extension.to_str()) {
                _ if path.is_dir() => folders.push(path),
                Some("json") => {
                    let contact: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
                    let expected = &truth[contact["id"].as_str().unwrap()];
                    assert_eq!(contact["displayName"], expected["displayName"]);
                    n_contacts += 1;
                }
                _ => n_photos += 1,
            }
        }
    }
    let expected = truth.values().filter(|contact| !contact["photoBlake3"].is_null()).count();
    assert_eq!((n_contacts, n_photos), (truth.len(), expected));
}
