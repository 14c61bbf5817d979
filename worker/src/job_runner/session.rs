//! Opening storage for a job: a session for a backup, a reader for everything else.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_model::{ChunkId, Fence, SessionId};
use holdfast_record::Pin;
use holdfast_repository::StoreError;
use holdfast_storage_client::{ReadStore, SessionParams, StorageSession};

use super::{JobRunner, Running, lease::TokenUser};
use crate::{JobError, backup::CheckpointSink};

/// Job checkpoints in a session, each one replacing the one before.
pub(super) struct SessionCheckpoints {
    session: StorageSession,
    fence: Fence,
    revision: AtomicU64,
}

impl SessionCheckpoints {
    pub(super) fn new(session: StorageSession, fence: Fence) -> Self {
        Self { session, fence, revision: AtomicU64::new(0) }
    }
}

#[async_trait]
impl CheckpointSink for SessionCheckpoints {
    async fn put(&self, body: Bytes, roots: &[ChunkId]) -> Result<(), StoreError> {
        let revision = self.revision.fetch_add(1, Ordering::Relaxed) + 1;
        self.session.put_checkpoint(self.fence, revision, body, roots).await
    }
}

impl JobRunner {
    pub(super) fn reader(&self, running: &Running) -> ReadStore {
        let lease = &running.lease;
        let reader = self.storage.reader(lease.layout.clone(), lease.session_token(), lease.tenant);
        lease.keep_renewed(TokenUser::Reader(reader.clone()));
        reader
    }

    pub(super) async fn open_session(
        &self,
        running: &Running,
        base: Option<&Pin>,
    ) -> Result<StorageSession, JobError> {
        let lease = &running.lease;
        let params = SessionParams {
            session: SessionId(self.shared.random.next_u64()),
            tenant: lease.tenant,
            resource: lease.resource,
            workload: lease.workload,
            base_pin: base.map(Pin::hash),
        };
        let session = self.storage.open_session(lease.layout.clone(), lease.session_token(), params).await?;
        lease.keep_renewed(TokenUser::Session(session.clone()));
        Ok(session)
    }

    /// The job checkpoint of an earlier attempt. Without one the base is good enough.
    pub(super) async fn checkpoint(&self, running: &Running) -> Option<Bytes> {
        let lease = &running.lease;
        let token = lease.session_token();
        let view = self.storage.read_pins(
            lease.layout.clone(),
            token,
            lease.tenant,
            lease.resource,
            lease.workload,
            1,
        );
        match view.await {
            Ok(view) => view.checkpoint.map(|(_, _, body)| body),
            Err(error) => {
                tracing::warn!(%error, "job checkpoint cannot be read, starting from the base");
                None
            }
        }
    }
}
