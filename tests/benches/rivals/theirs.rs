//! The rivals' side: their own command lines on a local repository, with their defaults.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use super::{Took, cpu, folder_bytes, memory::Watch, own_pid};

const PASSWORD: &str = "only-for-the-bench";

/// Whose command line it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Restic,
    Rustic,
    /// With an option for its compression, if not the default, which favours speed over size.
    Borg(&'static [&'static str]),
}

/// A rival with a repository of its own.
pub struct Rival {
    kind: Kind,
    program: PathBuf,
    repository: PathBuf,
    cache: PathBuf,
    /// Borg wants a name for each.
    n_runs: usize,
}

impl Rival {
    /// Where `deploy/install-rivals.sh` leaves it, with an empty repository.
    pub fn start(name: &'static str, folder: &Path) -> Self {
        let (kind, program) = match name {
            "restic" => (Kind::Restic, "restic".into()),
            "rustic" => {
                let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/rivals/bin/rustic");
                (Kind::Rustic, if built.exists() { built } else { "rustic".into() })
            }
            "borg" => (Kind::Borg(&[]), "borg".into()),
            "borg-zstd3" => (Kind::Borg(&["--compression", "zstd,3"]), "borg".into()),
            other => panic!("no rival is called {other}"),
        };
        let (repository, cache) = (folder.join(name), folder.join(format!("{name}-cache")));
        let rival = Self { kind, program, repository, cache, n_runs: 0 };
        let mut command = rival.command();
        match kind {
            // The faster of its ways to authenticate.
            Kind::Borg(_) => command.args(["init", "--encryption", "repokey-blake2"]).arg(&rival.repository),
            Kind::Restic | Kind::Rustic => command.arg("init"),
        };
        run(command);
        rival
    }

    pub fn back_up(&mut self, source: &Path) -> Took {
        self.n_runs += 1;
        let mut command = self.command();
        match self.kind {
            Kind::Restic => command.args(["backup", "--quiet"]),
            Kind::Rustic => command.args(["backup", "--no-progress"]),
            Kind::Borg(options) => command.arg("create").args(options).arg(self.archive()),
        };
        command.arg(source);
        run(command)
    }

    /// The newest, with modes and times as they do by default; nothing stands in the target yet.
    pub fn restore(&self, source: &Path, target: &Path) -> Took {
        std::fs::create_dir_all(target).expect("make a folder");
        let mut command = self.command();
        match self.kind {
            Kind::Restic => command.args(["restore", "latest", "--quiet", "--target"]).arg(target),
            Kind::Rustic => {
                let latest = format!("latest:{}", source.display());
                command.args(["restore", "--no-progress", &latest]).arg(target)
            }
            Kind::Borg(_) => command.arg("extract").arg(self.archive()).current_dir(target),
        };
        run(command)
    }

    /// What the start of the program and the opening of the repository take by themselves.
    pub fn open_only(&self) -> Took {
        let mut command = self.command();
        match self.kind {
            Kind::Borg(_) => command.arg("list").arg(&self.repository),
            Kind::Restic | Kind::Rustic => command.arg("snapshots"),
        };
        run(command)
    }

    pub fn stored_bytes(&self) -> u64 {
        folder_bytes(&self.repository)
    }

    fn archive(&self) -> String {
        format!("{}::run-{}", self.repository.display(), self.n_runs)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        match self.kind {
            Kind::Borg(_) => {
                command.env("BORG_PASSPHRASE", PASSWORD).env("BORG_BASE_DIR", &self.cache);
            }
            Kind::Restic | Kind::Rustic => {
                command.env("RESTIC_PASSWORD", PASSWORD).env("RUSTIC_PASSWORD", PASSWORD);
                command.arg("--repo").arg(&self.repository).arg("--cache-dir").arg(&self.cache);
            }
        }
        command
    }
}

fn run(mut command: Command) -> Took {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let (started, cpu_before) = (Instant::now(), cpu::children_seconds(own_pid()));
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}: run deploy/install-rivals.sh"));
    let watch = Watch::start(i32::try_from(child.id()).expect("pids fit i32"));
    let mut errors = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        std::io::Read::read_to_string(&mut stderr, &mut errors).expect("read what it says");
    }
    let status = child.wait().expect("wait for the rival");
    let seconds = started.elapsed().as_secs_f64();
    assert!(status.success(), "{command:?}: {errors}");
    let cpu_seconds = cpu::children_seconds(own_pid()) - cpu_before;
    Took { seconds, cpu_seconds, peak_bytes: watch.stop() }
}
