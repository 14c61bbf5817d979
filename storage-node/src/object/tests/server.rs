//! SeaweedFS: a real S3 server, started for one test on ports and in a folder of its own.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
    primitives::ByteStream,
};
use bytes::Bytes;
use holdfast_runtime::SystemClock;

use super::place::TestStore;
use crate::{
    LockOption, S3Options,
    object::{ListPage, ObjectError, ObjectInfo, ObjectStore, PutNew, S3Store},
};

pub const ACCESS_KEY: &str = "holdfast-test-key";
pub const SECRET: &str = "s3cr3t-of-the-test-do-not-show";
/// A key that may only read and list.
pub const READER_KEY: &str = "holdfast-reader-key";

/// The start takes about three seconds on an idle machine.
const START_WITHIN_TRIES: usize = 900;
const TRY_EVERY: Duration = Duration::from_millis(100);
/// What it leaves in /tmp when it is killed, each with a port.
const SOCKETS: [&str; 6] = ["master-grpc", "volume-grpc", "filer", "filer-grpc", "s3", "s3-grpc"];

/// A running server.
pub struct Server {
    child: Child,
    ports: [u16; 10],
    folder: tempfile::TempDir,
    /// Files of keys written so far.
    keys: AtomicUsize,
    pub client: Client,
}

