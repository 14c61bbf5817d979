//! The rivals' side: their own command lines on a local repository, with their defaults.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{Took, folder_bytes, peak_memory};

const PASSWORD: &str = "only-for-the-bench";
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A rival with a repository of its own.
pub struct Rival {
    program: PathBuf,
    repository: PathBuf,
    cache: PathBuf,
    /// Their quiet flag, which the two spell differently.
    quiet: &'static str,
}

impl Rival {
    /// Where `deploy/install-rivals.sh` leaves it, with an empty repository.
    pub fn start(name: &'static str, folder: &Path) -> Self {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/rivals/bin").join(name);
        let program = if built.exists() { built } else { name.into() };
        let (repository, cache) = (folder.join(name), folder.join(format!("{name}-cache")));
        let quiet = if name == "rustic" { "--no-progress" } else { "--quiet" };
        let rival = Self { program, repository, cache, quiet };
        rival.run(&["init"]);
        rival
    }

    pub fn back_up(&self, source: &Path) -> Took {
        let source = source.to_str().expect("the bench's own folder has a plain name");
        self.run(&["backup", self.quiet, source])
    }

    /// What the start of the program and the opening of the repository take by themselves.
    pub fn open_only(&self) -> Took {
        self.run(&["snapshots"])
    }

    pub fn stored_bytes(&self) -> u64 {
        folder_bytes(&self.repository)
    }

    fn run(&self, arguments: &[&str]) -> Took {
        let mut command = Command::new(&self.program);
        command.arg("--repo").arg(&self.repository).arg("--cache-dir").arg(&self.cache).args(arguments);
        command.env("RESTIC_PASSWORD", PASSWORD).env("RUSTIC_PASSWORD", PASSWORD);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("cannot start {}: {error}: run deploy/install-rivals.sh", self.program.display())
        });
        let pid = i32::try_from(child.id()).expect("pids fit i32");
        let watch = std::thread::spawn(move || {
            let mut peak = 0;
            while let Some(now) = peak_memory(pid) {
                peak = now.max(peak);
                std::thread::sleep(LOOK_EVERY);
            }
            peak
        });
        let mut errors = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            std::io::Read::read_to_string(&mut stderr, &mut errors).expect("read what it says");
        }
        let status = child.wait().expect("wait for the rival");
        let seconds = started.elapsed().as_secs_f64();
        assert!(status.success(), "{command:?}: {errors}");
        Took { seconds, peak_bytes: watch.join().expect("the watch ends with the process") }
    }
}
