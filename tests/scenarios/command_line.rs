//! The command line as an operator and a script meet it: `up` keeps its folder to itself and ends cleanly, a demo that is interrupted
//! leaves nothing behind, every command's `--json` parses, and no configuration dump shows a password.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use harness::{
    eventually,
    process::{Process, binary, free_ports},
    sim::{self, SimTenant},
};
use holdfast_model::Workload;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

const STARTS_WITHIN: Duration = Duration::from_secs(60);
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// A folder with a home of its own, where `up` runs on free ports.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a private folder");
        std::fs::create_dir(folder.path().join("home")).expect("make a home");
        let machine = Self { folder };
        machine.on_free_ports();
        machine
    }

    fn on_free_ports(&self) {
        let [listen, admin, one, two] = free_ports();
        let config = format!(
            "listen = \"127.0.0.1:{listen}\"\nadmin-listen = \"127.0.0.1:{admin}\"\n\
             nodes = [\"site-a@{one}\", \"site-b@{two}\"]\nnode-capacity = \"10GiB\"\n"
        );
        std::fs::write(self.path("up.toml"), config).expect("write a configuration");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).env("HOME", self.path("home")).env_remove("HOLDFAST_SERVER");
        command
    }

    fn holdfast(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("run holdfast")
    }

    fn up_arguments(&self) -> [String; 5] {
        let (data, config) = (self.text("data"), self.text("up.toml"));
        ["up", "--data", &data, "--config", &config].map(str::to_owned)
    }

    /// Starts `up` and waits until it says that it is up.
    async fn up(&self, json: bool) -> Process {
        let (home, mut arguments) = (self.path("home"), self.up_arguments().to_vec());
        if json {
            arguments.push("--json".to_owned());
        }
        let process = Process::start("up", self.folder.path(), move || {
            let mut command = Command::new(binary());
            command.args(&arguments).env("HOME", &home);
            command
        });
        let says = if json { "\"coordinator\":" } else { "Holdfast is up" };
        eventually("up is up", STARTS_WITHIN, || async { process.output().contains(says).then_some(()) })
            .await;
        process
    }
}

fn error_line(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!(errors.len(), 1, "{stderr}");
    errors[0].to_owned()
}

/// Waits for the end of a process; its exit code.
async fn exit_code(child: &mut Child) -> i32 {
    let status = eventually("the process ends", ENDS_WITHIN, || {
        let status = child.try_wait().expect("ask for the state of a child");
        async move { status }
    });
    status.await.code().expect("it ended by itself, not by a signal")
}

/// The processes that a process started and that still run.
fn children(parent: u32) -> Vec<u32> {
    let of = |entry: std::io::Result<std::fs::DirEntry>| -> Option<u32> {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("PPid:"))?;
        (line.split_whitespace().nth(1)? == parent.to_string() && runs(pid)).then_some(pid)
    };
    std::fs::read_dir("/proc").expect("list the processes").filter_map(of).collect()
}

/// A process that has ended and that nobody waited for yet has no command line any more.
fn runs(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

#[tokio::test]
async fn up_keeps_its_folder_to_itself_and_ends_with_0() {
    let machine = Machine::new();
    let mut first = machine.up(false).await;
    let configuration = machine.path("data").join("config").join("coordinator.toml");
    let before = std::fs::read(&configuration).expect("the coordinator's configuration");

    let arguments = machine.up_arguments();
    // Other ports: what refuses it is the folder.
    std::fs::write(machine.path("up.toml"), "listen = \"127.0.0.1:9\"\n")
        .expect("write another configuration");
    let second = machine.holdfast(&arguments.each_ref().map(String::as_str));
    assert_eq!(second.status.code(), Some(1));
    assert!(error_line(&second).contains("is in use by another `holdfast up`"), "{}", error_line(&second));
    assert_eq!(
        std::fs::read(&configuration).expect("the configuration"),
        before,
        "the first one's is untouched"
    );
    assert!(first.is_running());
    assert_eq!(first.terminate(ENDS_WITHIN), Some(0), "SIGTERM");

    machine.on_free_ports();
    let log = std::fs::File::create(machine.path("second.log")).expect("make a log");
    let mut child = machine
        .command(&machine.up_arguments().each_ref().map(String::as_str))
        .stdout(log)
        .stderr(Stdio::null())
        .spawn()
        .expect("start up again");
    let said = || std::fs::read_to_string(machine.path("second.log")).unwrap_or_default();
    eventually("up is up again", STARTS_WITHIN, || async { said().contains("Holdfast is up").then_some(()) })
        .await;
    send(child.id(), Signal::SIGINT);
    assert_eq!(exit_code(&mut child).await, 0, "SIGINT");
    assert!(children(child.id()).is_empty());
}

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).expect("pids fit i32")), signal).expect("send a signal");
}

