//! A small file system of its own, so that a disk can really be full. Only root may mount one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::statvfs::statvfs;

const BALLAST: &str = "ballast";

/// A mounted tmpfs; unmounted when dropped. Drop it after the processes that use it.
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts it, or says why that is not possible here.
    pub fn mount(path: &Path, bytes: u64) -> Result<Self, String> {
        fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let options = format!("size={bytes},mode=0700");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &options, "holdfast-test"]).arg(path);
        run(&mut command)?;
        Ok(Self { path: path.to_owned() })
    }

    /// What is left.
    pub fn free_bytes(&self) -> u64 {
        let stats = statvfs(&self.path).expect("measure the file system");
        stats.blocks_available() * stats.fragment_size()
    }

    /// Fills it up to so many free bytes.
    pub fn fill(&self, leave_bytes: u64) {
        let ballast = self.free_bytes().saturating_sub(leave_bytes);
        let zeros = vec![0; usize::try_from(ballast).expect("it is small")];
        fs::write(self.path.join(BALLAST), zeros).expect("write the ballast");
    }

    /// Makes room again.
    pub fn make_room(&self) {
        fs::remove_file(self.path.join(BALLAST)).expect("remove the ballast");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.path);
    }
}

/// A folder seen through a read-only mount; unmounted when dropped.
pub struct ReadOnly {
    path: PathBuf,
}

impl ReadOnly {
    /// Mounts it, or says why that is not possible here.
    pub fn mount(folder: &Path, path: &Path) -> Result<Self, String> {
        fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))?;
        run(Command::new("mount").arg("--bind").arg(folder).arg(path))?;
        // Dropped, and so unmounted, if the second step fails.
        let mounted = Self { path: path.to_owned() };
        run(Command::new("mount").args(["-o", "remount,ro,bind"]).arg(path))?;
        Ok(mounted)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        unmount(&self.path);
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("mount: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

/// Lazily: a process that was killed a moment ago may still hold it.
fn unmount(path: &Path) {
    let done = Command::new("umount").arg("-l").arg(path).status();
    if !done.is_ok_and(|status| status.success()) {
        eprintln!("{} stays mounted", path.display());
    }
}
