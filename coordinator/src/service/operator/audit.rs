//! The audit trail.

use holdfast_proto::coordinator::{AuditRow, ListAuditRequest, ListAuditResponse};

use super::{OperatorService, page_size};
use crate::{catalog::audit::Actor, error::Error};

const DEFAULT_ROWS: u32 = 100;
const MAX_ROWS: u32 = 10_000;

impl OperatorService {
    pub(super) async fn audit_rows(
        &self,
        _: &Actor,
        request: ListAuditRequest,
    ) -> Result<ListAuditResponse, Error> {
        let rows = self.core.catalog.newest_audit(page_size(request.newest, DEFAULT_ROWS, MAX_ROWS)).await?;
        let chain_intact = self.core.catalog.audit_chain_holds().await?;
        let wire = |row: crate::catalog::audit::AuditRow| AuditRow {
            number: row.number,
            time_ms: row.time_ms,
            actor: row.actor,
            action: row.action,
            subject: row.subject,
            hash: row.hash,
        };
        Ok(ListAuditResponse { rows: rows.into_iter().map(wire).collect(), chain_intact })
    }
}
