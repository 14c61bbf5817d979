//! What changed between two snapshots of one resource. It costs the difference, not the snapshots.

use std::sync::Arc;

use futures::StreamExt as _;
use holdfast_proto::coordinator::{DiffRequest, DiffResponse, operator_api_server::OperatorApi};
use holdfast_repository::{Change, SnapshotReader, diff};

use super::{OperatorService, backup::snapshot_id, folders::Folders, properties::Properties};
use crate::{catalog::audit::Actor, error::Error};

struct Sides {
    before: SnapshotReader,
    before_folders: Folders,
    after: SnapshotReader,
    after_folders: Folders,
}

impl OperatorService {
    pub(super) async fn diff_snapshots(
        &self,
        actor: &Actor,
        request: DiffRequest,
    ) -> Result<<Self as OperatorApi>::DiffStream, Error> {
        let before = self.core.catalog.snapshot(snapshot_id(&request.a)?).await?;
        let after = self.core.catalog.snapshot(snapshot_id(&request.b)?).await?;
        let same = (before.tenant, before.resource, before.workload)
            == (after.tenant, after.resource, after.workload);
        if !same {
            let problem = "both snapshots must be of one resource and workload".to_owned();
            return Err(Error::Invalid { field: "snapshot", value: request.b, problem });
        }
        let before = self.open_snapshot(actor, "snapshot.diff", &before).await?;
        let after = self.open_snapshot(actor, "snapshot.diff", &after).await?;
        let sides = Arc::new(Sides {
            before_folders: Folders::read(&before).await?,
            after_folders: Folders::read(&after).await?,
            before,
            after,
        });
        let changes = diff(&sides.before, &sides.after);
        let answers = changes.then(move |change| {
            let sides = sides.clone();
            async move {
                let change = change.map_err(Error::from)?;
                Ok(sides.answer(&change).await?)
            }
        });
        Ok(Box::pin(answers))
    }
}

impl Sides {
    async fn answer(&self, change: &Change) -> Result<DiffResponse, Error> {
        let (word, entry, path) = match (&change.before, &change.after) {
            (None, Some(after)) => {
                ("added", Some((&self.after, after)), self.after_folders.path(after.parent))
            }
            (Some(before), None) => {
                ("removed", Some((&self.before, before)), self.before_folders.path(before.parent))
            }
            (Some(before), Some(after)) => {
                let word = if before.parent == after.parent { "changed" } else { "moved" };
                (word, Some((&self.after, after)), self.after_folders.path(after.parent))
            }
            (None, None) => ("unchanged", None, String::new()),
        };
        let entry = match entry {
            Some((reader, item)) => {
                Some(Properties::read(&reader.meta(item).await?).entry(&change.key, item))
            }
            None => None,
        };
        Ok(DiffResponse { change: word.to_owned(), entry, path })
    }
}
