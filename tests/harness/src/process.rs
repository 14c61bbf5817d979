//! Child processes that a test can stop, kill and start again, with their output kept in a file.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// The `holdfast` binary of this build.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let folder = test.parent().and_then(Path::parent).expect("tests live in target/PROFILE/deps");
    let binary = folder.join("holdfast");
    assert!(binary.exists(), "{} is missing: run `cargo build --bin holdfast` (make does)", binary.display());
    binary
}

/// A child process that is killed when dropped.
pub struct Process {
    name: String,
    command: Box<dyn Fn() -> Command + Send + Sync>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Starts a process; its output is appended to `<folder>/<name>.log`.
    pub fn start(name: &str, folder: &Path, command: impl Fn() -> Command + Send + Sync + 'static) -> Self {
        let mut process = Self {
            name: name.to_owned(),
            command: Box::new(command),
            log: folder.join(format!("{name}.log")),
            child: None,
        };
        process.restart();
        process
    }

    /// Starts it again after it ended.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "{} is running already", self.name);
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(&self.log).expect("open the log");
        let copy = log.try_clone().expect("clone the log handle");
        let child = (self.command)().stdin(Stdio::null()).stdout(log).stderr(copy).spawn();
        self.child = Some(child.unwrap_or_else(|error| panic!("cannot start {}: {error}", self.name)));
    }

    pub fn pid(&self) -> Pid {
        let child = self.child.as_ref().expect("the process runs");
        Pid::from_raw(i32::try_from(child.id()).expect("pids fit i32"))
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.name));
    }

    /// `kill -9`, and gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM; the exit code, or `None` when it did not end in time and was killed.
    pub fn terminate(&mut self, within: Duration) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + within;
        let mut child = self.child.take()?;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = child.try_wait() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = child.kill();
        let _ = child.wait();
        None
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Everything it has printed.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The highest resident size it ever had, in bytes.
    pub fn peak_memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let output = self.output();
            let tail: Vec<&str> = output.lines().rev().take(40).collect();
            eprintln!("--- last lines of {}", self.name);
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
    }
}

/// Ports nobody uses, all different.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let held: Vec<std::net::TcpListener> =
        (0..N).map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("bind a free port")).collect();
    std::array::from_fn(|index| held[index].local_addr().expect("a bound socket has an address").port())
}