/// A demo that backs up right now, with the temporary folder it was given and its storage nodes.
async fn demo_under_way(machine: &Machine) -> (Child, PathBuf, Vec<u32>) {
    let temporary = machine.path("tmp");
    std::fs::create_dir(&temporary).expect("make a folder for temporary files");
    let log = std::fs::File::create(machine.path("demo.log")).expect("make a log");
    let demo = machine
        .command(&["demo", "--mailboxes", "6", "--messages", "400", "--bytes", "200000000"])
        .env("TMPDIR", &temporary)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("start a demo");
    let said = || std::fs::read_to_string(machine.path("demo.log")).unwrap_or_default();
    eventually("the demo backs up", STARTS_WITHIN, || async {
        said().contains("Backing everything up").then_some(())
    })
    .await;
    let nodes = children(demo.id());
    assert_eq!(nodes.len(), 3, "three storage nodes");
    assert_eq!(entries(&temporary), 1, "one folder");
    (demo, temporary, nodes)
}

fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).expect("list the folder").count()
}

#[tokio::test]
async fn an_interrupted_demo_leaves_nothing_behind() {
    let machine = Machine::new();
    let (mut demo, temporary, nodes) = demo_under_way(&machine).await;
    send(demo.id(), Signal::SIGINT);
    assert_eq!(exit_code(&mut demo).await, 1);
    assert!(!nodes.iter().any(|pid| runs(*pid)), "a storage node outlives the demo");
    assert_eq!(entries(&temporary), 0, "the temporary folder is still there");
    let said = std::fs::read_to_string(machine.path("demo.log")).expect("the log");
    assert!(said.contains("error: interrupted"), "{said}");
}

#[tokio::test]
async fn a_killed_demo_takes_its_storage_nodes_with_it() {
    let machine = Machine::new();
    let (mut demo, _, nodes) = demo_under_way(&machine).await;
    demo.kill().expect("kill -9");
    demo.wait().expect("the demo is gone");
    eventually("the storage nodes end", ENDS_WITHIN, || async {
        (!nodes.iter().any(|pid| runs(*pid))).then_some(())
    })
    .await;
}

#[test]
fn a_dumped_configuration_hides_passwords_and_is_one() {
    let machine = Machine::new();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
    for role in ["coordinator", "worker", "storage-node", "graph-sim"] {
        let text = std::fs::read_to_string(examples.join(format!("{role}.toml"))).expect("an example");
        let text = text
            .replace("amqp://holdfast@", "amqp://holdfast:s3cret@")
            .replace("redis://redis", "redis://:s3cret@redis")
            .replace("only-for-trying-out", "s3cret");
        assert_eq!(text.contains("s3cret"), role != "storage-node", "{role}");
        std::fs::write(machine.path("role.toml"), text).expect("write a configuration");
        let config = machine.text("role.toml");
        let output = machine.holdfast(&[role, "--config", &config, "--dump-config"]);
        assert!(output.status.success(), "{role}: {}", String::from_utf8_lossy(&output.stderr));
        let dumped = String::from_utf8(output.stdout).expect("text");
        assert!(!dumped.contains("s3cret"), "{role}: {dumped}");
        std::fs::write(machine.path("role.toml"), &dumped).expect("write what was dumped");
        let again = machine.holdfast(&[role, "--config", &config, "--dump-config"]);
        assert_eq!(String::from_utf8_lossy(&again.stdout), dumped, "{role}");
    }
}

