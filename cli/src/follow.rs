//! Follows a run to its end: a progress bar with rate and time left on a terminal, plain lines otherwise.
//!
//! Workers report with each heartbeat, so numbers arrive in steps: between two of them the rate stays and the time left counts down,
//! instead of both getting worse until the next. Rate and time left count from the moment this command began to
//! watch: a run that was half done by then does not look twice as fast.

use std::{
    cell::{Cell, OnceCell},
    io::IsTerminal as _,
    time::Duration,
};

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
pub const LINE_EVERY: Duration = Duration::from_secs(5);
/// The time left is not guessed from less than this.
const GUESS_AFTER: Duration = Duration::from_secs(2);
/// What a job that still runs counts as, at most: only its end makes it whole.
const RUNNING_AT_MOST: f64 = 0.99;
/// Steps of the bar.
const BAR_STEPS: u64 = 1000;
/// The bar is short so that the line fits 80 columns.
pub const BAR_STYLE: &str = "{bar:10} {wide_msg}";

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

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Position {
    items: u64,
    bytes: u64,
    /// 0 to 1: each job counts alike, a running one by its items where their number is known.
    fraction: f64,
}

impl Position {
    #[allow(clippy::cast_precision_loss)]
    fn of(jobs: &[Job]) -> Self {
        let part = |job: &Job| {
            let accounted = job.account.map_or(0, |account| Account::from(account).accounted());
            match job.items_expected {
                _ if is_over(job) => 1.0,
                0 => 0.0,
                expected => (accounted as f64 / expected as f64).min(RUNNING_AT_MOST),
            }
        };
        let sum = total(jobs);
        Self {
            items: sum.accounted(),
            bytes: sum.bytes_read,
            fraction: jobs.iter().map(part).sum::<f64>() / jobs.len().max(1) as f64,
        }
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    fn step(self) -> u64 {
        (self.fraction * BAR_STEPS as f64) as u64
    }
}

/// How fast a run is.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Where it stood when this command began to watch.
    first: Position,
    now: Position,
    /// How long after the beginning it came to stand there.
    at: Duration,
    /// How long ago that was.
    since: Duration,
}

impl Pace {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn bytes_per_second(&self) -> u64 {
        let gained = self.now.bytes.saturating_sub(self.first.bytes);
        (gained as f64 / self.at.as_secs_f64().max(0.001)) as u64
    }

    /// `None` while nothing can be said.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn seconds_left(&self) -> Option<u64> {
        let gained = self.now.fraction - self.first.fraction;
        if gained <= 0.0 || self.now.fraction >= 1.0 || self.at < GUESS_AFTER {
            return None;
        }
        let left = (1.0 - self.now.fraction) * self.at.as_secs_f64() / gained - self.since.as_secs_f64();
        Some(left.max(0.0) as u64 + 1)
    }
}

struct Progress {
    verb: String,
    bar: Option<ProgressBar>,
    started: tokio::time::Instant,
    first: OnceCell<Position>,
    /// The newest position, and when it was new.
    newest: Cell<Option<(Position, Duration)>>,
    last_line: Cell<Duration>,
}

