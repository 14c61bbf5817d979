//! Fetches what hangs on a task: checklist and links with each change, attachments where they are others.

use holdfast_graph_client::{AttachmentOwner, TodoTaskPart};

use super::{
    meta::{StoredTask, list_and_task},
    source::TaskItem,
};
use crate::{
    backup::BackupContext,
    workload::{
        attachments::are_same,
        collect::{FetchError, Found, Held},
        parts::{FETCH_BYTES, Parts},
        stored::{json_text, with_holdfast},
    },
};

/// Fetches what hangs on a task, or finds that the stored attachments are still right.
pub(super) async fn fetch(
    context: &BackupContext,
    item: &TaskItem,
    held: Option<Held<StoredTask>>,
) -> Result<Found, FetchError> {
    let _share = context.shared.memory.reserve(FETCH_BYTES).await;
    let (graph, user) = (&context.graph, &context.user);
    let (list, task) = list_and_task(&item.key);
    let owner = AttachmentOwner::TodoTask { list, task };
    let infos = match item.task.has_attachments {
        true => graph.attachments_of(user, owner).await?,
        false => Vec::new(),
    };
    let mut stored = StoredTask {
        checklist_items: graph.todo_task_part(user, list, task, TodoTaskPart::ChecklistItems).await?,
        linked_resources: graph.todo_task_part(user, list, task, TodoTaskPart::LinkedResources).await?,
        attachments: Vec::new(),
    };
    let raw = json_text(&item.task.raw);
    if let Some(Held { entry, stored: before }) = held
        && are_same(&before.attachments, &infos)
    {
        stored.attachments = before.attachments;
        return Ok(Found::Same { entry: Box::new(entry), meta: with_holdfast(raw, &stored)? });
    }
    let mut parts = Parts::default();
    stored.attachments = parts.attachments(context, owner, &infos).await?;
    Ok(Found::Content(parts.into_content(with_holdfast(raw, &stored)?, raw.len())))
}
