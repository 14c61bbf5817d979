//! What the machine does at best: the node's index file and a touch log of the same size, by themselves and on one thread.

use std::{fs::File, io::Write as _, path::Path, sync::Arc};

use holdfast_model::{ChunkId, Epoch, RecordKey};
use holdfast_storage_node::{
    disk::LocalDisk,
    index::{ChunkIndex as _, IndexBatch, RedbIndex, WAITING_MAX},
};

use crate::{Cost, LogCost, Meter, node::TENANT};

/// A frame of the touch log: fixed part and one key.
const FRAME_FIXED: usize = 20;
const KEY_BYTES: usize = 48;
const LOG_APPENDS: usize = 512;

/// Each alone.
pub struct Limits {
    pub lookups: Cost,
    pub touches: Cost,
    pub log: LogCost,
}

/// Measures on the closed node's files.
pub fn measure(folder: &Path, asked: &[(Vec<ChunkId>, usize)], epoch: Epoch) -> Limits {
    let index =
        RedbIndex::open(Arc::new(LocalDisk), &folder.join("data/index.redb")).expect("open the index");
    let keys: Vec<Vec<RecordKey>> = asked
        .iter()
        .map(|(ids, _)| ids.iter().map(|id| RecordKey { tenant: TENANT, id: *id }).collect())
        .collect();
    // Once unmeasured: the node's cache was warm too.
    let found: Vec<_> = keys.iter().map(|keys| index.get_many(keys).expect("look up")).collect();
    let meter = Meter::start();
    for keys in &keys {
        std::hint::black_box(index.get_many(keys).expect("look up"));
    }
    let lookups = meter.stop(keys.iter().map(Vec::len).sum());
    let there = |(key, entry): (&RecordKey, &Option<_>)| entry.is_some().then_some(*key);
    let there: Vec<RecordKey> = keys.iter().flatten().zip(found.iter().flatten()).filter_map(there).collect();
    let batches: Vec<IndexBatch> = there.chunks(WAITING_MAX).map(|keys| touches(keys, epoch)).collect();
    let meter = Meter::start();
    for batch in &batches {
        index.apply(batch).expect("touch");
    }
    let touches = meter.stop(batches.iter().map(|batch| batch.touches.len()).sum());
    let batch_bytes = FRAME_FIXED + there.len() / keys.len() * KEY_BYTES;
    let log = LogCost { batch_bytes, cost: append_and_sync(folder, batch_bytes) };
    Limits { lookups, touches, log }
}

fn touches(keys: &[RecordKey], epoch: Epoch) -> IndexBatch {
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    let touches = keys.into_iter().map(|key| (key, epoch.next().0)).collect();
    IndexBatch { touches, ..IndexBatch::default() }
}

fn append_and_sync(folder: &Path, bytes: usize) -> Cost {
    let mut file = File::create(folder.join("raw-log")).expect("create a file");
    let frame = vec![0xa5; bytes];
    let meter = Meter::start();
    for _ in 0..LOG_APPENDS {
        file.write_all(&frame).and_then(|()| file.sync_data()).expect("append and sync");
    }
    meter.stop(LOG_APPENDS)
}
