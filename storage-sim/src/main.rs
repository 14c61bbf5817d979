//! Runs seeds of the simulation and reports what they show.

mod processor;

use std::{
    io::{Write as _, stdout},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use holdfast_model::Clock as _;
use holdfast_runtime::SystemClock;
use holdfast_storage_sim::{Options, Outcome, Planted, Trace, run};

/// The product's: a run is made of small allocations, and the system's allocator would be an eighth of it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often progress is told.
const PROGRESS_EVERY: u64 = 100;

/// Run seeds of the deterministic simulation of storage node and storage client
#[derive(Debug, Parser)]
struct Opts {
    /// Run so many seeds
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// Begin with this seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run this seed alone
    #[arg(long)]
    seed: Option<u64>,
    /// Write every event to standard error
    #[arg(long)]
    trace: bool,
    /// Plant a defect, and stop at the first seed that finds it
    #[arg(long)]
    planted: Option<Planted>,
}

fn main() -> ExitCode {
    let opts = Opts::parse();
    if opts.trace {
        tracing_subscriber::fmt().with_writer(std::io::stderr).without_time().init();
    }
    match report(&opts) {
        Ok(code) => code,
        // Nobody reads any more.
        Err(_) => ExitCode::FAILURE,
    }
}

fn report(opts: &Opts) -> std::io::Result<ExitCode> {
    let trace = if opts.trace { Trace::On } else { Trace::Off };
    let options = Options { planted: opts.planted, trace };
    let seeds = opts.seed.map_or(opts.from..opts.from.saturating_add(opts.seeds), |seed| seed..seed + 1);
    let (started, mut slowest, mut out) = (Watch::start(), (0.0, 0), stdout().lock());
    let (mut bad, mut n, mut acked, mut committed, mut moves) = (Vec::new(), 0_u64, 0, 0, 0);
    for seed in seeds {
        let watch = Watch::start();
        let outcome = run(seed, options);
        let took = watch.processor_seconds();
        if took > slowest.0 {
            slowest = (took, seed);
        }
        n += 1;
        acked += outcome.n_acked;
        committed += outcome.n_committed;
        moves += outcome.n_moves;
        if opts.seed.is_some() {
            writeln!(out, "seed {seed}: {} events, hash {}", outcome.n_events, outcome.hash)?;
        }
        if !outcome.violations.is_empty() {
            explain(&mut out, &outcome)?;
            bad.push(seed);
            if opts.planted.is_some() {
                break;
            }
        }
        if n.is_multiple_of(PROGRESS_EVERY) {
            let mean = started.processor_seconds() / n as f64;
            writeln!(out, "{n} seeds, {} with violations, {mean:.3} s of a core a seed", bad.len())?;
        }
    }
    writeln!(
        out,
        "{n} seeds in {:.1} s ({:.3} s of a core a seed, the slowest {:.2} s: {}): {acked} records acknowledged, \
         {committed} snapshots committed, {moves} moves ended, {} seeds with violations{}",
        started.seconds(),
        started.processor_seconds() / n.max(1) as f64,
        slowest.0,
        slowest.1,
        bad.len(),
        if bad.is_empty() { String::new() } else { format!(": {bad:?}") }
    )?;
    let found_planted = opts.planted.is_some() && !bad.is_empty();
    let good = if opts.planted.is_some() { found_planted } else { bad.is_empty() };
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Takes the time of this thread, on the clock and on a processor.
struct Watch {
    started: Duration,
    used: Option<Duration>,
}

impl Watch {
    fn start() -> Self {
        Self { started: SystemClock.monotonic(), used: processor::time_used() }
    }

    fn seconds(&self) -> f64 {
        SystemClock.monotonic().saturating_sub(self.started).as_secs_f64()
    }

    /// Time on the clock where the system does not say more.
    fn processor_seconds(&self) -> f64 {
        let used = processor::time_used().zip(self.used).map(|(now, before)| now.saturating_sub(before));
        used.map_or_else(|| self.seconds(), |used| used.as_secs_f64())
    }
}

fn explain(out: &mut impl std::io::Write, outcome: &Outcome) -> std::io::Result<()> {
    writeln!(out, "seed {} shows {} violations; the last events:", outcome.seed, outcome.violations.len())?;
    for line in outcome.tail.iter().rev().take(25).rev() {
        writeln!(out, "  {line}")?;
    }
    for violation in outcome.violations.iter().take(10) {
        writeln!(out, "  {violation:?}")?;
    }
    writeln!(out, "again: cargo run -p holdfast-storage-sim -- --seed {} --trace", outcome.seed)
}
