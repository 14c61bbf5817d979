//! Bad input gets one clear line that says what to do and its exit code, and nothing is lost.

use std::process::{Command, Output};

use harness::{Cluster, ClusterOptions, process::binary, services::Services, sim};

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
    let cluster = Cluster::start(folder.path(), &services, &options).await;
    let url = tenant.url();
    let secret = folder.path().join("secret").to_string_lossy().into_owned();
    let connect = |name: &str, text: &str| {
        std::fs::write(&secret, text).expect("write the secret");
        let output = cluster.holdfast(&[
            "tenant",
            "connect",
            name,
            "--tenant-id",
            sim::MICROSOFT_TENANT,
            "--client-id",
            sim::CLIENT_ID,
            "--client-secret-file",
            &secret,
            "--graph-url",
            &url,
            "--login-url",
            &url,
        ]);
        output
    };

    one_clear_line(&connect("contoso", "not-the-secret"), 1, "secret");
    let listed = cluster.holdfast(&["tenant", "list"]);
    assert!(!String::from_utf8_lossy(&listed.stdout).contains("contoso"), "nothing was stored");

    let output = connect("contoso", sim::CLIENT_SECRET);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    one_clear_line(&cluster.holdfast(&["backup", "fabrikam"]), 1, "fabrikam");
    one_clear_line(&cluster.holdfast(&["backup", "contoso", "--resource", "user:nobody@x"]), 1, "nobody@x");
    one_clear_line(&cluster.holdfast(&["backup", "contoso", "--resource", "nobody"]), 1, "user:");
    one_clear_line(&cluster.holdfast(&["restore", "0123456789abcdef"]), 1, "snapshot");
    one_clear_line(&cluster.holdfast(&["--server", "127.0.0.1:1", "status"]), 4, "does not answer");
}
