//! `holdfast search`: find items in snapshots.

use std::{cell::Cell, io::IsTerminal as _};

use holdfast_proto::coordinator::{
    SearchEnd, SearchHit, SearchProgress, SearchRequest, search_response::Answer,
};
use holdfast_runtime::Exit;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use crate::{
    client::{self, ServerArguments},
    error::CliError,
    follow::{BAR_STYLE, LINE_EVERY},
    output::{self, Format, note, say},
};

/// Find items in the newest snapshots, or in one, without Microsoft
///
/// Every word and every filter of the query must match. Words are looked for in subjects, titles, names of files, folders and
/// contacts, and in the names and addresses of people.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Filters:
  from:ann             who sent a message, organizes an event, made or changed a file; the address of a contact
  to:ben               recipients and attendees
  after:2026-01-31     received, starting, due or changed on that day (UTC) or later
  before:2026-02-28    before that day
  larger:10MiB         at least so large
  in:/Inbox/Projects   in this folder, or below it
  What has blanks in it goes in double quotes, and all of it in single ones: 'from:\"Ann Smith\" \"annual report\"'

Examples:
  holdfast search contoso budget from:ann after:2026-01-01
  holdfast search contoso larger:10MiB in:/Inbox --resource user:alex@contoso.com --workload mail
  holdfast search contoso invoice --snapshot 4f0c2a9be1d37788 --limit 20 --json")]
