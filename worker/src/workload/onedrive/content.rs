//! The bytes of a file, and of its earlier versions.
//!
//! Memory: a piece of a stream and the writer's budget, never a file.

use holdfast_graph_client::{ContentCheck, DriveContent, DriveDownload, DriveItem, ErrorClass};
use holdfast_repository::{ContentDraft, MAX_PARTS};
use serde_json::value::RawValue;

use super::meta::{StoredFile, StoredVersion};
use crate::{
    backup::BackupContext,
    metrics,
    workload::{
        collect::FetchError,
        parts::Parts,
        stored::{broken, json_text},
    },
};

/// Content of which Microsoft says something else than what came is fetched so often before it is taken as it is.
const CHECKED_ATTEMPTS: u32 = 2;
/// The code under which such content is reported.
const DIFFERS: &str = "ContentDiffers";

/// Fetches the content of a file.
pub(super) async fn file(
    context: &BackupContext,
    drive: &str,
    item: &DriveItem,
    parts: &mut Parts,
) -> Result<StoredFile, FetchError> {
    let mut attempt = 1;
    loop {
        let mut download = context.graph.drive_download(DriveContent::of_item(drive, item));
        let draft = stream(context, &mut download).await?;
        let differs = download.check() == ContentCheck::Differs;
        if differs && attempt < CHECKED_ATTEMPTS {
            attempt += 1;
            metrics::content_retried();
            tracing::debug!(attempt, "content is not what Microsoft says, fetching it again");
            continue;
        }
        if differs {
            parts.note_missing(DIFFERS.to_owned());
        }
        let file = StoredFile { len: draft.len(), quick_xor_hash: download.hash().finish(), differs };
        parts.push(draft);
        return Ok(file);
    }
}

/// Fetches earlier versions, the newest first, as many as are wanted and Microsoft has. One that cannot be had is noted.
pub(super) async fn earlier_versions(
    context: &BackupContext,
    (drive, item): (&str, &DriveItem),
    n_wanted: usize,
    parts: &mut Parts,
) -> Result<Vec<StoredVersion>, FetchError> {
    let n_wanted = n_wanted.min(MAX_PARTS - 1);
    if n_wanted == 0 {
        return Ok(Vec::new());
    }
    let versions = context.graph.drive_versions(drive, &item.id).await?;
    let mut stored = Vec::new();
    // The first one listed is what the item has now.
    for version in versions.iter().skip(1).take(n_wanted) {
        let mut download = context.graph.drive_download(DriveContent::of_version(drive, item, version));
        match stream(context, &mut download).await {
            Ok(draft) => {
                let info = RawValue::from_string(json_text(&version.raw).to_owned());
                let info = info.map_err(broken("version"))?;
                stored.push(StoredVersion { info, len: draft.len() });
                parts.push(draft);
            }
            Err(FetchError::Graph(error))
                if matches!(error.class(), ErrorClass::SkipItem | ErrorClass::Gone) =>
            {
                parts.note_missing(format!("VersionMissing:{}", error.code()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(stored)
}

/// A download goes on by itself where it breaks; what it gives up on is the item's failure.
async fn stream(context: &BackupContext, download: &mut DriveDownload) -> Result<ContentDraft, FetchError> {
    let mut writer = context.manifest.writer().file();
    while let Some(piece) = download.next().await? {
        writer.push(piece).await?;
    }
    Ok(writer.finish().await?)
}
