//! `holdfast jobs`: the jobs, or one of them with its failed items.

use holdfast_model::{Account, JobState};
use holdfast_proto::coordinator::{
    GetJobRequest, GetJobResponse, GetRunRequest, Job, ListJobsRequest, RetryJobRequest,
};
use holdfast_runtime::Exit;

use crate::{
    client::{self, Operator, ServerArguments},
    error::CliError,
    failed_items, follow,
    output::{self, Format, Table, say},
};

/// List jobs, or show one with its failed items
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast jobs --state parked
  holdfast jobs 9c1b…            one job, with the items it could not store
  holdfast jobs 9c1b… --follow   a run or a job, until it ends
  holdfast jobs 9c1b… --retry    a parked job, once its cause is mended")]
pub struct Options {
    /// A job, or a run with --follow
    id: Option<String>,
    /// Wait for the end and tell the outcome by exit code
    #[arg(long, requires = "id")]
    follow: bool,
    /// Queue a parked job again
    #[arg(long, requires = "id", conflicts_with = "follow")]
    retry: bool,
    /// Only this tenant's jobs
    #[arg(long)]
    tenant: Option<String>,
    /// Only jobs in this state: queued, running, committing, done, parked
    #[arg(long)]
    state: Option<String>,
    /// At most this many, the newest first
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    newest: u32,
}

/// Characters of a job's id that tell it from others at a glance.
const SHORT_ID: usize = 8;

/// What `--retry` says.
#[derive(serde::Serialize)]
struct Queued {
    job: String,
}

pub async fn run(options: Options, server: &ServerArguments, format: Format) -> Result<Exit, CliError> {
    let mut client = client::connect(server)?;
    let Some(id) = options.id.clone() else { return list(&mut client, options, format).await };
    if options.retry {
        client.retry_job(RetryJobRequest { job: id.clone() }).await?;
        format.print(&Queued { job: id }, |_| say!("The job is queued again."))?;
        return Ok(Exit::Ok);
    }
    if options.follow {
        let run = run_of(&mut client, id).await?;
        let (exit, jobs) = follow::run(&mut client, &run, "working").await?;
        let answer = holdfast_proto::coordinator::ListJobsResponse { jobs };
        format.print(&answer, |answer| table(&answer.jobs))?;
        return Ok(exit);
    }
    let answer = client.get_job(GetJobRequest { job: id }).await?.into_inner();
    format.print(&answer, show)?;
    Ok(Exit::Ok)
}

/// The run a job belongs to, or the id itself when it names a run.
async fn run_of(client: &mut Operator, id: String) -> Result<String, CliError> {
    if client.get_run(GetRunRequest { run: id.clone() }).await.is_ok_and(|run| !run.get_ref().jobs.is_empty())
    {
        return Ok(id);
    }
    let answer = client.get_job(GetJobRequest { job: id }).await?.into_inner();
    Ok(answer.job.unwrap_or_default().run)
}

async fn list(client: &mut Operator, options: Options, format: Format) -> Result<Exit, CliError> {
    let request = ListJobsRequest {
        tenant: options.tenant.unwrap_or_default(),
        state: options.state.unwrap_or_default(),
        newest: options.newest,
    };
    let answer = client.list_jobs(request).await?.into_inner();
    format.print(&answer, |answer| table(&answer.jobs))?;
    Ok(Exit::Ok)
}

fn table(jobs: &[Job]) {
    let mut table =
        Table::new(&["JOB", "KIND", "WORKLOAD", "RESOURCE", "STATE", "TRIES", "CREATED (UTC)", "ACCOUNT"]);
    for job in jobs {
        let account: Account = job.account.unwrap_or_default().into();
        // What is done is told by its account; what waits or gave up, by its reason.
        let account = if job.message.is_empty() || job.state == JobState::Done.as_str() {
            output::account(&account, &job.kind)
        } else {
            job.message.clone()
        };
        table.row([
            job.id.clone(),
            kind(job),
            job.workload.clone(),
            job.resource.clone(),
            job.state.clone(),
            job.attempts.to_string(),
            output::time(job.created_ms),
            account,
        ]);
    }
    table.print("No jobs.");
}

/// What a job does; of a shard, whose part it is.
fn kind(job: &Job) -> String {
    match job.parent.get(..SHORT_ID) {
        Some(parent) => format!("shard of {parent}…"),
        None => job.kind.clone(),
    }
}

/// How far the shards are that other workers fetch for a backup.
fn shards(shards: &[Job]) -> String {
    let n_in = |state: JobState| shards.iter().filter(|shard| shard.state == state.as_str()).count();
    let parts = [
        (n_in(JobState::Done), "done"),
        (n_in(JobState::Running), "running"),
        (n_in(JobState::Queued), "waiting"),
        (n_in(JobState::Parked), "given up: the job fetches their items itself"),
    ];
    let parts = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}"));
    parts.collect::<Vec<_>>().join(", ")
}

fn show(answer: &GetJobResponse) {
    let job = answer.job.clone().unwrap_or_default();
    let account: Account = job.account.unwrap_or_default().into();
    say!("job       {} ({} of {}, {})", job.id, job.kind, job.resource, job.workload);
    say!("run       {}", job.run);
    if !job.parent.is_empty() {
        say!("part of   {}", job.parent);
    }
    let attempts = output::count(usize::try_from(job.attempts).unwrap_or(usize::MAX), "attempt");
    say!("state     {} after {attempts}", job.state);
    if !job.worker.is_empty() {
        say!("worker    {}", job.worker);
    }
    say!("created   {}", output::time(job.created_ms));
    say!("started   {}", output::time(job.started_ms));
    say!("finished  {}", output::time(job.finished_ms));
    say!("account   {} listed: {}", account.listed, output::account(&account, &job.kind));
    if !account.adds_up() && job.state == JobState::Done.as_str() {
        say!("          ATTENTION: it does not add up, {} have an outcome", account.accounted());
    }
    say!(
        "bytes     {} read, {} new in storage, {} requests",
        output::bytes(account.bytes_read),
        output::bytes(account.bytes_stored),
        account.requests
    );
    if !answer.shards.is_empty() {
        say!("shards    {}", shards(&answer.shards));
    }
    if !job.snapshot.is_empty() {
        say!("snapshot  {}", job.snapshot);
    }
    if !job.message.is_empty() {
        match job.code.as_str() {
            "" => say!("result    {}", job.message),
            code => say!("reason    {} ({code})", job.message),
        }
    }
    if !answer.failed.is_empty() {
        failed_items::show_of_job(&job.kind, &answer.groups, &answer.failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(state: JobState) -> Job {
        let (kind, parent) = ("backup-shard".to_owned(), "9c1b03f2aa".to_owned());
        Job { kind, parent, state: state.to_string(), ..Job::default() }
    }

    #[test]
    fn a_shard_says_whose_part_it_is_and_its_job_how_far_they_are() {
        assert_eq!(kind(&shard(JobState::Queued)), "shard of 9c1b03f2…");
        assert_eq!(kind(&Job { kind: "backup".to_owned(), ..Job::default() }), "backup");
        let states = [JobState::Done, JobState::Running, JobState::Queued, JobState::Queued];
        assert_eq!(shards(&states.map(shard)), "1 done, 1 running, 2 waiting");
    }
}
