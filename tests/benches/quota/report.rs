//! One row per variant, and what misses its goal.

use std::collections::BTreeMap;

use holdfast_graph_sim::CountersSnapshot;

use super::variant::{Plan, Variant};

/// Of what the limits allow, successful.
const USED_GOAL: f64 = 0.95;
/// Of all requests, answered by 429.
const REFUSED_GOAL: f64 = 0.005;
/// The scope of drives in the simulator's counters.
const DRIVES: &str = "sharepoint";
/// Kinds of requests to drives begin so; all others are to mailboxes.
const DRIVE_KIND: &str = "drive_";

pub struct Measured {
    pub counters: CountersSnapshot,
    pub users: Vec<String>,
}

impl Measured {
    /// Successful requests of each mailbox.
    fn of_mailboxes(&self) -> Vec<u64> {
        let mailbox = |user: &String| {
            let kinds = self.counters.requests.get(user).into_iter().flatten();
            let asked: u64 = kinds.filter(|(kind, _)| !kind.starts_with(DRIVE_KIND)).map(|(_, n)| n).sum();
            asked - refused(self.counters.throttled.get(user))
        };
        self.users.iter().map(mailbox).collect()
    }

    fn asked(&self) -> u64 {
        self.counters.requests.values().flatten().map(|(_, n)| n).sum()
    }

    /// Whose refusals for which reason, in short.
    fn refusals(&self) -> String {
        let mut sums = BTreeMap::<(&str, &str), u64>::new();
        for (who, reasons) in &self.counters.throttled {
            let whose = if who == DRIVES { "drive" } else { "mailbox" };
            reasons.iter().for_each(|(why, n)| *sums.entry((whose, why)).or_default() += n);
        }
        let all: Vec<_> = sums.iter().map(|((whose, why), n)| format!("{n} {whose} {why}")).collect();
        if all.is_empty() { "none".to_owned() } else { all.join(", ") }
    }
}

fn refused(reasons: Option<&BTreeMap<String, u64>>) -> u64 {
    reasons.into_iter().flatten().map(|(_, n)| n).sum()
}

pub fn head() {
    println!(
        "| variant | mailboxes: of the allowed requests | least | drive: of the allowed units | 429 | early | refusals |"
    );
    println!("|---|---|---|---|---|---|---|");
}

pub fn row(variant: Variant, plan: &Plan, measured: &Measured) {
    let mailboxes = measured.of_mailboxes();
    let allowed = plan.allowed_per_mailbox();
    let used = mailboxes.iter().sum::<u64>() as f64 / (allowed * mailboxes.len() as u64) as f64;
    let least = mailboxes.iter().min().copied().unwrap_or(0) as f64 / allowed as f64;
    let units = measured.counters.resource_units as f64 / plan.allowed_units() as f64;
    let refused = measured.counters.throttled_429 as f64 / measured.asked() as f64;
    let early = measured.counters.early_after_429;
    println!(
        "| {} | {used:.3} | {least:.3} | {units:.3} | {:.2} % | {early} | {} |",
        variant.name(),
        refused * 100.0,
        measured.refusals()
    );
    let goals = [
        (used >= USED_GOAL, "mailboxes use less than 0.95 of their limit"),
        (units >= USED_GOAL, "the drive uses less than 0.95 of its limit"),
        (refused <= REFUSED_GOAL, "more than 0.5 % are refused"),
        (early == 0, "somebody came back before the time that a 429 named"),
    ];
    for (_, missed) in goals.iter().filter(|(is_met, _)| !is_met) {
        println!("missed by {}: {missed}", variant.name());
    }
}

/// The machine's load of the last minute.
pub fn load() -> String {
    let loads = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    loads.split(' ').next().unwrap_or_default().to_owned()
}
