//! Reading outside a session: restore, export, verify and browse. It can only read.

use std::sync::Arc;

use async_trait::async_trait;
use holdfast_model::{ChunkId, Layout, TenantId};
use holdfast_proto::storage;
use holdfast_record::SealedRecord;
use holdfast_repository::{ChunkStore, StoreError};

use crate::{
    fetch::Fetcher,
    nodes::{Context, TokenCell},
};

/// Reads a tenant's records; clones share the token.
#[derive(Clone)]
pub struct ReadStore {
    fetcher: Fetcher,
}

impl ReadStore {
    pub(crate) fn new(
        context: Arc<Context>,
        layout: Arc<Layout>,
        token: storage::SessionToken,
        tenant: TenantId,
    ) -> Self {
        let token = Arc::new(TokenCell::new(token, &layout));
        Self { fetcher: Fetcher::new(context, layout, token, tenant) }
    }

    /// Takes the next session token, from a heartbeat.
    pub fn set_token(&self, token: storage::SessionToken) {
        self.fetcher.token().set(token);
    }
}

fn read_only<T>() -> Result<T, StoreError> {
    Err(StoreError::Refused { reason: "this store only reads: writing needs a session".to_owned() })
}

#[async_trait]
impl ChunkStore for ReadStore {
    async fn have(&self, _ids: &[ChunkId]) -> Result<Vec<bool>, StoreError> {
        read_only()
    }

    async fn put(&self, _records: Vec<SealedRecord>) -> Result<(), StoreError> {
        read_only()
    }

    async fn get(&self, ids: &[ChunkId]) -> Result<Vec<SealedRecord>, StoreError> {
        self.fetcher.get(ids).await
    }

    async fn get_copies(&self, id: ChunkId) -> Result<Vec<SealedRecord>, StoreError> {
        self.fetcher.get_copies(id).await
    }
}
