//! A private PostgreSQL server, when one is installed.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

const BINARIES: &str = "/usr/lib/postgresql/15/bin";

pub struct Server {
    base_url: String,
    _owned: Option<Owned>,
}

struct Owned {
    process: Child,
    _dir: tempfile::TempDir,
}

impl Drop for Owned {
    fn drop(&mut self) {
        // Its own child: SIGINT to it alone is a fast shutdown; kill is for when that fails.
        let stopped = Command::new("kill").args(["-INT", &self.process.id().to_string()]).status();
        if stopped.is_err() {
            let _already_gone = self.process.kill();
        }
        let _reaped = self.process.wait();
    }
}

impl Server {
    pub async fn start() -> Option<Self> {
        if let Ok(url) = std::env::var("HOLDFAST_TEST_PG_URL") {
            return Some(Self { base_url: url.trim_end_matches('/').to_owned(), _owned: None });
        }
        let postgres = PathBuf::from(BINARIES).join("postgres");
        if !postgres.exists() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        // PostgreSQL refuses to run as root.
        Command::new("chown").arg("postgres").arg(dir.path()).status().unwrap();
        let made = as_postgres(&Path::new(BINARIES).join("initdb"))
            .args(["-A", "trust", "-U", "app", "--no-sync", "-D"])
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "initdb failed");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = as_postgres(&postgres)
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c"])
            .arg(format!("unix_socket_directories={}", dir.path().display()))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self {
            base_url: format!("postgres://app@127.0.0.1:{port}"),
            _owned: Some(Owned { process, _dir: dir }),
        };
        for _ in 0..200 {
            if server.connect().await.is_ok() {
                return Some(server);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("PostgreSQL did not start");
    }

    pub async fn fresh_database(&self, name: &str) -> String {
        // PostgreSQL cuts names at 63 bytes.
        let name = &name[..name.len().min(60)];
        let pool = self.connect().await.unwrap();
        for sql in [format!("DROP DATABASE IF EXISTS {name}"), format!("CREATE DATABASE {name}")] {
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&pool).await.unwrap();
        }
        pool.close().await;
        format!("{}/{name}", self.base_url)
    }

    async fn connect(&self) -> Result<sqlx::PgPool, sqlx::Error> {
        sqlx::PgPool::connect(&format!("{}/postgres", self.base_url)).await
    }
}

fn as_postgres(program: &Path) -> Command {
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.starts_with(b"0\n"));
    if !is_root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
    command
}
