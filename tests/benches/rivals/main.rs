//! Holdfast beside restic, rustic and borg over the same files on the same disk: first run, unchanged run, a run after one
//! file in a hundred changed, restore of everything, bytes stored, memory.
//!
//! One unit covers, for the rivals, a whole command with a local repository; for Holdfast, the walk, the worker's pipeline and
//! everything up to the durable record that names the snapshot, into one storage-node process over mTLS with fsync. Starting
//! the node and opening its session is outside, as both run in production; what opening a repository costs the rivals is
//! measured too. Files come from the page cache for all, and the order changes from round to round.
//!
//! `cargo bench --bench rivals -- 256` takes 256 MiB instead of 1 GiB; `plan.rs` tells what else can be set.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

#[path = "../allocator.rs"]
mod allocator;
mod compare;
mod cpu;
mod data_set;
mod memory;
mod ours;
mod plan;
mod report;
mod restore;
mod theirs;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use self::{
    data_set::DataSet,
    memory::{peak_memory, reset_peak},
    ours::Ours,
    plan::Plan,
    report::Results,
    theirs::Rival,
};

const MIB: u64 = 1 << 20;
const CHECK_EVERY: usize = 25;

/// What a run took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    pub seconds: f64,
    pub cpu_seconds: f64,
    pub peak_bytes: u64,
}

/// What is measured, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    First,
    Unchanged,
    Changed,
    Restore,
}

impl Phase {
    pub const ALL: [Self; 4] = [Self::First, Self::Unchanged, Self::Changed, Self::Restore];

    /// What it is called in a plan.
    pub fn word(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Unchanged => "unchanged",
            Self::Changed => "changed",
            Self::Restore => "restore",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first run",
            Self::Unchanged => "unchanged run",
            Self::Changed => "run after 1 % of the files changed",
            Self::Restore => "restore of everything",
        }
    }
}

enum Contestant {
    Ours(Box<Ours>),
    Rival(Rival),
}

/// Bytes of all files below a folder.
pub fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, metadata)| if metadata.is_dir() { folder_bytes(&path) } else { metadata.len() })
        .sum()
}

impl Contestant {
    async fn start(name: &'static str, folder: &Path) -> Self {
        if name != plan::NAMES[0] {
            return Self::Rival(Rival::start(name, folder));
        }
        let folder = folder.join("holdfast");
        std::fs::create_dir_all(&folder).expect("make a folder");
        Self::Ours(Box::new(Ours::start(&folder).await))
    }

    /// Runs a phase, with nothing of what ran before left to write.
    async fn run(&mut self, phase: Phase, source: &Path, target: &Path) -> Took {
        nix::unistd::sync();
        match (self, phase) {
            (Self::Ours(ours), phase) => run_ours(ours, phase, source, target).await,
            (Self::Rival(rival), Phase::Restore) => rival.restore(source, target),
            (Self::Rival(rival), _) => rival.back_up(source),
        }
    }

    fn stored_bytes(&self) -> u64 {
        match self {
            Self::Ours(ours) => ours.stored_bytes(),
            Self::Rival(rival) => rival.stored_bytes(),
        }
    }

    fn open_only(&self) -> Option<Took> {
        match self {
            Self::Ours(_) => None,
            Self::Rival(rival) => Some(rival.open_only()),
        }
    }
}

/// Memory is that of both roles: this process, which is the worker, and the storage node.
async fn run_ours(ours: &mut Ours, phase: Phase, source: &Path, target: &Path) -> Took {
    let roles = [own_pid(), ours.node_pid()];
    roles.iter().for_each(|pid| reset_peak(*pid));
    let cpu_before = roles.map(cpu::own_seconds);
    let started = Instant::now();
    match phase {
        Phase::Restore => ours.restore(target).await.map(|_| ()).expect("restore"),
        Phase::First | Phase::Unchanged | Phase::Changed => {
            ours.back_up(source).await.map(|_| ()).expect("back up");
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let [worker_cpu, node_cpu] = std::array::from_fn(|role| cpu::own_seconds(roles[role]) - cpu_before[role]);
    let [worker, node] = roles.map(|pid| peak_memory(pid).unwrap_or_default());
    println!(
        "rivals/holdfast/{}: worker {} MiB at most and {worker_cpu:.2} s of CPU, node {} MiB and {node_cpu:.2} s",
        phase.name(),
        worker / MIB,
        node / MIB
    );
    Took { seconds, cpu_seconds: worker_cpu + node_cpu, peak_bytes: worker + node }
}

pub fn own_pid() -> i32 {
    i32::try_from(std::process::id()).expect("pids fit i32")
}

async fn round(number: usize, folder: &Path, data: &DataSet, (plan, results): (&Plan, &mut [Results])) {
    let names = &plan.names;
    let mut contestants = Vec::new();
    for name in names {
        contestants.push(Contestant::start(name, folder).await);
    }
    let order: Vec<usize> = (0..names.len()).map(|at| (at + number) % names.len()).collect();
    for phase in plan.phases.iter().copied() {
        if phase == Phase::Changed {
            data.change(number);
        }
        for which in &order {
            let (contestant, result) = (&mut contestants[*which], &mut results[*which]);
            let n_before = result.took[phase as usize].len();
            let target = folder.join(format!("restored-{n_before}-{}", names[*which]));
            let took = contestant.run(phase, &data.folder, &target).await;
            println!(
                "rivals/round={number}/{}: {} {:.3} s, {:.2} s of CPU",
                names[*which],
                phase.name(),
                took.seconds,
                took.cpu_seconds
            );
            result.took[phase as usize].push(took);
            match phase {
                Phase::First => result.stored.push(contestant.stored_bytes()),
                Phase::Unchanged => result.open.push(contestant.open_only()),
                Phase::Changed => result.stored_after_change.push(contestant.stored_bytes()),
                Phase::Restore => check(data, &target),
            }
        }
    }
    if let Contestant::Ours(ours) = &contestants[0] {
        println!("rivals/round={number}/holdfast: on disk {}", ours.stored_parts());
    }
}

/// Compares some of the files.
///
/// What was restored stays until the end: for minutes ext4 looks again and again at every inode that was just deleted before
/// it makes a file, so that whoever restores next would pay for the files of the one before.
fn check(data: &DataSet, target: &Path) {
    let n_compared = compare::some_files(&data.folder, &restored_root(&data.folder, target), CHECK_EVERY);
    assert!(n_compared > 0, "nothing was compared");
}

/// Some restore below the whole path of the source, some do not.
fn restored_root(source: &Path, target: &Path) -> PathBuf {
    let below = source.strip_prefix("/").expect("the bench's folder is absolute");
    let nested = target.join(below);
    if nested.exists() { nested } else { target.to_owned() }
}

#[tokio::main]
async fn main() {
    holdfast_runtime::install_crypto();
    let plan = Plan::read(std::env::args().skip(1));
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder on the disk of target/");
    // As some of them store it.
    let root = folder.path().canonicalize().expect("the folder was just made");
    let data = DataSet::generate(&root.join("source"), plan.mib * MIB);
    println!("rivals: {} files, {} MiB, {} rounds, medians", data.files.len(), data.bytes / MIB, plan.rounds);
    let mut results: Vec<Results> = plan.names.iter().map(|name| Results::new(name)).collect();
    for number in 0..plan.rounds {
        let folder = root.join(format!("round-{number}"));
        std::fs::create_dir(&folder).expect("make a folder");
        round(number, &folder, &data, (&plan, &mut results)).await;
    }
    report::print(&data, &plan, &results);
}
