//! `holdfast audit`: who did what, chained by hash.

use holdfast_proto::coordinator::ListAuditRequest;
use holdfast_runtime::Exit;

use crate::{
    client::{self, ServerArguments},
    error::CliError,
    output::{self, Format, Table},
};

/// Show the newest audit rows and whether their chain holds
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast audit
  holdfast audit --newest 500 --json")]
pub struct Options {
    /// How many rows
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    newest: u32,
}

pub async fn run(options: Options, server: &ServerArguments, format: Format) -> Result<Exit, CliError> {
    let request = ListAuditRequest { newest: options.newest };
    let answer = client::connect(server)?.list_audit(request).await?.into_inner();
    format.print(&answer, |answer| {
        let mut table = Table::new(&["NO", "TIME (UTC)", "ACTOR", "ACTION", "SUBJECT"]);
        for row in &answer.rows {
            table.row([
                row.number.to_string(),
                output::time(row.time_ms),
                row.actor.clone(),
                row.action.clone(),
                row.subject.clone(),
            ]);
        }
        table.print("No audit rows yet.");
    })?;
    if answer.chain_intact {
        return Ok(Exit::Ok);
    }
    Err(CliError::failed("the chain of audit rows is broken: rows were changed or removed outside Holdfast"))
}
