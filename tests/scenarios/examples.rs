//! Every shipped example configuration is one that the program takes.

use std::path::{Path, PathBuf};

use holdfast_runtime::config;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples").join(name)
}

#[test]
fn every_shipped_example_parses() {
    let folder = example("");
    let files = std::fs::read_dir(folder).expect("the examples are there");
    for file in files.map(|entry| entry.expect("a readable folder").path()) {
        let name = file.file_name().expect("a file").to_string_lossy().into_owned();
        let parsed = match name.as_str() {
            "coordinator.toml" => config::load::<holdfast_coordinator::CoordinatorOptions>(&file).map(drop),
            "worker.toml" => config::load::<holdfast_worker::WorkerOptions>(&file).map(drop),
            "storage-node.toml" => config::load::<holdfast_storage_node::StorageNodeOptions>(&file).map(drop),
            "graph-sim.toml" => config::load::<holdfast_graph_sim::SimOptions>(&file).map(drop),
            other => panic!("example {other} is not checked here"),
        };
        parsed.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
