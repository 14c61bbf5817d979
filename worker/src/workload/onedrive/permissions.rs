//! Permissions of an item: its own, where it has any.

use holdfast_graph_client::DriveItem;
use serde_json::value::RawValue;

use crate::{
    backup::BackupContext,
    workload::{collect::FetchError, stored::broken},
};

/// The permissions that are the item's own. Asked for only where Microsoft says that it is shared.
///
/// An item that has none may still be marked as shared: the mark means that it does not inherit.
pub(super) async fn own(
    context: &BackupContext,
    drive: &str,
    item: &DriveItem,
) -> Result<Vec<Box<RawValue>>, FetchError> {
    if !item.is_shared {
        return Ok(Vec::new());
    }
    let all = context.graph.drive_permissions(drive, &item.id).await?;
    let own = all.into_iter().filter(|permission| !permission.is_inherited);
    let raw =
        own.map(|permission| serde_json::value::to_raw_value(&permission.raw).map_err(broken("permission")));
    Ok(raw.collect::<Result<_, _>>()?)
}
