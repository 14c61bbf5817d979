//! Fetches what belongs to an event besides its properties: attachments, and of a series its exceptions with theirs.
//!
//! What it looks at first costs no content: lists of attachments, and the series. Only where these say that the stored parts are
//! not the right ones any more are parts fetched.

use holdfast_graph_client::{
    AttachmentInfo, AttachmentOwner, CalendarEvent, CalendarEventKind, CalendarSeries, GraphError,
};
use holdfast_repository::INLINE_MAX;
use serde_json::value::RawValue;

use super::meta::{PartPlace, StoredEvent, StoredException, StoredSeries};
use crate::{
    JobError,
    backup::BackupContext,
    workload::{
        attachments::{StoredAttachment, are_same},
        collect::{FetchError, Found, Held},
        parts::{FETCH_BYTES, Parts},
        stored::{broken, json_text, with_holdfast},
    },
};

/// Fetches what belongs to an event, or finds that the stored parts are still right.
pub(super) async fn fetch(
    context: &BackupContext,
    event: &CalendarEvent,
    held: Option<Held<StoredEvent>>,
) -> Result<Found, FetchError> {
    let _share = context.shared.memory.reserve(FETCH_BYTES).await;
    let before = held.as_ref().map(|held| &held.stored);
    let seen = Seen::look(context, event, before).await?;
    let raw = json_text(&event.raw);
    if let Some(Held { entry, stored }) = held
        && let Some(stored) = seen.with_parts_of(&stored)?
    {
        return Ok(Found::Same { entry: Box::new(entry), meta: with_holdfast(raw, &stored)? });
    }
    let (stored, parts) = seen.take(context, event).await?;
    Ok(Found::Content(parts.into_content(with_holdfast(raw, &stored)?, raw.len())))
}

/// What belongs to an event, as Microsoft lists it now.
pub(super) struct Seen {
    attachments: Vec<AttachmentInfo>,
    series: Option<SeenSeries>,
}

struct SeenSeries {
    exceptions: Vec<(CalendarEvent, Vec<AttachmentInfo>)>,
    cancelled: Vec<String>,
}

impl Seen {
    /// Looks at an event; `before` is what is stored of it.
    pub(super) async fn look(
        context: &BackupContext,
        event: &CalendarEvent,
        before: Option<&StoredEvent>,
    ) -> Result<Self, GraphError> {
        let had_some = before.is_some_and(|before| !before.attachments.is_empty());
        let attachments = attachments_of(context, event, had_some).await?;
        let mut series = None;
        if event.kind == CalendarEventKind::SeriesMaster {
            let CalendarSeries { exceptions: differing, cancelled } =
                context.graph.calendar_series(&context.user, &event.id).await?;
            let mut exceptions = Vec::with_capacity(differing.len());
            for exception in differing {
                let attachments = attachments_of(context, &exception, false).await?;
                exceptions.push((exception, attachments));
            }
            series = Some(SeenSeries { exceptions, cancelled });
        }
        Ok(Self { attachments, series })
    }

    /// What is to be stored with the parts that are stored; none where others are needed.
    pub(super) fn with_parts_of(&self, before: &StoredEvent) -> Result<Option<StoredEvent>, JobError> {
        let before_series = before.series.as_ref();
        let has_part = before_series.is_some_and(|series| series.exceptions_part.is_some());
        if has_part || !are_same(&before.attachments, &self.attachments) {
            return Ok(None);
        }
        let mut series = None;
        if let Some(seen) = &self.series {
            let mut exceptions = Vec::with_capacity(seen.exceptions.len());
            for (event, infos) in &seen.exceptions {
                let old = before_series.into_iter().flat_map(|series| &series.exceptions);
                let old = old.filter(|old| old.id() == event.id).map(|old| old.attachments.clone()).next();
                let old = old.unwrap_or_default();
                if !are_same(&old, infos) {
                    return Ok(None);
                }
                exceptions.push(stored_exception(event, old)?);
            }
            if serde_json::to_vec(&exceptions).map_err(broken("exceptions"))?.len() > INLINE_MAX {
                return Ok(None);
            }
            series =
                Some(StoredSeries { exceptions, exceptions_part: None, cancelled: seen.cancelled.clone() });
        }
        Ok(Some(StoredEvent { attachments: before.attachments.clone(), series }))
    }

    /// Fetches all parts.
    pub(super) async fn take(
        self,
        context: &BackupContext,
        event: &CalendarEvent,
    ) -> Result<(StoredEvent, Parts), FetchError> {
        let mut parts = Parts::default();
        let owner = AttachmentOwner::CalendarEvent(&event.id);
        let attachments = parts.attachments(context, owner, &self.attachments).await?;
        let Some(seen) = self.series else {
            return Ok((StoredEvent { attachments, series: None }, parts));
        };
        let mut exceptions = Vec::with_capacity(seen.exceptions.len());
        for (exception, infos) in seen.exceptions {
            let owner = AttachmentOwner::CalendarEvent(&exception.id);
            let attachments = parts.attachments(context, owner, &infos).await?;
            exceptions.push(stored_exception(&exception, attachments)?);
        }
        let mut series = StoredSeries { cancelled: seen.cancelled, ..StoredSeries::default() };
        let json = serde_json::to_vec(&exceptions).map_err(broken("exceptions"))?;
        if json.len() > INLINE_MAX {
            let len = json.len() as u64;
            let part = parts.push_bytes(context, json.into()).await?;
            series.exceptions_part = Some(PartPlace { part, len });
        } else {
            series.exceptions = exceptions;
        }
        Ok((StoredEvent { attachments, series: Some(series) }, parts))
    }
}

fn stored_exception(
    event: &CalendarEvent,
    attachments: Vec<StoredAttachment>,
) -> Result<StoredException, JobError> {
    let event = RawValue::from_string(json_text(&event.raw).to_owned()).map_err(broken("exception"))?;
    Ok(StoredException { event, attachments })
}

/// Its attachments. `hasAttachments` leaves out those that the body shows.
async fn attachments_of(
    context: &BackupContext,
    event: &CalendarEvent,
    had_some: bool,
) -> Result<Vec<AttachmentInfo>, GraphError> {
    if !event.has_attachments && !event.body_has_cid() && !had_some {
        return Ok(Vec::new());
    }
    context.graph.attachments_of(&context.user, AttachmentOwner::CalendarEvent(&event.id)).await
}
