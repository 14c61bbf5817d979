//! Publishes hints of due jobs, and again of what nobody claimed.
//!
//! The mark `published_at` is set in a deciding transaction before the hint is sent, and taken back when the queue refuses
//! it: a crash between the two costs one `republish-after`, never a job.

use std::time::Duration;

use holdfast_job_queue::{JobHint, JobPublisher, Published, QueueName};
use holdfast_model::{JobClass, JobId};
use holdfast_runtime::trace_context;
use tracing::Instrument as _;

use crate::{
    catalog::{Catalog, Columns as _, term::Leadership},
    error::Error,
    metrics,
};

/// How hints are spread.
#[derive(Debug, Clone)]
pub struct DispatchOptions {
    /// Whose queues.
    pub region: String,
    /// Hints that wait per class at most.
    pub waiting_most: u64,
    /// When a hint that nobody took is sent again.
    pub republish_after: Duration,
}

#[derive(Debug, Clone)]
struct Due {
    job: JobId,
    traceparent: String,
    marked_at_ms: i64,
}

/// Publishes what is due, the highest class first; says how many hints the queues have taken.
pub async fn dispatch(
    catalog: &Catalog,
    leadership: &Leadership,
    queue: &dyn JobPublisher,
    options: &DispatchOptions,
) -> Result<usize, Error> {
    let mut published = 0;
    for class in JobClass::ALL {
        let name = QueueName::new(&options.region, *class)?;
        let room = options.waiting_most.saturating_sub(queue.depth(&name).await?);
        if room == 0 {
            continue;
        }
        let marked = mark(catalog, leadership, *class, room, options.republish_after).await?;
        let (sent, outcome) = publish(queue, &name, &marked).await;
        published += sent;
        // What follows the first refusal would be refused too, and must not wait as if it had been published.
        unmark(catalog, leadership, marked.get(sent..).unwrap_or_default()).await?;
        outcome?;
    }
    Ok(published)
}

/// Publishes until the queue refuses one; says how many it has taken.
async fn publish(queue: &dyn JobPublisher, name: &QueueName, marked: &[Due]) -> (usize, Result<(), Error>) {
    for (sent, due) in marked.iter().enumerate() {
        let span = tracing::info_span!("dispatch", job = %due.job, trace_id = tracing::field::Empty);
        trace_context::set_parent(&span, &due.traceparent);
        match publish_one(queue, name, due).instrument(span).await {
            Ok(Published::Confirmed) => metrics::published("confirmed"),
            Ok(Published::Returned) => {
                metrics::published("returned");
                return (sent, Ok(()));
            }
            Err(error) => {
                metrics::published("failed");
                return (sent, Err(error.into()));
            }
        }
    }
    (marked.len(), Ok(()))
}

async fn publish_one(
    queue: &dyn JobPublisher,
    name: &QueueName,
    due: &Due,
) -> Result<Published, holdfast_job_queue::QueueError> {
    let here = trace_context::inject();
    // Without a tracer in this process the job's own trace goes on.
    let traceparent = if here.is_empty() { due.traceparent.clone() } else { here };
    let outcome = queue.publish(name, &JobHint::new(due.job, traceparent)).await?;
    match outcome {
        Published::Confirmed => tracing::info!(queue = %name, "job dispatched"),
        Published::Returned => tracing::debug!(queue = %name, "nobody consumes: the hint came back"),
    }
    Ok(outcome)
}

/// Picks due jobs, one of each tenant in turn, and marks them published.
async fn mark(
    catalog: &Catalog,
    leadership: &Leadership,
    class: JobClass,
    room: u64,
    republish_after: Duration,
) -> Result<Vec<Due>, Error> {
    let again = i64::try_from(republish_after.as_millis()).unwrap_or(i64::MAX);
    // A read first, so that an idle coordinator starts no write twice a second.
    let now = catalog.now_ms().await?;
    let sql = "SELECT job_id, traceparent FROM (SELECT job_id, traceparent, created_ms, \
               ROW_NUMBER() OVER (PARTITION BY tenant_id ORDER BY created_ms, job_id) AS turn FROM jobs \
               WHERE state = 'queued' AND class = $1 AND not_before_ms <= $2 AND published_at_ms <= $3) AS due \
               ORDER BY turn, created_ms, job_id LIMIT $4";
    let query = sqlx::query(sql).bind(class.as_str()).bind(now).bind(now.saturating_sub(again).max(0));
    let rows = query.bind(i64::try_from(room).unwrap_or(i64::MAX)).fetch_all(&catalog.pool).await?;
    let read = |row: &sqlx::any::AnyRow| Ok::<_, Error>((row.word("job_id")?, row.text("traceparent")?));
    let due: Vec<(JobId, String)> = rows.iter().map(read).collect::<Result<_, _>>()?;
    if due.is_empty() {
        return Ok(Vec::new());
    }
    crate::catalog::write!(catalog, leadership, tx => {
        let mut marked = Vec::with_capacity(due.len());
        for (job, traceparent) in &due {
            let sql = "UPDATE jobs SET published_at_ms = $1 WHERE job_id = $2 AND state = 'queued' \
                       AND published_at_ms <= $3";
            let query = sqlx::query(sql).bind(tx.now).bind(job.to_string());
            let query = query.bind(tx.now.saturating_sub(again).max(0));
            if query.execute(tx.on()).await?.rows_affected() == 1 {
                marked.push(Due { job: *job, traceparent: traceparent.clone(), marked_at_ms: tx.now });
            }
        }
        Ok(marked)
    })
}

async fn unmark(catalog: &Catalog, leadership: &Leadership, refused: &[Due]) -> Result<(), Error> {
    if refused.is_empty() {
        return Ok(());
    }
    crate::catalog::write!(catalog, leadership, tx => {
        for due in refused {
            let sql = "UPDATE jobs SET published_at_ms = 0 \
                       WHERE job_id = $1 AND state = 'queued' AND published_at_ms = $2";
            sqlx::query(sql).bind(due.job.to_string()).bind(due.marked_at_ms).execute(tx.on()).await?;
        }
        Ok(())
    })
}
