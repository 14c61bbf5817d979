//! Who may import whom: the table of the design, read against `cargo metadata`. Any other edge fails.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// crate → what of ours it may import.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("runtime", &["model"]),
    ("proto", &["model"]),
    ("record", &["model"]),
    ("repository", &["model", "record"]),
    ("job-queue", &["model", "runtime"]),
    ("graph-client", &["model", "runtime"]),
    ("graph-sim", &["model", "runtime"]),
    ("storage-client", &["model", "proto", "record", "runtime", "repository"]),
    ("storage-node", &["model", "proto", "record", "runtime"]),
    // No part of the product: it drives the core of both.
    ("storage-sim", &["model", "proto", "record", "repository", "runtime", "storage-client", "storage-node"]),
    (
        "coordinator",
        &["model", "runtime", "proto", "record", "repository", "job-queue", "graph-client", "storage-client"],
    ),
    (
        "worker",
        &["model", "runtime", "proto", "record", "repository", "job-queue", "graph-client", "storage-client"],
    ),
];

/// Who may import what of the wire's machinery.
const MAY_SPEAK_GRPC: &[&str] = &[
    "proto",
    "runtime",
    "storage-client",
    "storage-node",
    "storage-sim",
    "coordinator",
    "worker",
    "cli",
    "tests",
];

fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .no_deps()
        .other_options(vec!["--offline".to_owned(), "--locked".to_owned()])
        .exec()
        .expect("cargo metadata runs");
    let ours = |name: &str| name.strip_prefix("holdfast-").map(str::to_owned);
    metadata
        .packages
        .iter()
        .filter_map(|package| {
            let of_ours = package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal);
            Some((ours(&package.name)?, of_ours.map(|d| d.name.clone()).collect()))
        })
        .collect()
}

#[test]
fn every_crate_imports_only_what_the_design_allows() {
    let edges = edges();
    for (name, allowed) in MAY_IMPORT {
        let imports = edges.get(*name).unwrap_or_else(|| panic!("crate {name} is missing"));
        for import in imports.iter().filter_map(|import| import.strip_prefix("holdfast-")) {
            assert!(allowed.contains(&import), "{name} must not import {import}");
        }
    }
    let known: BTreeSet<&str> = MAY_IMPORT.iter().map(|(name, _)| *name).chain(["cli", "tests"]).collect();
    for name in edges.keys() {
        assert!(known.contains(name.as_str()), "crate {name} is not in the table of the design");
    }
}

#[test]
fn only_the_edges_speak_grpc() {
    for (name, imports) in edges() {
        let speaks = imports.iter().any(|import| import == "tonic" || import == "prost");
        assert!(!speaks || MAY_SPEAK_GRPC.contains(&name.as_str()), "{name} must not import tonic or prost");
    }
}
