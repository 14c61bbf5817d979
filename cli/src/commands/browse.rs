//! `holdfast browse`: look into a snapshot.

use holdfast_proto::coordinator::{BrowseRequest, BrowseResponse};
use holdfast_runtime::Exit;

use crate::{
    client::{self, ServerArguments},
    error::CliError,
    output::{self, Format, Table, say},
};

/// Entries per page of an answer.
const PAGE: u32 = 500;

/// Look into a snapshot, without Microsoft
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast browse 4f0c2a9be1d37788                          folders, calendars, lists
  holdfast browse 4f0c2a9be1d37788 /Inbox/Projects --limit 50")]
pub struct Options {
    /// The snapshot
    snapshot: String,
    /// A folder in it, like /Inbox/Projects, or an item's id
    #[arg(default_value = "")]
    path: String,
    /// At most this many entries
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

pub async fn run(options: Options, server: &ServerArguments, format: Format) -> Result<Exit, CliError> {
    let mut client = client::connect(server)?;
    let mut whole = BrowseResponse::default();
    let limit = usize::try_from(options.limit).unwrap_or(usize::MAX);
    loop {
        let request = BrowseRequest {
            snapshot: options.snapshot.clone(),
            path: options.path.clone(),
            limit: PAGE.min(u32::try_from(limit.saturating_sub(whole.entries.len())).unwrap_or(PAGE)),
            page_token: whole.next_page_token.clone(),
        };
        let page = client.browse(request).await?.into_inner();
        whole.entries.extend(page.entries);
        whole.next_page_token = page.next_page_token;
        if whole.next_page_token.is_empty() || whole.entries.len() >= limit {
            break;
        }
    }
    format.print(&whole, |whole| {
        let mut table = Table::new(&["KIND", "TIME (UTC)", "SIZE", "WHO", "NAME", "ID"]);
        for entry in &whole.entries {
            let size = if entry.kind.ends_with("folder") { String::new() } else { output::bytes(entry.size) };
            table.row([
                entry.kind.clone(),
                output::time(entry.time_ms),
                size,
                entry.who.clone(),
                entry.name.clone(),
                entry.id.clone(),
            ]);
        }
        table.print("The folder is empty.");
        if !whole.next_page_token.is_empty() {
            say!("There is more: raise --limit.");
        }
    })?;
    Ok(Exit::Ok)
}
