//! Holdfast beside restic and rustic over the same files on the same disk: first run, unchanged second run, bytes stored, memory.
//!
//! One unit covers, for the rivals, a whole `backup` command with a local repository; for Holdfast, the walk, the worker's
//! pipeline and everything up to the durable record that names the snapshot, into one storage-node process over mTLS with
//! fsync. Starting the node and opening its session is outside, as both run in production; what opening a repository costs the
//! rivals is printed too. Files come from the page cache for all three, and the order changes from round to round.
//!
//! `cargo bench --bench rivals -- 256` takes 256 MiB instead of 1 GiB.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod data_set;
mod ours;
mod theirs;

use std::{path::Path, time::Instant};

use self::{data_set::DataSet, ours::Ours, theirs::Rival};

const MIB: u64 = 1 << 20;
const DEFAULT_MIB: u64 = 1_024;
const ROUNDS: usize = 3;
const CHECK_EVERY: usize = 25;
const NAMES: [&str; 3] = ["holdfast", "restic", "rustic"];

/// What a run took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    pub seconds: f64,
    pub peak_bytes: u64,
}

/// The measurements of one contestant.
#[derive(Default)]
struct Results {
    first: Vec<Took>,
    second: Vec<Took>,
    /// Opening the repository by itself; not of ours, whose node and session are open already.
    open: Vec<Option<Took>>,
    stored: Vec<u64>,
}

struct Contestants {
    ours: Ours,
    restic: Rival,
    rustic: Rival,
    node_peak: u64,
}

/// The highest resident size a process ever had; none when it is gone.
pub fn peak_memory(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// Bytes of all files below a folder.
pub fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, metadata)| if metadata.is_dir() { folder_bytes(&path) } else { metadata.len() })
        .sum()
}

impl Contestants {
    async fn start(folder: &Path) -> Self {
        let node = folder.join("holdfast");
        std::fs::create_dir_all(&node).expect("make a folder");
        Self {
            ours: Ours::start(&node).await,
            restic: Rival::start("restic", folder),
            rustic: Rival::start("rustic", folder),
            node_peak: 0,
        }
    }

    /// Runs one of them, with nothing of the one before left to write.
    async fn back_up(&mut self, which: usize, source: &Path) -> Took {
        nix::unistd::sync();
        match which {
            0 => self.back_up_ours(source).await,
            1 => self.restic.back_up(source),
            _ => self.rustic.back_up(source),
        }
    }

    async fn back_up_ours(&mut self, source: &Path) -> Took {
        let own = i32::try_from(std::process::id()).expect("pids fit i32");
        for pid in [own, self.ours.node_pid()] {
            // Starts the high-water mark afresh.
            std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("reset the peak");
        }
        let started = Instant::now();
        self.ours.back_up(source).await.expect("back up");
        let seconds = started.elapsed().as_secs_f64();
        self.node_peak = peak_memory(self.ours.node_pid()).unwrap_or_default().max(self.node_peak);
        Took { seconds, peak_bytes: peak_memory(own).unwrap_or_default() }
    }

    fn stored(&self, which: usize) -> u64 {
        match which {
            0 => self.ours.stored_bytes(),
            1 => self.restic.stored_bytes(),
            _ => self.rustic.stored_bytes(),
        }
    }

    fn open_only(&self, which: usize) -> Option<Took> {
        match which {
            0 => None,
            1 => Some(self.restic.open_only()),
            _ => Some(self.rustic.open_only()),
        }
    }
}

fn median<T: Copy + PartialOrd>(values: impl IntoIterator<Item = T>) -> T {
    let mut values: Vec<T> = values.into_iter().collect();
    values.sort_by(|a, b| a.partial_cmp(b).expect("measurements are numbers"));
    values[values.len() / 2]
}

fn seconds(took: &[Took]) -> f64 {
    median(took.iter().map(|one| one.seconds))
}

async fn round(number: usize, folder: &Path, data: &DataSet, results: &mut [Results; 3]) {
    let mut contestants = Contestants::start(folder).await;
    let order = [0, 1, 2].map(|at| (at + number) % NAMES.len());
    for which in order {
        results[which].first.push(contestants.back_up(which, &data.folder).await);
        results[which].stored.push(contestants.stored(which));
    }
    for which in order {
        results[which].second.push(contestants.back_up(which, &data.folder).await);
        results[which].open.push(contestants.open_only(which));
    }
    let n_compared = contestants.ours.check(&data.folder, CHECK_EVERY).await.expect("every byte comes back");
    assert!(n_compared > 0, "nothing was compared");
    let last = |took: &[Took]| took.last().map_or(0.0, |one| one.seconds);
    for (name, result) in NAMES.iter().zip(results.iter()) {
        let opening = result.open.last().copied().flatten();
        let opening = opening.map_or(String::new(), |open| format!(" (opening alone {:.3} s)", open.seconds));
        println!(
            "rivals/round={number}/{name}: first {:.2} s, unchanged {:.3} s{opening}",
            last(&result.first),
            last(&result.second)
        );
    }
    println!(
        "rivals/round={number}/holdfast: {n_compared} files read back and compared, storage node's peak {} MiB",
        contestants.node_peak / MIB
    );
}

fn report(data: &DataSet, results: &[Results; 3]) {
    let mib = data.bytes as f64 / MIB as f64;
    for (name, result) in NAMES.iter().zip(results) {
        let peak = |took: &[Took]| median(took.iter().map(|one| one.peak_bytes)) / MIB;
        println!(
            "rivals/{name}: first {:.2} s ({:.0} MiB/s, peak {} MiB), unchanged {:.3} s (peak {} MiB), stored {:.3} of the source",
            seconds(&result.first),
            mib / seconds(&result.first),
            peak(&result.first),
            seconds(&result.second),
            peak(&result.second),
            median(result.stored.iter().copied()) as f64 / data.bytes as f64
        );
    }
    let [ours, rivals @ ..] = results;
    for (name, rival) in NAMES[1..].iter().zip(rivals) {
        let ratio = |of: fn(&Results) -> &[Took]| {
            median(of(ours).iter().zip(of(rival)).map(|(a, b)| a.seconds / b.seconds))
        };
        println!(
            "rivals: holdfast takes {:.2} of {name}'s time for the first run, {:.3} for the unchanged one (goal: below 1)",
            ratio(|results| &results.first),
            ratio(|results| &results.second)
        );
    }
}

#[tokio::main]
async fn main() {
    holdfast_runtime::install_crypto();
    let mib = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(DEFAULT_MIB);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder on the disk of target/");
    let data = DataSet::generate(&folder.path().join("source"), mib * MIB);
    println!("rivals: {} files, {} MiB, {ROUNDS} rounds, medians", data.n_files, data.bytes / MIB);
    let mut results: [Results; 3] = Default::default();
    for number in 0..ROUNDS {
        let folder = folder.path().join(format!("round-{number}"));
        std::fs::create_dir(&folder).expect("make a folder");
        round(number, &folder, &data, &mut results).await;
        std::fs::remove_dir_all(&folder).expect("remove the round's repositories");
    }
    report(&data, &results);
}
