//! Snapshots, with the copies that storage nodes show now.

use std::{collections::HashMap, sync::Arc};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use holdfast_model::{JobId, Layout, ResourceId, Verb, Workload};
use holdfast_proto::coordinator::{ListSnapshotsRequest, ListSnapshotsResponse, Snapshot};
use holdfast_record::Pin;
use holdfast_repository::StoreError;

use super::{OperatorService, backup::workload, ms};
use crate::{
    catalog::{audit::Actor, snapshot::SnapshotRow},
    core::TokenFor,
    error::Error,
};

const MAX_SNAPSHOTS: u32 = 10_000;
/// Resources whose pins are asked for at the same time.
const ASKED_AT_ONCE: usize = 16;

/// Copies by (resource, workload, sequence).
type Copies = HashMap<(ResourceId, Workload, u64), u32>;

impl OperatorService {
    pub(super) async fn snapshots(
        &self,
        _: &Actor,
        request: ListSnapshotsRequest,
    ) -> Result<ListSnapshotsResponse, Error> {
        let catalog = &self.core.catalog;
        let tenant = catalog.tenant_by_name(&request.tenant).await?;
        let resource = match request.resource.as_str() {
            "" => None,
            text => Some(catalog.resource_by_name(tenant.id, &tenant.name, text).await?.id),
        };
        let workload = match request.workload.as_str() {
            "" => None,
            word => Some(workload(word)?),
        };
        let rows = catalog.snapshots(tenant.id, resource, workload, MAX_SNAPSHOTS).await?;
        let names: HashMap<ResourceId, String> =
            catalog.resources(tenant.id).await?.into_iter().map(|row| (row.id, row.written())).collect();
        let copies = self.measure(&rows).await?;
        let mut snapshots = Vec::with_capacity(rows.len());
        for row in rows {
            let pin = Pin::decode(&row.pin)?;
            snapshots.push(Snapshot {
                id: row.id.to_string(),
                resource: names.get(&row.resource).cloned().unwrap_or_default(),
                workload: row.workload.to_string(),
                sequence: row.sequence.0,
                created_ms: ms(row.created_ms),
                account: Some(row.account.into()),
                copies: copies.get(&(row.resource, row.workload, row.sequence.0)).copied().unwrap_or(0),
                items: pin.items,
                items_missing: pin.items_missing,
            });
        }
        Ok(ListSnapshotsResponse { snapshots })
    }

    /// Asks the pin owners of every resource. Who does not answer has no copy.
    async fn measure(&self, rows: &[SnapshotRow]) -> Result<Copies, Error> {
        let mut asked: HashMap<(ResourceId, Workload), SnapshotRow> = HashMap::new();
        for row in rows {
            asked.entry((row.resource, row.workload)).or_insert_with(|| row.clone());
        }
        if asked.is_empty() {
            return Ok(Copies::new());
        }
        let layout = self.core.layout().await?;
        let calls = asked.into_values().map(|row| self.measure_one(row, layout.clone()));
        let answers: Vec<Copies> = stream::iter(calls).buffer_unordered(ASKED_AT_ONCE).try_collect().await?;
        Ok(answers.into_iter().flatten().collect())
    }

    async fn measure_one(&self, row: SnapshotRow, layout: Arc<Layout>) -> Result<Copies, Error> {
        let subject = TokenFor {
            tenant: row.tenant,
            resource: row.resource,
            workload: row.workload,
            job: JobId::random(&*self.core.random),
            fence: Pin::decode(&row.pin)?.fence,
        };
        let (token, _) = self.core.session_token(&subject, &[Verb::Read]).await?;
        let view =
            self.core.storage.read_pins(layout, token, row.tenant, row.resource, row.workload, 0).await;
        let view = match view {
            Ok(view) => view,
            Err(StoreError::Unavailable { .. } | StoreError::LayoutChanged) => return Ok(Copies::new()),
            Err(error) => return Err(error.into()),
        };
        let shown = view.pins.into_iter().chain(view.undecided);
        let counted = |(pin, copies): (Pin, usize)| {
            ((row.resource, row.workload, pin.sequence.0), u32::try_from(copies).unwrap_or(u32::MAX))
        };
        Ok(shown.map(counted).collect())
    }
}