pub struct Options {
    /// The tenant's name
    tenant: String,
    /// Words and filters; all must match
    #[arg(required = true)]
    query: Vec<String>,
    /// Only this snapshot; default: the newest of each
    #[arg(long, conflicts_with_all = ["resource", "workload"])]
    snapshot: Option<String>,
    /// Only this resource, `user:NAME` (can be repeated)
    #[arg(long, value_name = "R")]
    resource: Vec<String>,
    /// Only this workload (can be repeated)
    #[arg(long, value_name = "W")]
    workload: Vec<String>,
    /// End after this many hits
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

pub async fn run(options: Options, server: &ServerArguments, format: Format) -> Result<Exit, CliError> {
    let request = SearchRequest {
        tenant: options.tenant,
        query: options.query.join(" "),
        snapshot: options.snapshot.unwrap_or_default(),
        resources: options.resource,
        workloads: options.workload,
        limit: options.limit,
    };
    let mut answers = client::connect(server)?.search(request).await?.into_inner();
    let mut hits = 0u64;
    let progress = Progress::new();
    if format == Format::Json {
        say!("{{\"hits\": [");
    }
    let end = loop {
        match answers.message().await?.map(|told| told.answer) {
            Some(Some(Answer::Hit(hit))) => {
                // One hit per line, as it is found: nobody waits for the last snapshot to see the first.
                let shown = match format {
                    Format::Json => {
                        let comma = if hits == 0 { "" } else { "," };
                        format!("{comma}{}", serde_json::to_string(&hit).map_err(CliError::failed)?)
                    }
                    Format::Text => line(&hit),
                };
                progress.beside(|| say!("{shown}"));
                hits += 1;
            }
            Some(Some(Answer::Progress(so_far))) => progress.show(&so_far),
            Some(Some(Answer::End(end))) => break end,
            // A newer coordinator tells more.
            Some(None) => {}
            None => return Err(CliError::failed("the search ended early: run it again")),
        }
    };
    progress.finish();
    match format {
        Format::Json => say!("], \"end\": {}}}", serde_json::to_string(&end).map_err(CliError::failed)?),
        Format::Text => summary(&end).iter().for_each(|line| say!("{line}")),
    }
    Ok(if end.unread.is_empty() { Exit::Ok } else { Exit::Exceptions })
}

/// How far the search is, on stderr: a bar on a terminal, else a line now and then.
struct Progress {
    bar: Option<ProgressBar>,
    last_line: Cell<Instant>,
}

impl Progress {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            bar.set_style(ProgressStyle::with_template(BAR_STYLE).expect("a constant template is valid"));
            bar
        });
        Self { bar, last_line: Cell::new(Instant::now()) }
    }

    fn show(&self, so_far: &SearchProgress) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(so_far.snapshots);
                bar.set_position(so_far.snapshots_done);
                bar.set_message(progress_line(so_far));
            }
            None if self.last_line.get().elapsed() >= LINE_EVERY => {
                self.last_line.set(Instant::now());
                note!("{}", progress_line(so_far));
            }
            None => {}
        }
    }

    /// Prints while the bar is away.
    fn beside(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `searching: 3/25 snapshots, 1200 items`
fn progress_line(so_far: &SearchProgress) -> String {
    format!(
        "searching: {}/{}, {}",
        so_far.snapshots_done,
        output::count(as_size(so_far.snapshots), "snapshot"),
        output::count(as_size(so_far.items), "item")
    )
}

fn line(hit: &SearchHit) -> String {
    let entry = hit.entry.clone().unwrap_or_default();
    let size = if entry.kind.ends_with("folder") {
        String::new()
    } else {
        format!(", {}", output::bytes(entry.size))
    };
    let who = if entry.who.is_empty() { String::new() } else { format!(" ({})", entry.who) };
    format!(
        "{}  {}/{}{who}\n    {} of {}{size}, snapshot {}, id {}",
        output::time(entry.time_ms),
        hit.path,
        entry.name,
        entry.kind,
        hit.resource,
        hit.snapshot,
        entry.id
    )
}

/// What was looked at, and what was not.
fn summary(end: &SearchEnd) -> Vec<String> {
    let mut lines = vec![format!(
        "{} in {} of {}.",
        output::count(as_size(end.hits), "hit"),
        output::count(as_size(end.items), "item"),
        output::count(as_size(end.snapshots), "snapshot")
    )];
    if end.limit_reached {
        lines[0] = format!(
            "{} shown; there may be more: narrow the query, or raise --limit.",
            output::count(as_size(end.hits), "hit")
        );
    }
    for unread in &end.unread {
        lines.push(format!(
            "NOT SEARCHED: snapshot {}, {} of {}: {}",
            unread.snapshot, unread.workload, unread.resource, unread.reason
        ));
    }
    lines
}

fn as_size(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use holdfast_proto::coordinator::{BrowseEntry, UnreadSnapshot};

    use super::*;

    #[test]
    fn a_hit_says_what_to_restore_it_with() {
        let entry = BrowseEntry {
            kind: "mail_message".to_owned(),
            id: "AAMk".to_owned(),
            name: "Budget".to_owned(),
            who: "ann@x.test".to_owned(),
            time_ms: 1_767_268_800_000,
            size: 2_048,
            ..BrowseEntry::default()
        };
        let hit = SearchHit {
            snapshot: "4f0c".to_owned(),
            resource: "user:alex@x.test".to_owned(),
            workload: "mail".to_owned(),
            entry: Some(entry),
            path: "/Inbox".to_owned(),
        };
        assert_eq!(
            line(&hit),
            "2026-01-01 12:00:00  /Inbox/Budget (ann@x.test)\n    mail_message of user:alex@x.test, 2.0 KiB, snapshot \
             4f0c, id AAMk"
        );
    }

    #[test]
    fn how_far_a_search_is_is_told_in_snapshots_and_items() {
        let so_far = SearchProgress { snapshots_done: 3, snapshots: 25, items: 1_200 };
        assert_eq!(progress_line(&so_far), "searching: 3/25 snapshots, 1200 items");
    }

    #[test]
    fn what_was_not_searched_is_told() {
        let end = SearchEnd { snapshots: 2, items: 1_000, hits: 1, ..SearchEnd::default() };
        assert_eq!(summary(&end), ["1 hit in 1000 items of 2 snapshots."]);
        let limited = SearchEnd { limit_reached: true, ..end.clone() };
        assert!(summary(&limited)[0].contains("there may be more"));
        let unread = UnreadSnapshot { snapshot: "4f0c".to_owned(), ..UnreadSnapshot::default() };
        assert!(
            summary(&SearchEnd { unread: vec![unread], ..end })[1].starts_with("NOT SEARCHED: snapshot 4f0c")
        );
    }
}