#[test]
fn a_missing_broker_is_a_configuration_error() {
    let machine = Machine::new();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
    for role in ["coordinator", "worker"] {
        let text = std::fs::read_to_string(examples.join(format!("{role}.toml"))).expect("an example");
        let without: Vec<&str> = text.lines().filter(|line| !line.starts_with("amqp-")).collect();
        std::fs::write(machine.path("role.toml"), without.join("\n")).expect("write a configuration");
        let output = machine.holdfast(&[role, "--config", &machine.text("role.toml")]);
        assert_eq!(output.status.code(), Some(64), "{role}");
        assert!(error_line(&output).contains("queue.amqp-url"), "{}", error_line(&output));
    }
}

/// Runs commands with `--json` and remembers which.
struct Scripts<'a> {
    machine: &'a Machine,
    run: BTreeSet<String>,
}

impl Scripts<'_> {
    /// The document a command prints. `name` is the command without its arguments.
    fn json(&mut self, name: &str, arguments: &[&str]) -> Value {
        let mut all: Vec<&str> = name.split(' ').collect();
        all.extend(arguments);
        all.push("--json");
        let output = self.machine.holdfast(&all);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{all:?}: {stderr}");
        self.run.insert(name.to_owned());
        let stdout = String::from_utf8(output.stdout).expect("text");
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{all:?}: {error}: {stdout}"))
    }

    /// Every command that the help texts name.
    fn all(&self, above: &[&str]) -> BTreeSet<String> {
        let mut arguments = above.to_vec();
        arguments.push("--help");
        let help = self.machine.holdfast(&arguments);
        let help = String::from_utf8(help.stdout).expect("text");
        let Some((_, list)) = help.split_once("Commands:\n") else {
            return BTreeSet::from([above.join(" ")]);
        };
        let names = list.lines().take_while(|line| !line.trim().is_empty());
        // A name stands two blanks in; what is further in continues an explanation.
        let names = names.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        let names: Vec<&str> = names.filter_map(|line| line.split_whitespace().next()).collect();
        let below = |name: &&str| {
            let mut path = above.to_vec();
            path.push(name);
            self.all(&path)
        };
        names.iter().filter(|name| **name != "help").flat_map(below).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_prints_json_that_parses() {
    let machine = Machine::new();
    let tenant = SimTenant::start(sim::options(2, 12, 600_000)).await;
    let mut up = machine.up(true).await;
    let mut scripts = Scripts { machine: &machine, run: BTreeSet::new() };

    let printed = up.output();
    let ready = printed.lines().find(|line| line.starts_with('{')).expect("a ready line");
    let ready: Value = serde_json::from_str(ready).expect("the ready line is one JSON object");
    assert_eq!(ready["storage_nodes"], 2);
    assert!(Path::new(ready["key_file"].as_str().expect("a path")).exists());
    scripts.run.insert("up".to_owned());

    let snapshots = connect_and_back_up(&mut scripts, &tenant);
    look(&mut scripts, &snapshots);
    let kit = machine.text("kit");
    let export = machine.text("export");
    let of = &snapshots[0];
    scripts.json("restore", &[of, "--plan"]);
    let restored = scripts.json("restore", &[of, "--into", "Restored", "--wait"]);
    assert_eq!(restored["jobs"][0]["state"], "done");
    scripts.json("export", &[of, "--format", "eml", "--out", &export, "--wait"]);
    scripts.json("verify", &[of, "--wait"]);
    scripts.json("verify", &["--all", "--sample", "50"]);
    scripts.json("key signing", &["--out", &kit]);
    scripts.json("key init", &["--out", &machine.text("kit/key.json")]);
    assert_eq!(up.terminate(ENDS_WITHIN), Some(0));

    roles(&mut scripts).await;
    let demo = scripts.json("demo", &["--mailboxes", "3", "--messages", "80", "--bytes", "4000000"]);
    assert_eq!(demo["differences"], Value::Array(Vec::new()));
    assert_eq!(scripts.run, scripts.all(&[]), "a command is not tried here");
}

/// The ids of the snapshots, two of the same mailbox first.
fn connect_and_back_up(scripts: &mut Scripts<'_>, tenant: &SimTenant) -> Vec<String> {
    std::fs::write(scripts.machine.path("secret"), sim::CLIENT_SECRET).expect("write the secret");
    let (secret, url) = (scripts.machine.text("secret"), tenant.url());
    let connect = [
        ["contoso", "--tenant-id", sim::MICROSOFT_TENANT, "--client-id", sim::CLIENT_ID].as_slice(),
        &["--client-secret-file", &secret, "--graph-url", &url, "--login-url", &url],
    ];
    let connected = scripts.json("tenant connect", &connect.concat());
    assert_eq!(connected["resources"], 2);
    assert_eq!(scripts.json("tenant list", &[])["tenants"][0]["name"], "contoso");
    let resources = scripts.json("resources", &["contoso"]);
    let user = resources["resources"][0]["name"].as_str().expect("a name").to_owned();
    let whole = scripts.json("backup", &["contoso", "--wait"]);
    assert_eq!(whole["jobs"].as_array().map(Vec::len), Some(2 * Workload::OF_A_USER.len()));
    scripts.json("backup", &["contoso", "--resource", &user, "--workload", "mail", "--wait"]);
    let listed = scripts.json("snapshots", &["contoso", "--resource", &user, "--workload", "mail"]);
    let listed = listed["snapshots"].as_array().expect("a list");
    assert_eq!(listed.len(), 2);
    listed.iter().map(|snapshot| snapshot["id"].as_str().expect("an id").to_owned()).collect()
}

fn look(scripts: &mut Scripts<'_>, snapshots: &[String]) {
    let jobs = scripts.json("jobs", &["--newest", "2"]);
    let job = jobs["jobs"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(scripts.json("jobs", &[&job])["job"]["id"], job.as_str());
    assert_eq!(scripts.json("jobs", &[&job, "--follow"])["jobs"][0]["state"], "done");
    assert_eq!(scripts.json("status", &["--failed"])["jobs_parked"], 0);
    let inbox = scripts.json("browse", &[&snapshots[0], "/Inbox", "--limit", "1"]);
    assert_eq!(inbox["entries"].as_array().map(Vec::len), Some(1));
    let found = scripts.json("search", &["contoso", "in:/Inbox", "--workload", "mail", "--limit", "1"]);
    assert_eq!((found["hits"].as_array().map(Vec::len), &found["end"]["hits"]), (Some(1), &Value::from(1)));
    assert!(scripts.json("diff", &[&snapshots[0], &snapshots[1]])["changes"].is_array());
    assert_eq!(scripts.json("nodes", &[])["nodes"].as_array().map(Vec::len), Some(2));
    assert_eq!(scripts.json("layout show", &[])["partitions_moving"], 0);
    assert_eq!(scripts.json("layout plan", &[])["version_after"], 0);
    assert_eq!(scripts.json("layout apply", &["--wait"])["partitions_moving"], 0);
    assert_eq!(scripts.json("drain", &["1", "--undo"])["applied"], false);
    assert_eq!(scripts.json("audit", &["--newest", "3"])["chain_intact"], true);
}

/// The roles of a cluster print a configuration, and the simulator where it listens.
async fn roles(scripts: &mut Scripts<'_>) {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
    for role in ["coordinator", "worker", "storage-node", "graph-sim"] {
        let config = examples.join(format!("{role}.toml")).to_string_lossy().into_owned();
        assert!(scripts.json(role, &["--config", &config, "--dump-config"]).is_object());
    }
    let machine = scripts.machine;
    let config = machine.text("sim.toml");
    std::fs::write(&config, "listen = \"127.0.0.1:0\"\n").expect("write a configuration");
    let sim = Process::start("sim", machine.folder.path(), move || {
        let mut command = Command::new(binary());
        command.args(["graph-sim", "--json", "--config", &config]);
        command
    });
    let line = eventually("the simulator listens", STARTS_WITHIN, || async {
        sim.output().lines().find(|line| line.starts_with('{')).map(str::to_owned)
    })
    .await;
    let ready: Value = serde_json::from_str(&line).expect("the ready line is one JSON object");
    assert!(ready["url"].as_str().is_some_and(|url| url.starts_with("http://127.0.0.1:")), "{ready}");
}
