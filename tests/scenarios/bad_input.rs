//! Bad input gets one clear line that says what to do and its exit code, and nothing is lost.

use std::process::{Command, Output};

use harness::{Cluster, ClusterOptions, process::binary, services::Services, sim};
use holdfast_model::Role;
use holdfast_proto::{
    coordinator::{GetStatusRequest, operator_api_client::OperatorApiClient},
    status::ErrorCode,
    storage::{OpenSessionRequest, storage_node_client::StorageNodeClient},
};
use holdfast_runtime::grpc::Channels;

fn one_clear_line(output: &Output, exit: i32, says: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!(output.status.code(), Some(exit), "{stderr}");
    assert_eq!(errors.len(), 1, "{stderr}");
    assert!(errors[0].contains(says), "'{says}' is not in: {}", errors[0]);
}

fn holdfast(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).env("HOME", "/nonexistent").output().expect("run holdfast")
}

#[test]
fn a_damaged_configuration_is_named_with_its_line() {
    let folder = tempfile::tempdir().expect("a private folder");
    let config = folder.path().join("node.toml");
    std::fs::write(&config, "cluster = \"x\"\nnode-id = \n").expect("write a damaged file");
    let output = holdfast(&["storage-node", "--config", &config.to_string_lossy()]);
    one_clear_line(&output, 64, "node.toml");
}

#[test]
fn an_unknown_key_in_a_configuration_is_refused() {
    let folder = tempfile::tempdir().expect("a private folder");
    let config = folder.path().join("sim.toml");
    std::fs::write(&config, "sede = 1\n").expect("write a misspelt key");
    let output = holdfast(&["graph-sim", "--config", &config.to_string_lossy()]);
    one_clear_line(&output, 64, "sede");
}

#[test]
fn without_a_profile_the_command_line_says_how_to_get_one() {
    one_clear_line(&holdfast(&["status"]), 64, "holdfast up");
}

#[test]
fn an_existing_key_file_is_never_replaced() {
    let folder = tempfile::tempdir().expect("a private folder");
    let key = folder.path().join("key.json").to_string_lossy().into_owned();
    assert!(holdfast(&["key", "init", "--out", &key]).status.success());
    let first = std::fs::read(&key).expect("the key file");
    let again = holdfast(&["key", "init", "--out", &key]);
    one_clear_line(&again, 1, "exists");
    assert_eq!(std::fs::read(&key).expect("the key file"), first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_operator_mistypes_gets_one_clear_line() {
    let folder = tempfile::tempdir().expect("a private folder");
    let services = Services::start(folder.path()).await;
    let tenant = sim::SimTenant::start(sim::options(2, 5, 500_000)).await;
    let options =
        ClusterOptions { coordinators: 1, workers: 1, nodes: vec!["a", "b"], ..ClusterOptions::default() };
    let mut cluster = Cluster::start(folder.path(), &services, &options).await;
    let url = tenant.url();
    let secret = folder.path().join("secret").to_string_lossy().into_owned();
    let connect = |name: &str, client: &str, text: &str| {
        std::fs::write(&secret, text).expect("write the secret");
        cluster.holdfast(&[
            "tenant",
            "connect",
            name,
            "--tenant-id",
            sim::MICROSOFT_TENANT,
            "--client-id",
            client,
            "--client-secret-file",
            &secret,
            "--graph-url",
            &url,
            "--login-url",
            &url,
        ])
    };

    one_clear_line(&connect("contoso", sim::CLIENT_ID, "not-the-secret"), 1, "secret");
    one_clear_line(&connect("contoso", sim::POOR_CLIENT_ID, sim::CLIENT_SECRET), 1, "Mail.Read");
    let listed = cluster.holdfast(&["tenant", "list"]);
    assert!(!String::from_utf8_lossy(&listed.stdout).contains("contoso"), "nothing was stored");

    let output = connect("contoso", sim::CLIENT_ID, sim::CLIENT_SECRET);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    one_clear_line(&cluster.holdfast(&["backup", "fabrikam"]), 1, "fabrikam");
    one_clear_line(&cluster.holdfast(&["backup", "contoso", "--resource", "user:nobody@x"]), 1, "nobody@x");
    one_clear_line(&cluster.holdfast(&["backup", "contoso", "--resource", "nobody"]), 1, "user:");
    one_clear_line(&cluster.holdfast(&["backup", "contoso", "--workload", "teams"]), 1, "backs up mail, ");
    one_clear_line(&cluster.holdfast(&["search", "contoso", "subject:budget"]), 1, "the filters are from:");
    one_clear_line(&cluster.holdfast(&["restore", "0123456789abcdef"]), 1, "snapshot");
    one_clear_line(&cluster.holdfast(&["--server", "127.0.0.1:1", "status"]), 4, "does not answer");

    wrong_roles_are_told_which_is_needed(&cluster).await;
    a_taken_port_is_named(&cluster);
    another_key_file_is_refused(&mut cluster);
}

async fn wrong_roles_are_told_which_is_needed(cluster: &Cluster) {
    let request = GetStatusRequest { failed: false };
    let as_worker = cluster.certificate(Role::Worker, "curious");
    let channel = Channels::connect(&cluster.addresses[0], &as_worker, Role::Coordinator).expect("a channel");
    let refused =
        OperatorApiClient::new(channel).get_status(request).await.expect_err("a worker is no operator");
    assert_eq!(ErrorCode::of(&refused), ErrorCode::Forbidden, "{refused}");
    assert!(refused.message().contains("operator"), "{refused}");

    let as_operator = cluster.certificate(Role::Operator, "curious");
    let channel =
        Channels::connect(&cluster.node_addresses[0], &as_operator, Role::StorageNode).expect("a channel");
    let open = OpenSessionRequest { session: 1, base_pin: Default::default() };
    let refused =
        StorageNodeClient::new(channel).open_session(open).await.expect_err("an operator writes nothing");
    assert_eq!(ErrorCode::of(&refused), ErrorCode::Forbidden, "{refused}");
    assert!(refused.message().contains("worker"), "{refused}");
}

fn a_taken_port_is_named(cluster: &Cluster) {
    let config = cluster.folder.join("coordinator-1.toml");
    let output = holdfast(&["coordinator", "--config", &config.to_string_lossy()]);
    one_clear_line(
        &output,
        1,
        "is already in use: stop the process that listens there or set another address",
    );
}

/// The coordinator stops on another key file before it does anything, and starts again on its own.
fn another_key_file_is_refused(cluster: &mut Cluster) {
    let (config, key) = (cluster.folder.join("coordinator-1.toml"), cluster.folder.join("key.json"));
    cluster.coordinators[0].kill();
    let own = std::fs::read(&key).expect("the key file");
    std::fs::remove_file(&key).expect("move the key away");
    assert!(holdfast(&["key", "init", "--out", &key.to_string_lossy()]).status.success());
    let output = holdfast(&["coordinator", "--config", &config.to_string_lossy()]);
    one_clear_line(&output, 1, "use the key file the tenant was connected with");
    std::fs::write(&key, own).expect("put the key back");
    cluster.coordinators[0].restart();
}