impl Progress {
    fn new(verb: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(BAR_STEPS), ProgressDrawTarget::stderr());
            bar.set_style(ProgressStyle::with_template(BAR_STYLE).expect("a constant template is valid"));
            bar
        });
        let started = tokio::time::Instant::now();
        let (first, newest, last_line) = (OnceCell::new(), Cell::new(None), Cell::default());
        Self { verb: verb.to_owned(), bar, started, first, newest, last_line }
    }

    fn show(&self, jobs: &[Job]) {
        let now = Position::of(jobs);
        let first = *self.first.get_or_init(|| now);
        let elapsed = self.started.elapsed();
        let at = match self.newest.get() {
            Some((newest, at)) if newest == now => at,
            _ => elapsed,
        };
        self.newest.set(Some((now, at)));
        let pace = Pace { first, now, at, since: elapsed.saturating_sub(at) };
        match &self.bar {
            Some(bar) => {
                bar.set_position(now.step());
                bar.set_message(line(&self.verb, jobs, &pace));
            }
            None if elapsed >= self.last_line.get() + LINE_EVERY => {
                self.last_line.set(elapsed);
                note!("{}", line(&self.verb, jobs, &pace));
            }
            None => {}
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `backing up: 3/25 jobs, 1200 items, 80.0 MiB, 12.0 MiB/s, 40 s left`
fn line(verb: &str, jobs: &[Job], pace: &Pace) -> String {
    let done = jobs.iter().filter(|job| is_over(job)).count();
    let left = pace.seconds_left().map(|left| format!(", {} left", output::seconds(left)));
    let left = left.unwrap_or_default();
    format!(
        "{verb}: {done}/{}, {}, {}, {}/s{left}",
        output::count(jobs.len(), "job"),
        output::count(usize::try_from(pace.now.items).unwrap_or(usize::MAX), "item"),
        output::bytes(pace.now.bytes),
        output::bytes(pace.bytes_per_second())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(state: JobState, stored: u64, expected: u64) -> Job {
        Job {
            state: state.as_str().to_owned(),
            account: Some(
                Account { listed: stored, stored, bytes_read: stored << 20, ..Account::default() }.into(),
            ),
            items_expected: expected,
            ..Job::default()
        }
    }

    fn shown(before: &[Job], now: &[Job], seconds: u64) -> String {
        line("backing up", now, &pace(before, now, seconds))
    }

    fn pace(before: &[Job], now: &[Job], seconds: u64) -> Pace {
        let at = Duration::from_secs(seconds);
        Pace { first: Position::of(before), now: Position::of(now), at, since: Duration::ZERO }
    }

    #[test]
    fn between_two_reports_the_rate_stays_and_the_time_left_counts_down() {
        let before = [job(JobState::Queued, 0, 0), job(JobState::Queued, 0, 0)];
        let now = [job(JobState::Done, 30, 30), job(JobState::Running, 10, 20)];
        let pace = pace(&before, &now, 30);
        assert_eq!((pace.bytes_per_second(), pace.seconds_left()), ((40 << 20) / 30, Some(11)));
        let later = Pace { since: Duration::from_secs(4), ..pace };
        assert_eq!((later.bytes_per_second(), later.seconds_left()), ((40 << 20) / 30, Some(7)));
        let late = Pace { since: Duration::from_secs(60), ..pace };
        assert_eq!(late.seconds_left(), Some(1));
    }

    #[test]
    fn a_line_tells_items_bytes_rate_and_time_left() {
        let before = [job(JobState::Queued, 0, 0), job(JobState::Queued, 0, 0)];
        let now = [job(JobState::Done, 30, 30), job(JobState::Running, 10, 20)];
        assert_eq!(
            shown(&before, &now, 30),
            "backing up: 1/2 jobs, 40 items, 40.0 MiB, 1.3 MiB/s, 11 s left"
        );
        assert_eq!(shown(&before, &before, 30), "backing up: 0/2 jobs, 0 items, 0 B, 0 B/s");
    }

    #[test]
    fn what_was_done_before_the_watch_began_is_no_speed() {
        let before = [job(JobState::Done, 100, 0), job(JobState::Running, 0, 100)];
        let now = [job(JobState::Done, 100, 0), job(JobState::Running, 50, 100)];
        assert_eq!(
            shown(&before, &now, 10),
            "backing up: 1/2 jobs, 150 items, 150.0 MiB, 5.0 MiB/s, 11 s left"
        );
    }

    #[test]
    fn a_bar_is_full_only_at_the_end() {
        assert_eq!(Position::of(&[job(JobState::Queued, 0, 0)]).step(), 0);
        assert_eq!(Position::of(&[job(JobState::Running, 9, 3)]).step(), 990);
        assert_eq!(Position::of(&[job(JobState::Parked, 0, 9), job(JobState::Done, 1, 1)]).step(), BAR_STEPS);
        assert_eq!(Position::of(&[]).step(), 0);
    }
}
