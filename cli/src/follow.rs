//! Follows a run to its end: a progress bar with rate and time left on a terminal, plain lines otherwise.

use std::{io::IsTerminal as _, time::Duration};

use holdfast_model::{Account, JobState};
use holdfast_proto::coordinator::{GetRunRequest, Job};
use holdfast_runtime::Exit;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    client::Operator,
    error::CliError,
    output::{self, note},
};

/// How often the coordinator is asked.
const POLL_EVERY: Duration = Duration::from_millis(300);
/// How many answers may be missed in a row before the command gives up: the run itself goes on.
const MISSED_ANSWERS_MAX: u32 = 200;
/// How often a plain line is printed when nobody watches a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Waits for every job of a run. The exit code says how they ended.
pub async fn run(client: &mut Operator, run: &str, verb: &str) -> Result<(Exit, Vec<Job>), CliError> {
    let progress = Progress::new(verb);
    let mut missed = 0;
    loop {
        match client.get_run(GetRunRequest { run: run.to_owned() }).await {
            Ok(answer) => {
                missed = 0;
                let jobs = answer.into_inner().jobs;
                progress.show(&jobs);
                if jobs.iter().all(is_over) {
                    progress.finish();
                    return Ok((exit(&jobs), jobs));
                }
            }
            Err(status) => {
                missed += 1;
                if missed > MISSED_ANSWERS_MAX {
                    return Err(status.into());
                }
            }
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

fn is_over(job: &Job) -> bool {
    job.state == JobState::Done.as_str() || job.state == JobState::Parked.as_str()
}

/// Ok, finished with exceptions, or failed.
pub fn exit(jobs: &[Job]) -> Exit {
    if jobs.iter().any(|job| job.state == JobState::Parked.as_str()) {
        Exit::Failed
    } else if total(jobs).has_exceptions() {
        Exit::Exceptions
    } else {
        Exit::Ok
    }
}

/// The sum of the jobs' accounts.
pub fn total(jobs: &[Job]) -> Account {
    let mut sum = Account::default();
    for account in jobs.iter().filter_map(|job| job.account) {
        sum.add(&account.into());
    }
    sum
}

struct Progress {
    verb: String,
    bar: Option<ProgressBar>,
    started: tokio::time::Instant,
    last_line: std::cell::Cell<Duration>,
}

impl Progress {
    fn new(verb: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} items") {
                bar.set_style(style);
            }
            bar
        });
        let started = tokio::time::Instant::now();
        Self { verb: verb.to_owned(), bar, started, last_line: std::cell::Cell::new(Duration::ZERO) }
    }

    fn show(&self, jobs: &[Job]) {
        let line = self.line(jobs);
        match &self.bar {
            Some(bar) => {
                let expected: u64 = jobs.iter().map(|job| job.items_expected).sum();
                let done = total(jobs).accounted();
                bar.set_length(expected.max(done));
                bar.set_position(done);
                bar.set_message(line);
            }
            None if self.started.elapsed() >= self.last_line.get() + LINE_EVERY => {
                self.last_line.set(self.started.elapsed());
                note!("{line}");
            }
            None => {}
        }
    }

    /// `backing up: 3/25 jobs, 1200 items, 80 MiB, 12.0 MiB/s, 40 s left`
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn line(&self, jobs: &[Job]) -> String {
        let sum = total(jobs);
        let expected: u64 = jobs.iter().map(|job| job.items_expected).sum();
        let done = jobs.iter().filter(|job| is_over(job)).count();
        let elapsed = self.started.elapsed().as_secs_f64().max(0.001);
        let rate = (sum.bytes_read as f64 / elapsed) as u64;
        let items_rate = sum.accounted() as f64 / elapsed;
        let left = if expected > sum.accounted() && items_rate > 0.0 {
            let left = (expected - sum.accounted()) as f64 / items_rate;
            format!(", {} left", output::seconds(left as u64 + 1))
        } else {
            String::new()
        };
        format!(
            "{}: {done}/{} jobs, {} items, {}, {}/s{left}",
            self.verb,
            jobs.len(),
            sum.accounted(),
            output::bytes(sum.bytes_read),
            output::bytes(rate)
        )
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
