//! RabbitMQ, Redis and PostgreSQL on private ports with private folders, started as the root user that CI is.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::process::{Process, free_ports};

const START_WITHIN: Duration = Duration::from_secs(90);

/// The three services of a cluster.
pub struct Services {
    pub rabbit: Rabbit,
    pub redis: Redis,
    pub postgres: Postgres,
}

impl Services {
    /// Starts all three, and comes back when they answer.
    pub async fn start(folder: &Path) -> Self {
        let (rabbit, redis, postgres) =
            tokio::join!(Rabbit::start(folder), Redis::start(folder), Postgres::start(folder));
        Self { rabbit, redis, postgres }
    }
}

async fn answers(port: u16, what: &str) {
    crate::eventually(what, START_WITHIN, || async {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
    })
    .await;
}

/// A RabbitMQ broker.
pub struct Rabbit {
    process: Process,
    port: u16,
    epmd_port: u16,
}

impl Rabbit {
    async fn start(folder: &Path) -> Self {
        let home = folder.join("rabbit");
        let etc = home.join("etc");
        std::fs::create_dir_all(&etc).expect("make the broker's folder");
        let [port, epmd_port, dist_port] = free_ports();
        let conf = format!(
            "listeners.tcp.default = 127.0.0.1:{port}\nvm_memory_high_watermark.absolute = 512MB\nloopback_users = none\n"
        );
        std::fs::write(etc.join("rabbitmq.conf"), conf).expect("write rabbitmq.conf");
        let advanced = format!(
            "[{{kernel,[{{inet_dist_use_interface,{{127,0,0,1}}}},{{inet_dist_listen_min,{dist_port}}},{{inet_dist_listen_max,{dist_port}}}]}}].\n"
        );
        std::fs::write(etc.join("advanced.config"), advanced).expect("write advanced.config");
        std::fs::write(etc.join("enabled_plugins"), "[].\n").expect("write enabled_plugins");
        let process = Process::start("rabbitmq", folder, move || broker(&home, epmd_port, dist_port));
        answers(port, "RabbitMQ takes connections").await;
        Self { process, port, epmd_port }
    }

    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// Stops the broker as an administrator would, and starts it again on the same data.
    pub async fn restart(&mut self) {
        self.process.terminate(Duration::from_secs(40));
        self.process.restart();
        answers(self.port, "RabbitMQ takes connections again").await;
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        self.process.kill();
        // The port mapper outlives the broker: end it by its own arguments.
        let pattern = format!("epmd.*{}", self.epmd_port);
        let _ = Command::new("pkill").args(["-f", &pattern]).status();
    }
}

/// The inner start script: the one on the PATH would change user and folder.
fn broker(home: &Path, epmd_port: u16, dist_port: u16) -> Command {
    let mut command = Command::new("/usr/lib/rabbitmq/bin/rabbitmq-server");
    let etc = home.join("etc");
    command
        .env("HOME", home)
        .env("RABBITMQ_NODENAME", format!("t{dist_port}@localhost"))
        .env("RABBITMQ_MNESIA_BASE", home.join("mnesia"))
        .env("RABBITMQ_LOG_BASE", home.join("log"))
        .env("RABBITMQ_CONFIG_FILE", etc.join("rabbitmq.conf"))
        .env("RABBITMQ_ADVANCED_CONFIG_FILE", etc.join("advanced.config"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", etc.join("enabled_plugins"))
        .env("RABBITMQ_PID_FILE", home.join("pid"))
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("ERL_EPMD_PORT", epmd_port.to_string())
        .env("RABBITMQ_DIST_PORT", dist_port.to_string())
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 1:1");
    command
}

/// A Redis server that keeps nothing of itself: after a kill it comes back empty, or with what [`Redis::save`] wrote.
pub struct Redis {
    process: Process,
    port: u16,
}

impl Redis {
    async fn start(folder: &Path) -> Self {
        let [port] = free_ports();
        let dir = folder.join("redis");
        std::fs::create_dir_all(&dir).expect("make Redis' folder");
        let process = Process::start("redis", folder, move || {
            let mut command = Command::new("redis-server");
            command.args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ]);
            command.arg("--dir").arg(&dir);
            command
        });
        answers(port, "Redis takes connections").await;
        Self { process, port }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Whether a key exists.
    pub async fn has(&self, key: &str) -> bool {
        let client = redis::Client::open(self.url()).expect("a valid URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("connect to Redis");
        redis::cmd("EXISTS").arg(key).query_async(&mut connection).await.expect("ask Redis")
    }

    /// Writes what it holds, to be there again after a kill.
    pub async fn save(&self) {
        let client = redis::Client::open(self.url()).expect("a valid URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("connect to Redis");
        let () = redis::cmd("SAVE").query_async(&mut connection).await.expect("save Redis");
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again.
    pub async fn restart(&mut self) {
        self.process.restart();
        answers(self.port, "Redis takes connections again").await;
    }

    /// Empties it, as a failover to an empty replica would.
    pub async fn empty(&self) {
        let client = redis::Client::open(self.url()).expect("a valid URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("connect to Redis");
        let () = redis::cmd("FLUSHALL").query_async(&mut connection).await.expect("empty Redis");
    }
}

/// A PostgreSQL server.
pub struct Postgres {
    process: Process,
    port: u16,
}

impl Postgres {
    async fn start(folder: &Path) -> Self {
        let [port] = free_ports();
        let home = folder.join("postgres");
        std::fs::create_dir_all(&home).expect("make PostgreSQL's folder");
        // PostgreSQL refuses root: the folder, and the way to it, must be open to its own user.
        for open in [folder, home.as_path()] {
            run(Command::new("chmod").arg("755").arg(open));
        }
        run(Command::new("chown").arg("postgres").arg(&home));
        let bin = postgres_bin();
        let data = home.join("data");
        run(as_postgres(&bin.join("initdb")).arg("-D").arg(&data).args([
            "-A",
            "trust",
            "-U",
            "app",
            "--no-sync",
        ]));
        let process = Process::start("postgres", folder, move || {
            let mut command = as_postgres(&bin.join("postgres"));
            command.arg("-D").arg(&data).args([
                "-p",
                &port.to_string(),
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
            ]);
            command.arg(format!("unix_socket_directories={}", home.display()));
            command
        });
        answers(port, "PostgreSQL takes connections").await;
        Self { process, port }
    }

    pub fn url(&self) -> String {
        format!("postgres://app@127.0.0.1:{}/postgres", self.port)
    }

    /// `kill -9`: its other processes notice and end.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same data.
    pub async fn restart(&mut self) {
        self.process.restart();
        answers(self.port, "PostgreSQL takes connections again").await;
    }
}

fn postgres_bin() -> PathBuf {
    let versions =
        std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed (make test does it)");
    let newest = versions.filter_map(Result::ok).map(|entry| entry.path().join("bin")).max();
    newest.expect("PostgreSQL is installed (make test does it)")
}

fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
    command.current_dir("/");
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
