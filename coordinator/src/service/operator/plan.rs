//! What a restore would do, and how long Microsoft's limits make it take.

use std::collections::BTreeSet;

use futures::TryStreamExt as _;
use holdfast_graph_client::QuotaLimits;
use holdfast_proto::coordinator::RestorePlan;
use holdfast_repository::{EntryFlags, EntryKind, ItemEntry, ItemKey, SnapshotReader};

use super::{OperatorService, folders::Folders};
use crate::{
    catalog::{audit::Actor, snapshot::SnapshotRow},
    error::Error,
};

/// A message with an attachment needs at least one more call, when it is too large for one.
const CALLS_PER_ATTACHMENT: u64 = 1;
/// One create may take this long: four at a time, as Outlook allows, make the forecast.
const CREATE_SECONDS_TIMES_4: u64 = 1;

#[derive(Default)]
struct Counted {
    items: u64,
    bytes: u64,
    with_attachments: u64,
    folders: u64,
}

impl Counted {
    fn add(&mut self, item: &ItemEntry) {
        if item.kind == EntryKind::MailMessage {
            self.items += 1;
            self.bytes += item.size;
            self.with_attachments += u64::from(item.flags.contains(EntryFlags::HAS_ATTACHMENTS));
        }
    }
}

impl OperatorService {
    pub(super) async fn plan(
        &self,
        actor: &Actor,
        snapshot: &SnapshotRow,
        paths: &[String],
    ) -> Result<RestorePlan, Error> {
        let reader = self.open_snapshot(actor, "restore.plan", snapshot).await?;
        let counted =
            if paths.is_empty() { count_all(&reader).await? } else { count(&reader, paths).await? };
        // Each folder is created or found, and listed once for its restore keys.
        let calls = counted.items + counted.with_attachments * CALLS_PER_ATTACHMENT + counted.folders * 2;
        let limits = QuotaLimits::default();
        let granted = (limits.mailbox_requests * u64::from(limits.grant_percent) / 100).max(1);
        let by_quota = calls.saturating_mul(limits.mailbox_window_s) / granted;
        let by_latency = calls.saturating_mul(CREATE_SECONDS_TIMES_4) / 4;
        let seconds = by_quota.max(by_latency).max(u64::from(calls > 0));
        Ok(RestorePlan { items: counted.items, bytes: counted.bytes, calls, seconds })
    }
}

async fn count_all(reader: &SnapshotReader) -> Result<Counted, Error> {
    let mut counted = Counted::default();
    let mut items = reader.items();
    while let Some((_, item)) = items.try_next().await? {
        counted.folders += u64::from(item.kind == EntryKind::Folder);
        counted.add(&item);
    }
    Ok(counted)
}

/// Counts folders with all below them, and single items.
async fn count(reader: &SnapshotReader, paths: &[String]) -> Result<Counted, Error> {
    let all = Folders::read(reader).await?;
    let mut counted = Counted::default();
    let mut folders = BTreeSet::new();
    for path in paths {
        let under = all.under(path);
        if !under.is_empty() {
            folders.extend(under);
            continue;
        }
        let item = reader.item(&ItemKey(path.clone().into_bytes())).await?;
        counted.add(&item.ok_or_else(|| Error::NotFound {
            what: "folder or item",
            name: path.clone(),
            hint: "run `holdfast browse SNAPSHOT` to see what is in it".to_owned(),
        })?);
    }
    counted.folders = folders.len() as u64;
    for folder in folders {
        let mut children = reader.children(folder);
        while let Some(child) = children.try_next().await? {
            if child.kind == EntryKind::MailMessage
                && let Some(item) = reader.item(&child.key).await?
            {
                counted.add(&item);
            }
        }
    }
    Ok(counted)
}