impl Server {
    /// Starts it with a bucket `locked` that has object lock and one `plain` that has not.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let identity = |name: &str, key: &str, actions: &str| {
            format!(
                r#"{{"name": "{name}", "credentials": [{{"accessKey": "{key}", "secretKey": "{SECRET}"}}], "actions": [{actions}]}}"#
            )
        };
        let admin = identity("admin", ACCESS_KEY, r#""Admin", "Read", "Write", "List", "Tagging""#);
        let reader = identity("reader", READER_KEY, r#""Read", "List""#);
        fs::write(folder.path().join("s3.json"), format!(r#"{{"identities": [{admin}, {reader}]}}"#))
            .unwrap();
        let ports = free_ports();
        let child = spawn(folder.path(), &ports);
        let client = client(ports[8]);
        let server = Self { child, ports, folder, keys: AtomicUsize::new(0), client };
        server.answers().await;
        let create = |bucket: &str| server.client.create_bucket().bucket(bucket);
        create("locked").object_lock_enabled_for_bucket(true).send().await.expect("make a bucket with lock");
        create("plain").send().await.expect("make a bucket");
        server
    }

    async fn answers(&self) {
        for _ in 0..START_WITHIN_TRIES {
            if self.client.list_buckets().send().await.is_ok() {
                return;
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
        panic!("SeaweedFS does not answer: {}", self.log());
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines().rev().take(20).collect::<Vec<_>>().join("\n")
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same data.
    pub async fn restart(&mut self) {
        self.child = spawn(self.folder.path(), &self.ports);
        self.answers().await;
    }

    /// How a node is told to use a bucket of it.
    pub fn options(&self, bucket: &str, prefix: &str) -> S3Options {
        self.options_with(bucket, prefix, (ACCESS_KEY, SECRET))
    }

    pub fn options_with(&self, bucket: &str, prefix: &str, (id, secret): (&str, &str)) -> S3Options {
        let n = self.keys.fetch_add(1, Ordering::Relaxed);
        let (id_file, secret_file) =
            (self.folder.path().join(format!("{n}.id")), self.folder.path().join(format!("{n}.secret")));
        fs::write(&id_file, format!("{id}\n")).unwrap();
        fs::write(&secret_file, format!("{secret}\n")).unwrap();
        S3Options {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint_url: Some(format!("http://127.0.0.1:{}", self.ports[8])),
            region: "us-east-1".to_owned(),
            path_style: true,
            access_key_id_file: id_file,
            secret_access_key_file: secret_file,
            upload_bytes: holdfast_runtime::ByteSize::kib(64),
            upload_seconds: 300,
            lock: if bucket == "locked" { LockOption::Compliance } else { LockOption::None },
            lock_days: 30,
        }
    }

    /// The store of a node, and a way to damage its objects.
    pub fn store(&self, options: &S3Options) -> Arc<RealStore> {
        let store = S3Store::new(options, Arc::new(SystemClock)).unwrap();
        Arc::new(RealStore { store, client: self.client.clone(), bucket: options.bucket.clone() })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // At SIGTERM it takes twenty seconds; nothing in it is kept.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // It listens on sockets there too, named after its ports.
        for name in SOCKETS {
            for port in self.ports {
                let _ = fs::remove_file(format!("/tmp/seaweedfs-{name}-{port}.sock"));
            }
        }
        if std::thread::panicking() {
            eprintln!("--- SeaweedFS, newest first\n{}", self.log());
        }
    }
}

fn binary() -> PathBuf {
    let binary = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-tools/seaweedfs/bin/weed");
    assert!(binary.exists(), "{} is missing: run deploy/install-seaweedfs.sh (make does)", binary.display());
    binary
}

fn spawn(folder: &Path, ports: &[u16; 10]) -> Child {
    let data = folder.join("data");
    fs::create_dir_all(&data).unwrap();
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
    let mut command = Command::new(binary());
    command.args(["-logtostderr", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-volume.max=20"]);
    command.args(["-master.volumeSizeLimitMB=64", "-filer", "-s3", "-master.telemetry=false"]);
    command.args(["-s3.port.iceberg=0", "-s3.port.lance=0"]);
    command.arg(format!("-dir={}", data.display()));
    command.arg(format!("-s3.config={}", folder.join("s3.json").display()));
    let names = ["master", "master", "volume", "volume", "filer", "filer", "", "", "s3", "s3"];
    for (n, (name, port)) in names.iter().zip(ports).enumerate().filter(|(_, (name, _))| !name.is_empty()) {
        let kind = if n % 2 == 0 { "port" } else { "port.grpc" };
        command.arg(format!("-{name}.{kind}={port}"));
    }
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().expect("start SeaweedFS")
}

fn client(port: u16) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(Credentials::new(ACCESS_KEY, SECRET, None, None, "test"))
        .region(Region::new("us-east-1"))
        .endpoint_url(format!("http://127.0.0.1:{port}"))
        .force_path_style(true)
        .build();
    Client::from_conf(config)
}

/// Ports nobody uses, all different.
fn free_ports() -> [u16; 10] {
    let held: Vec<TcpListener> = (0..10).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    std::array::from_fn(|n| held[n].local_addr().unwrap().port())
}

/// A node's own store, and the administrator's hand in the bucket.
pub struct RealStore {
    store: S3Store,
    client: Client,
    bucket: String,
}

#[async_trait]
impl TestStore for RealStore {
    async fn overwrite(&self, key: &str, bytes: Option<Bytes>) {
        match bytes {
            Some(bytes) => {
                let put =
                    self.client.put_object().bucket(&self.bucket).key(key).body(ByteStream::from(bytes));
                put.send().await.expect("overwrite an object");
            }
            None => {
                let delete = self.client.delete_object().bucket(&self.bucket).key(key);
                delete.send().await.expect("delete an object");
            }
        }
    }
}

#[async_trait]
impl ObjectStore for RealStore {
    async fn put_new(
        &self,
        key: &str,
        bytes: Bytes,
        locked_until_ms: Option<u64>,
    ) -> Result<PutNew, ObjectError> {
        self.store.put_new(key, bytes, locked_until_ms).await
    }

    async fn get_range(&self, key: &str, range: std::ops::Range<u64>) -> Result<Bytes, ObjectError> {
        self.store.get_range(key, range).await
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo, ObjectError> {
        self.store.head(key).await
    }

    async fn list_page(&self, prefix: &str, from: Option<String>) -> Result<ListPage, ObjectError> {
        self.store.list_page(prefix, from).await
    }

    async fn is_lockable(&self) -> Result<bool, ObjectError> {
        self.store.is_lockable().await
    }

    async fn delete_version(&self, key: &str, version: &str) -> Result<(), ObjectError> {
        self.store.delete_version(key, version).await
    }
}
