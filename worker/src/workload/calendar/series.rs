//! Looks again at series of calendars without changes, a share at a time: should a time of a series change while the change key
//! of the master stays the same, no listing would tell. Only what differs is written.

use holdfast_graph_client::ErrorClass;
use holdfast_repository::{ContentSource, EntryFlags, ItemEntry};

use super::{content::Seen, meta::stored_event, source::EventSource};
use crate::{
    JobError,
    backup::key,
    workload::{
        collect::{Collector, FetchError},
        parts::FETCH_BYTES,
        stored::{with_holdfast, without_holdfast},
    },
};

/// Looks at the series that this run listed and that are due.
pub(super) async fn correct(run: &mut Collector<EventSource>) -> Result<(), JobError> {
    let Some((due, shares)) = run.source().take_due_series() else { return Ok(()) };
    if !due.is_empty() {
        run.context().manifest.merge().await?;
    }
    for id in due {
        let entry = run.context().manifest.entry(&id).await?;
        if let Some(entry) = entry.filter(|entry| !entry.flags.contains(EntryFlags::STALE)) {
            correct_one(run, &id, &entry).await?;
        }
    }
    run.state_mut().shares = shares;
    Ok(())
}

async fn correct_one(run: &mut Collector<EventSource>, id: &str, entry: &ItemEntry) -> Result<(), JobError> {
    match look_again(run, id, entry).await {
        Ok(()) => Ok(()),
        Err(FetchError::Job(error)) => Err(error),
        Err(FetchError::Graph(error)) if JobError::is_fatal_for_job(&error) => Err(error.into()),
        Err(FetchError::Graph(error)) => {
            let is_gone = error.class() == ErrorClass::Gone;
            tracing::debug!(
                code = error.code(),
                is_gone,
                "a series cannot be looked at, the stored one stays"
            );
            Ok(())
        }
    }
}

async fn look_again(run: &mut Collector<EventSource>, id: &str, entry: &ItemEntry) -> Result<(), FetchError> {
    let context = run.context().clone();
    let _share = context.shared.memory.reserve(FETCH_BYTES).await;
    let meta = context.manifest.meta(entry).await?;
    let before = stored_event(&meta)?;
    let Some(raw) = without_holdfast(&meta) else { return Ok(()) };
    let event = context.graph.calendar_event(&context.user, id).await?;
    let seen = Seen::look(&context, &event, Some(&before)).await?;
    let mut fields = entry.fields();
    let (meta, source) = match seen.with_parts_of(&before)? {
        Some(stored) if stored.to_json()? == before.to_json()? => return Ok(()),
        Some(stored) => {
            let content = entry.content.map_or(ContentSource::None, ContentSource::Existing);
            (with_holdfast(&raw, &stored)?, content)
        }
        None => {
            let (stored, parts) = seen.take(&context, &event).await?;
            let content = parts.into_content(with_holdfast(&raw, &stored)?, raw.len());
            // What is stored is better than what lacks something.
            if content.missing.is_some() {
                return Ok(());
            }
            fields.size = content.size;
            let is_empty = content.drafts.is_empty();
            let source = if is_empty { ContentSource::None } else { ContentSource::New(content.drafts) };
            (content.meta, source)
        }
    };
    context.manifest.writer().put_item(key(id), fields, meta, source).await?;
    Ok(())
}
