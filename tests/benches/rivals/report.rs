//! The one table: medians, what ours takes of theirs, and where the goals are missed.

use super::{MIB, Phase, Took, data_set::DataSet, plan::Plan};

/// Stored bytes may be so much above the best rival's.
const STORED_GOAL: f64 = 1.03;

/// The measurements of one contestant, one per round.
#[derive(Default)]
pub struct Results {
    pub name: &'static str,
    /// By phase.
    pub took: [Vec<Took>; Phase::ALL.len()],
    /// Opening the repository by itself; not of ours, whose node and session are open already.
    pub open: Vec<Option<Took>>,
    pub stored: Vec<u64>,
    pub stored_after_change: Vec<u64>,
}

impl Results {
    pub fn new(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    fn seconds(&self, phase: Phase) -> f64 {
        median(self.took[phase as usize].iter().map(|one| one.seconds))
    }

    fn cpu_seconds(&self, phase: Phase) -> f64 {
        median(self.took[phase as usize].iter().map(|one| one.cpu_seconds))
    }

    fn peak_mib(&self, phase: Phase) -> u64 {
        median(self.took[phase as usize].iter().map(|one| one.peak_bytes)) / MIB
    }
}

fn median<T: Copy + PartialOrd>(values: impl IntoIterator<Item = T>) -> T {
    let mut values: Vec<T> = values.into_iter().collect();
    values.sort_by(|a, b| a.partial_cmp(b).expect("measurements are numbers"));
    values[values.len() / 2]
}

/// The median over the rounds of what ours took of a rival's time in the same round.
fn ratio(ours: &Results, theirs: &Results, phase: Phase) -> f64 {
    let pairs = ours.took[phase as usize].iter().zip(&theirs.took[phase as usize]);
    median(pairs.map(|(a, b)| a.seconds / b.seconds))
}

fn row(name: &str, cells: impl Iterator<Item = String>) {
    let cells: Vec<String> = cells.collect();
    println!("| {name} | {} |", cells.join(" | "));
}

pub fn print(data: &DataSet, plan: &Plan, results: &[Results]) {
    println!("\n| | {} |", plan.names.join(" | "));
    println!("|---|{}", "---|".repeat(plan.names.len()));
    let phases = || Phase::ALL.into_iter().filter(|phase| plan.phases.contains(phase));
    for phase in phases() {
        row(phase.name(), results.iter().map(|one| format!("{:.2} s", one.seconds(phase))));
        let ours = &results[0];
        let name = format!("{}: holdfast takes of it", phase.name());
        row(&name, results.iter().map(|one| format!("{:.2}", ratio(ours, one, phase))));
        let name = format!("{}: time of processors", phase.name());
        row(&name, results.iter().map(|one| format!("{:.2} s", one.cpu_seconds(phase))));
    }
    let share = |bytes: &[u64]| format!("{:.4}", median(bytes.iter().copied()) as f64 / data.bytes as f64);
    if plan.phases.contains(&Phase::Unchanged) {
        row("of each run, starting and opening the repository", results.iter().map(open_seconds));
    }
    if plan.phases.contains(&Phase::First) {
        row("stored after the first run, share of the source", results.iter().map(|one| share(&one.stored)));
    }
    if plan.phases.contains(&Phase::Changed) {
        row("stored after the change", results.iter().map(|one| share(&one.stored_after_change)));
    }
    for phase in phases().filter(|phase| *phase != Phase::Changed) {
        let name = format!("peak memory, {}", phase.name());
        row(&name, results.iter().map(|one| format!("{} MiB", one.peak_mib(phase))));
    }
    println!();
    time_verdicts(plan, results);
    if plan.phases.contains(&Phase::First) && plan.phases.contains(&Phase::Changed) {
        stored_verdict(results);
    }
}

fn open_seconds(result: &Results) -> String {
    let open: Vec<f64> = result.open.iter().flatten().map(|one| one.seconds).collect();
    if open.is_empty() { "not included".to_owned() } else { format!("{:.2} s", median(open)) }
}

fn time_verdicts(plan: &Plan, results: &[Results]) {
    let [ours, rivals @ ..] = results else { return };
    for phase in Phase::ALL.into_iter().filter(|phase| plan.phases.contains(phase)) {
        let behind: Vec<String> = (rivals.iter())
            .map(|rival| (rival.name, ratio(ours, rival, phase)))
            .filter(|(_, ratio)| *ratio >= 1.0)
            .map(|(name, ratio)| format!("{name} ({ratio:.2})"))
            .collect();
        let verdict = if behind.is_empty() {
            "ahead of each".to_owned()
        } else {
            format!("behind {}", behind.join(", "))
        };
        println!("rivals: {}: {verdict} (goal: ahead of each in time)", phase.name());
    }
}

fn stored_verdict(results: &[Results]) {
    let [ours, rivals @ ..] = results else { return };
    let stored = |of: fn(&Results) -> &[u64]| {
        let mine = median(of(ours).iter().copied()) as f64;
        let best = rivals.iter().map(|rival| median(of(rival).iter().copied())).min().unwrap_or(1);
        mine / best as f64
    };
    let first = stored(|results| &results.stored);
    let after = stored(|results| &results.stored_after_change);
    println!(
        "rivals: stored bytes: {first:.3} of the best after the first run, {after:.3} after the change (goal: at most {STORED_GOAL})"
    );
}
