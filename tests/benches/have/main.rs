//! `have` of one storage node's core: ids per second and core, with touches recorded, on a real index of more than a million
//! records on disk.
//!
//! One unit covers: the question as the gRPC edge hands it over → who owns the ids → index lookup → touch log appended and
//! synced → touch kept in memory → answer; and its share of applying what is kept to the index, which comes due several times in
//! each timed part. Filling the node, making up ids and raising the epoch are outside the timed part. *Per core* divides by CPU time of the whole process, not by elapsed time: what the disk makes it wait for is not counted.
//!
//! `touch=all`: every id that is there has not been asked for in this epoch, as in the first backup after an epoch began.
//! `touch=none`: the same ids asked again in the same epoch.
//!
//! `cargo bench --bench have -- 262144` fills in so many records instead of a million.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::cast_precision_loss)]

mod limits;
mod node;

use std::time::Instant;

use holdfast_storage_node::index::WAITING_MAX;
use nix::sys::resource::{UsageWho, getrusage};

use self::{limits::Limits, node::Filled};

const RECORDS: u64 = 1 << 20;
/// Ids in one question: the wire's limit, and what workers send.
const BATCH: usize = 4_096;
/// All records are asked for once where every id is there: four times as many touches as may wait in memory.
const BATCHES: usize = 256;
/// Questions of one session under way, as the storage client keeps them.
const BATCHES_IN_FLIGHT: usize = 8;
const ROUNDS: usize = 3;
const GOAL: f64 = 150_000.0;

/// What a piece of work took.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    pub n: usize,
    pub seconds: f64,
    pub cpu_seconds: f64,
}

impl Cost {
    pub fn per_second(&self) -> f64 {
        self.n as f64 / self.seconds
    }

    pub fn per_cpu_second(&self) -> f64 {
        self.n as f64 / self.cpu_seconds
    }

    pub fn cpu_ns_each(&self) -> f64 {
        self.cpu_seconds * 1e9 / self.n as f64
    }
}

/// Elapsed and CPU time since it was started.
pub struct Meter {
    started: Instant,
    cpu_before: f64,
}

impl Meter {
    pub fn start() -> Self {
        Self { started: Instant::now(), cpu_before: cpu_seconds() }
    }

    pub fn stop(&self, n: usize) -> Cost {
        let (seconds, cpu_seconds) = (self.started.elapsed().as_secs_f64(), cpu_seconds() - self.cpu_before);
        Cost { n, seconds, cpu_seconds }
    }
}

/// User and system time of all threads of this process.
fn cpu_seconds() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("a process may ask what it used");
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

fn median(mut costs: Vec<Cost>) -> Cost {
    costs.sort_by(|a, b| a.per_cpu_second().total_cmp(&b.per_cpu_second()));
    costs[costs.len() / 2]
}

fn print(name: &str, cost: &Cost) {
    println!(
        "have/{name}: {:.0} ids/s per core used, {:.0} ids/s elapsed, {:.0} ns of CPU per id",
        cost.per_cpu_second(),
        cost.per_second(),
        cost.cpu_ns_each()
    );
}

#[tokio::main]
async fn main() {
    holdfast_runtime::install_crypto();
    let n_records = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(RECORDS);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder on the disk of target/");
    let filling = Instant::now();
    let mut filled = Filled::start(folder.path(), n_records).await;
    println!("have: {n_records} records put in {:.1} s", filling.elapsed().as_secs_f64());
    let (mut mixed, mut again, mut present, mut absent) = (vec![], vec![], vec![], vec![]);
    for round in 0..ROUNDS {
        let asked = filled.questions(50);
        filled.next_epoch();
        mixed.push(filled.ask(&asked).await);
        print(&format!("present=50%/touch=all/batch={BATCH}/round={round}"), &mixed[round]);
        again.push(filled.ask(&asked).await);
        print(&format!("present=50%/touch=none/batch={BATCH}/round={round}"), &again[round]);
        let asked = filled.questions(100);
        filled.next_epoch();
        present.push(filled.ask(&asked).await);
        print(&format!("present=100%/touch=all/batch={BATCH}/round={round}"), &present[round]);
        let asked = filled.questions(0);
        absent.push(filled.ask(&asked).await);
        print(&format!("present=0%/touch=none/batch={BATCH}/round={round}"), &absent[round]);
    }
    let asked = filled.questions(50);
    let epoch = filled.close().await;
    let limits = limits::measure(folder.path(), &asked, epoch);
    println!("have: the machine's limits, one thread, the same index and ids:");
    print("limit/index-lookups", &limits.lookups);
    print(&format!("limit/touches-into-the-index/at-once={WAITING_MAX}"), &limits.touches);
    let LogCost { batch_bytes, cost } = &limits.log;
    println!(
        "have/limit/touch-log: {:.0} appends + fdatasync a second of {batch_bytes} bytes each",
        cost.per_second()
    );
    for (name, costs) in [("present=50%/touch=none", again), ("present=0%/touch=none", absent)] {
        print(&format!("{name}/median"), &median(costs));
    }
    for (percent, costs) in [(50, mixed), (100, present)] {
        judge(percent, &median(costs), &limits);
    }
}

fn judge(present_percent: u32, cost: &Cost, limits: &Limits) {
    print(&format!("present={present_percent}%/touch=all/median"), cost);
    let touched = f64::from(present_percent) / 100.0;
    let parts = limits.lookups.cpu_ns_each() + limits.touches.cpu_ns_each() * touched;
    println!(
        "have: {:.0} ids/s per core with touches recorded, {present_percent} % of them there (goal {GOAL:.0}): {}; index lookups and touches alone cost {parts:.0} of its {:.0} ns",
        cost.per_cpu_second(),
        if cost.per_cpu_second() >= GOAL { "reached" } else { "missed" },
        cost.cpu_ns_each()
    );
}

/// Appending to the touch log.
pub struct LogCost {
    pub batch_bytes: usize,
    pub cost: Cost,
}
