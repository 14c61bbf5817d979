//! The one clear report at the end of the demo.

use holdfast_model::{Account, Workload};
use serde::Serialize;

use crate::output::{self, say};

/// What one run did and cost.
#[derive(Debug, Serialize)]
pub struct RunFigures {
    pub jobs: usize,
    pub account: Account,
    pub seconds: f64,
}

/// How the tenant was changed between the runs.
#[derive(Debug, Serialize)]
pub struct Change {
    pub items: u64,
}

/// Everything the demo measured.
#[derive(Debug, Serialize)]
pub struct Report {
    pub mailboxes: u32,
    pub first: RunFigures,
    pub change: Change,
    pub second: RunFigures,
    pub killed_nodes: usize,
    pub wiped_person: String,
    pub wiped_items: u64,
    pub restore: RunFigures,
    pub differences: Vec<String>,
    pub mails_sent: u64,
    pub early_requests: u64,
}

impl Report {
    /// Whether everything came back and nothing forbidden happened.
    pub fn is_good(&self) -> bool {
        let runs = [&self.first, &self.second, &self.restore];
        self.differences.is_empty()
            && self.mails_sent == 0
            && self.early_requests == 0
            && runs.iter().all(|run| run.account.adds_up() && !run.account.has_exceptions())
    }

    pub fn show(&self) {
        say!();
        let workloads: Vec<&str> = Workload::OF_A_USER.iter().map(|workload| workload.as_str()).collect();
        say!("Holdfast demo: {} people with {}", self.mailboxes, workloads.join(", "));
        line("first backup", "backup", &self.first);
        line("second backup", "backup", &self.second);
        say!(
            "  cost followed change    {} items changed; bytes stored {}, requests {}, time {} of the first run",
            self.change.items,
            percent(self.second.account.bytes_stored, self.first.account.bytes_stored),
            percent(self.second.account.requests, self.first.account.requests),
            percent(millis(self.second.seconds), millis(self.first.seconds)),
        );
        say!("  site lost               {} storage nodes of site-a killed with SIGKILL", self.killed_nodes);
        say!(
            "  person wiped            {} with {} items of every workload",
            self.wiped_person,
            self.wiped_items
        );
        line("restored from site-b", "restore", &self.restore);
        say!(
            "  compared                {} items, every property and attachment: {} differences",
            self.wiped_items,
            self.differences.len()
        );
        for difference in self.differences.iter().take(10) {
            say!("      {difference}");
        }
        say!("  mails sent              {}", self.mails_sent);
        say!("  requests sent too early {}", self.early_requests);
        say!(
            "{}",
            if self.is_good() { "RESULT: everything came back." } else { "RESULT: FAILED, see above." }
        );
    }
}

fn line(name: &str, kind: &str, run: &RunFigures) {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rate = (run.account.bytes_read as f64 / run.seconds.max(0.001)) as u64;
    say!(
        "  {name:<23} {} in {:.1} s: {} read ({}/s), {} stored, {} requests",
        output::account(&run.account, kind),
        run.seconds,
        output::bytes(run.account.bytes_read),
        output::bytes(rate),
        output::bytes(run.account.bytes_stored),
        run.account.requests
    );
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn millis(seconds: f64) -> u64 {
    (seconds * 1000.0) as u64
}

#[allow(clippy::cast_precision_loss)]
fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", part as f64 * 100.0 / whole.max(1) as f64)
}
