//! What differs between workloads, behind one trait: enumerate → fetch → item → manifest, and back: plan → write back.
//!
//! The one thing to know: a workload never touches sessions, pins or leases; it reads Microsoft and edits a manifest.

pub mod mail;

use std::sync::Arc;

use async_trait::async_trait;
use holdfast_model::Workload;

use crate::{
    JobError,
    backup::{BackupContext, Collected},
    restore::{RestoreContext, Restored},
};

/// A kind of data Holdfast can protect.
#[async_trait]
pub trait ProtectedWorkload: Send + Sync {
    /// Whether a job can go on from this body of a job checkpoint.
    fn can_resume(&self, checkpoint: &[u8]) -> bool;

    /// Brings the manifest up to date with Microsoft.
    async fn back_up(&self, context: &Arc<BackupContext>) -> Result<Collected, JobError>;

    /// Writes what was selected back to Microsoft.
    async fn write_back(&self, context: &RestoreContext) -> Result<Restored, JobError>;
}

/// The module of a workload.
pub fn of(workload: Workload) -> &'static dyn ProtectedWorkload {
    match workload {
        Workload::Mail => &mail::Mail,
    }
}
