use std::collections::BTreeMap;

use holdfast_model::ExportFormat;
use serde_json::Value;

use crate::harness::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_read_by_an_independent_reader() {
    let mut world = World::new(60).await;
    world.back_up().await;
    let truth = world.truth_by_id().await;
    let mut by_file: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for event in world.export_and_read(ExportFormat::Ics).await {
        by_file.entry(event["file"].as_str().unwrap().to_owned()).or_default().push(event);
    }
    assert_eq!(by_file.len(), truth.len(), "a file per event, a series is one");
    let count = |all: &[Value], of: fn(&Value) -> usize| all.iter().map(of).sum::<usize>();
    let read: Vec<Value> = by_file.values().flatten().cloned().collect();
    let truth: Vec<Value> = truth.into_values().collect();
    let array = |value: &Value| value.as_array().map_or(0, Vec::len);
    let n_exceptions = count(&truth, |event| event["exceptions"].as_object().map_or(0, serde_json::Map::len));
    assert!(n_exceptions > 0);
    assert_eq!(count(&read, |event| usize::from(!event["replaces"].is_null())), n_exceptions);
    let n_series = count(&truth, |event| usize::from(!event["recurrence"].is_null()));
    assert_eq!(count(&read, |event| usize::from(!event["rule"].is_null())), n_series);
    let n_cancelled: usize = truth.iter().map(|event| array(&event["cancelled"])).sum();
    assert_eq!(read.iter().map(|event| array(&event["cancelled"])).sum::<usize>(), n_cancelled);
    for event in &read {
        if let Some(replaces) = event["replaces"].as_str() {
            let series = &by_file[event["file"].as_str().unwrap()][0];
            let hour = |time: &str| time.get(11..19).map(str::to_owned);
            assert_eq!(hour(replaces), hour(series["start"].as_str().unwrap()), "at the hour of its series");
        }
    }
    assert!(read.iter().any(|event| array(&event["zones"]) > 0), "a series is in its zone");
    for event in &read {
        assert_eq!(array(&event["missing_zones"]), 0, "each zone is defined: {event}");
    }
    let subjects = |all: &[Value]| {
        let mut all: Vec<String> =
            all.iter().map(|event| event["subject"].as_str().unwrap().to_owned()).collect();
        all.sort();
        all.dedup();
        all
    };
    let masters: Vec<Value> = read.iter().filter(|event| event["replaces"].is_null()).cloned().collect();
    assert_eq!(subjects(&masters), subjects(&truth));
}
