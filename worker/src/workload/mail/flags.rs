//! The slow correction: Microsoft does not promise to report that a message was merely read, so every few snapshots ids and
//! read flags are listed and compared. Only the meta of what differs is written; no content is fetched.

use holdfast_graph_client::ErrorClass;
use holdfast_repository::{ContentSource, EntryFlags, EntryKind, ItemEntry};
use serde_json::Value;

use super::source::MailSource;
use crate::{JobError, backup::key, workload::collect::Collector};

/// Pages of one folder: a thousand messages each.
const MAX_PAGES: u32 = 10_000;

/// Compares the read flags of all folders, once in so many snapshots.
pub(super) async fn correct_if_due(run: &mut Collector<MailSource>) -> Result<(), JobError> {
    let (every, has_base) = (run.context().options.flags_every, run.context().base.is_some());
    run.state_mut().since_correction += 1;
    if every > 0 && has_base && run.state_mut().since_correction >= every {
        run.correct_flags().await?;
        run.state_mut().since_correction = 0;
    }
    Ok(())
}

impl Collector<MailSource> {
    async fn correct_flags(&mut self) -> Result<(), JobError> {
        let folders: Vec<String> = self
            .all_containers()
            .iter()
            .filter(|folder| folder.is_listable)
            .map(|folder| folder.id.clone())
            .collect();
        for folder in folders {
            let mut link = None;
            for _ in 0..MAX_PAGES {
                let page =
                    self.context().graph.message_flags(&self.context().user, &folder, link.as_deref()).await;
                let page = match page {
                    Ok(page) => page,
                    Err(error) if matches!(error.class(), ErrorClass::Gone | ErrorClass::Resync) => break,
                    Err(error) if self.source().is_left_alone(&folder, &error) => break,
                    Err(error) => return Err(error.into()),
                };
                for flags in page.items {
                    self.correct_flag(&flags.id, flags.is_read).await?;
                }
                link = page.next;
                if link.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn correct_flag(&mut self, id: &str, is_read: bool) -> Result<(), JobError> {
        // What this run listed is newer than this listing may be.
        if self.is_listed(id) {
            return Ok(());
        }
        match self.context().manifest.entry(id).await? {
            Some(entry)
                if entry.kind == EntryKind::MailMessage
                    && entry.flags.contains(EntryFlags::IS_READ) != is_read =>
            {
                self.rewrite_read_flag(id, &entry, is_read).await
            }
            _ => Ok(()),
        }
    }

    async fn rewrite_read_flag(
        &mut self,
        id: &str,
        entry: &ItemEntry,
        is_read: bool,
    ) -> Result<(), JobError> {
        let broken = |source| JobError::Stored { what: "meta", source };
        let meta = self.context().manifest.meta(entry).await?;
        let mut value: Value = serde_json::from_slice(&meta).map_err(broken)?;
        if let Some(fields) = value.as_object_mut() {
            fields.insert("isRead".to_owned(), Value::Bool(is_read));
        }
        let meta = serde_json::to_vec(&value).map_err(broken)?;
        let mut fields = entry.fields();
        fields.flags = if is_read {
            fields.flags.with(EntryFlags::IS_READ)
        } else {
            fields.flags.without(EntryFlags::IS_READ)
        };
        let content = entry.content.map_or(ContentSource::None, ContentSource::Existing);
        Ok(self.context().manifest.writer().put_item(key(id), fields, meta.into(), content).await?)
    }
}
