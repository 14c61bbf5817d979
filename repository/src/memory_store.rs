//! A chunk store in memory, for tests here and in other crates, with the faults they need.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use holdfast_model::ChunkId;
use holdfast_record::SealedRecord;

use crate::chunk_store::{ChunkStore, StoreError};

/// Keeps every distinct copy of every record it is given.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    records: HashMap<ChunkId, Vec<SealedRecord>>,
    puts: u64,
    gets: u64,
    stored_bytes: u64,
    failing_puts: Option<StoreError>,
}

impl MemoryStore {
    /// Starts empty.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Distinct ids stored.
    pub fn n_records(&self) -> usize {
        self.state().records.len()
    }

    /// Encoded bytes taken by puts of ids that were not there.
    pub fn stored_bytes(&self) -> u64 {
        self.state().stored_bytes
    }

    /// Calls of `put`.
    pub fn n_puts(&self) -> u64 {
        self.state().puts
    }

    /// Records asked for by `get`.
    pub fn n_gets(&self) -> u64 {
        self.state().gets
    }

    /// A copy of everything, in no order.
    pub fn records(&self) -> Vec<SealedRecord> {
        self.state().records.values().flatten().cloned().collect()
    }

    /// Lets every later put fail, or work again.
    pub fn fail_puts(&self, error: Option<StoreError>) {
        self.state().failing_puts = error;
    }

    /// Forgets a record.
    pub fn remove(&self, id: ChunkId) {
        self.state().records.remove(&id);
    }

    /// Flips a bit in the copy that `get` returns.
    pub fn damage(&self, id: ChunkId) {
        if let Some(record) = self.state().records.get_mut(&id).and_then(|copies| copies.first_mut()) {
            let mut bytes = record.ciphertext.to_vec();
            if let Some(byte) = bytes.first_mut() {
                *byte ^= 1;
            }
            record.ciphertext = bytes.into();
        }
    }

    /// Adds a copy behind those there are.
    pub fn add_copy(&self, record: SealedRecord) {
        self.state().records.entry(record.header.id).or_default().push(record);
    }
}

#[async_trait]
impl ChunkStore for MemoryStore {
    async fn have(&self, ids: &[ChunkId]) -> Result<Vec<bool>, StoreError> {
        let state = self.state();
        Ok(ids.iter().map(|id| state.records.contains_key(id)).collect())
    }

    async fn put(&self, records: Vec<SealedRecord>) -> Result<(), StoreError> {
        let mut state = self.state();
        state.puts += 1;
        if let Some(error) = &state.failing_puts {
            return Err(error.clone());
        }
        for record in records {
            let id = record.header.id;
            record.verify().map_err(|error| StoreError::Refused { reason: error.to_string() })?;
            if !state.records.contains_key(&id) {
                state.stored_bytes += record.encoded_len() as u64;
                state.records.insert(id, vec![record]);
            }
        }
        Ok(())
    }

    async fn get(&self, ids: &[ChunkId]) -> Result<Vec<SealedRecord>, StoreError> {
        let mut state = self.state();
        state.gets += ids.len() as u64;
        ids.iter()
            .map(|id| {
                let copies = state.records.get(id).and_then(|copies| copies.first());
                copies.cloned().ok_or(StoreError::Missing { id: *id })
            })
            .collect()
    }

    async fn get_copies(&self, id: ChunkId) -> Result<Vec<SealedRecord>, StoreError> {
        self.state().records.get(&id).cloned().ok_or(StoreError::Missing { id })
    }
}
