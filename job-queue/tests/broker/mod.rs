//! A RabbitMQ of our own for the time of a test: on loopback, on free ports, in a temporary folder.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const START_TIMEOUT: Duration = Duration::from_secs(90);

pub struct Broker {
    dir: tempfile::TempDir,
    port: u16,
    epmd_port: u16,
    dist_port: u16,
    child: Option<Child>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Broker {
    /// Starts a broker; `None` if none is installed.
    pub async fn start() -> Option<Self> {
        if !Path::new(SERVER).exists() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut broker =
            Self { dir, port: free_port(), epmd_port: free_port(), dist_port: free_port(), child: None };
        let (port, dist) = (broker.port, broker.dist_port);
        let conf = format!(
            "listeners.tcp.default = 127.0.0.1:{port}\nvm_memory_high_watermark.absolute = 512MB\n\
             disk_free_limit.absolute = 10MB\nlog.console = false\n"
        );
        let advanced = format!(
            "[{{kernel,[{{inet_dist_use_interface,{{127,0,0,1}}}},\
             {{inet_dist_listen_min,{dist}}},{{inet_dist_listen_max,{dist}}}]}}]."
        );
        std::fs::write(broker.path("rabbitmq.conf"), conf).unwrap();
        std::fs::write(broker.path("advanced.config"), advanced).unwrap();
        std::fs::write(broker.path("enabled_plugins"), "[].").unwrap();
        broker.launch().await;
        Some(broker)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// Starts the process and waits until it speaks AMQP.
    pub async fn launch(&mut self) {
        let child = Command::new(SERVER)
            .env("HOME", self.dir.path())
            .env("RABBITMQ_NODENAME", "holdfast@localhost")
            .env("RABBITMQ_MNESIA_BASE", self.path("mnesia"))
            .env("RABBITMQ_LOG_BASE", self.path("log"))
            .env("RABBITMQ_CONFIG_FILE", self.path("rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", self.path("advanced.config"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", self.path("enabled_plugins"))
            .env("RABBITMQ_PID_FILE", self.path("pid"))
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("RABBITMQ_DIST_PORT", self.dist_port.to_string())
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 1:1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let deadline = tokio::time::Instant::now() + START_TIMEOUT;
        while lapin::Connection::connect(&self.url(), lapin::ConnectionProperties::default()).await.is_err() {
            assert!(
                tokio::time::Instant::now() < deadline,
                "the broker did not start, see {:?}",
                self.path("log")
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Kills the broker without a warning.
    pub fn kill(&mut self) {
        if let Ok(pid) = std::fs::read_to_string(self.path("pid")) {
            // The server's own process, by the id it wrote down; the child is the script that started it.
            Command::new("kill").args(["-KILL", pid.trim()]).status().unwrap();
            let gone = format!("/proc/{}", pid.trim());
            while std::fs::read_to_string(format!("{gone}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
                std::thread::sleep(Duration::from_millis(20));
            }
            std::fs::remove_file(self.path("pid")).ok();
        }
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().unwrap();
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        // The port mapper outlives the server; this asks the one on our port alone. It refuses while it still counts
        // the killed server as alive.
        for _ in 0..50 {
            let asked = Command::new("epmd")
                .args(["-port", &self.epmd_port.to_string(), "-kill"])
                .env("ERL_EPMD_ADDRESS", "127.0.0.1")
                .output();
            if asked.is_err() || std::net::TcpStream::connect(("127.0.0.1", self.epmd_port)).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
