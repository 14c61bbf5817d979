//! The touch log: which records a session was told are there, in which epoch. Append-only, one sync per batch.
//!
//! One file per epoch and start. Frame: magic 4 · count 4 · epoch 8 · keys 48×n · CRC32C 4. Invariant: `have` answers *yes*
//! only after the frame is synced; a file is removed only when its epoch is too old to protect anything.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use holdfast_model::{ChunkId, RecordKey, TenantId};

use crate::{
    Error,
    disk::{Disk, DiskFile},
    index::{KEY_BYTES, encode_key},
};

const MAGIC: &[u8; 4] = b"HFT1";
const FRAME_FIXED: usize = 20;
/// Keys in one frame.
const FRAME_KEYS_MAX: usize = 1 << 16;
/// Logs kept open; one that was closed is not gone on with.
const OPEN_MAX: usize = 4;
/// Touches of older epochs protect nothing: condemning needs a touch before `E - 1`. One more is kept for caution.
const EPOCHS_KEPT: u64 = 3;

/// Writes touches.
pub struct TouchLog {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Distinguishes files of the same epoch.
    serial: u64,
    /// One per epoch, the last used last: a session of the epoch before writes among those of this one.
    open: Vec<OpenLog>,
}

struct OpenLog {
    epoch: u64,
    name: String,
    file: Arc<dyn DiskFile>,
    end: u64,
}

/// A log file that was found at the start.
#[derive(Debug)]
pub struct FoundLog {
    /// Its name: also the key of its progress in the index.
    pub name: String,
    /// Its path.
    pub path: PathBuf,
    epoch: u64,
    serial: u64,
}

impl TouchLog {
    /// A log that starts a new file at the first touch.
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, found: &[FoundLog]) -> Self {
        let serial = found.iter().map(|log| log.serial + 1).max().unwrap_or(0);
        Self { disk, dir, serial, open: Vec::new() }
    }

    /// Appends keys and syncs. After an error the file is given up and the keys count as not touched.
    pub fn append(&mut self, epoch: u64, keys: &[RecordKey]) -> Result<(String, u64), Error> {
        let result = self.try_append(epoch, keys);
        if result.is_err() {
            self.open.retain(|open| open.epoch != epoch);
        }
        result
    }

    fn try_append(&mut self, epoch: u64, keys: &[RecordKey]) -> Result<(String, u64), Error> {
        let log = match self.open.iter().position(|open| open.epoch == epoch) {
            Some(at) => self.open.remove(at),
            None => self.create(epoch)?,
        };
        if self.open.len() >= OPEN_MAX {
            self.open.remove(0);
        }
        self.open.push(log);
        let open = self.open.last_mut().expect("pushed above");
        let path = self.dir.join(&open.name);
        let mut bytes = Vec::with_capacity(keys.len() * KEY_BYTES + FRAME_FIXED);
        for keys in keys.chunks(FRAME_KEYS_MAX) {
            encode_frame(&mut bytes, epoch, keys);
        }
        open.file.write_all_at(&bytes, open.end).map_err(Error::io("append to", &path))?;
        open.file.sync().map_err(Error::io("sync", &path))?;
        open.end += bytes.len() as u64;
        Ok((open.name.clone(), open.end))
    }

    fn create(&mut self, epoch: u64) -> Result<OpenLog, Error> {
        let name = format!("{epoch:020}-{:08}.touch", self.serial);
        self.serial += 1;
        let path = self.dir.join(&name);
        let file = self.disk.create(&path).map_err(Error::io("create", &path))?;
        self.disk.sync_dir(&self.dir).map_err(Error::io("sync", &self.dir))?;
        remove_old(&*self.disk, &self.dir, epoch)?;
        self.open.retain(|open| open.epoch + EPOCHS_KEPT >= epoch);
        Ok(OpenLog { epoch, name, file, end: 0 })
    }
}

fn remove_old(disk: &dyn Disk, dir: &Path, epoch: u64) -> Result<(), Error> {
    for log in find_logs(disk, dir)?.into_iter().filter(|log| log.epoch + EPOCHS_KEPT < epoch) {
        disk.remove(&log.path).map_err(Error::io("remove", &log.path))?;
    }
    Ok(())
}

/// The log files in a folder, oldest first.
pub fn find_logs(disk: &dyn Disk, dir: &Path) -> Result<Vec<FoundLog>, Error> {
    let mut found = Vec::new();
    for path in disk.list(dir).map_err(Error::io("list", dir))? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let parts = name.strip_suffix(".touch").and_then(|stem| stem.split_once('-'));
        let numbers = parts.and_then(|(epoch, serial)| Some((epoch.parse().ok()?, serial.parse().ok()?)));
        if let Some((epoch, serial)) = numbers {
            found.push(FoundLog { name, path, epoch, serial });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Touched keys with their epoch.
pub type Touches = Vec<(RecordKey, u64)>;

/// Reads the touches behind an offset, and says up to where they are good. A bad frame ends the file: it was never synced, or is damaged.
pub fn read_log(disk: &dyn Disk, log: &FoundLog, from: u64) -> Result<(Touches, u64, bool), Error> {
    let bytes = disk.read(&log.path).map_err(Error::io("read", &log.path))?;
    let mut touches = Vec::new();
    let mut at = usize::try_from(from).unwrap_or(usize::MAX);
    while let Some((keys, epoch, len)) = bytes.get(at..).and_then(decode_frame) {
        touches.extend(keys.into_iter().map(|key| (key, epoch)));
        at += len;
    }
    // Frames are synced one after the other: a valid one behind a bad one means damage, not a torn tail.
    let damaged = (at + 1..bytes.len())
        .any(|later| bytes[later..].starts_with(MAGIC) && decode_frame(&bytes[later..]).is_some());
    Ok((touches, at as u64, damaged))
}

fn encode_frame(out: &mut Vec<u8>, epoch: u64, keys: &[RecordKey]) {
    let start = out.len();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&u32::try_from(keys.len()).expect("at most FRAME_KEYS_MAX").to_le_bytes());
    out.extend_from_slice(&epoch.to_le_bytes());
    for key in keys {
        out.extend_from_slice(&encode_key(key));
    }
    let crc = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

fn decode_frame(bytes: &[u8]) -> Option<(Vec<RecordKey>, u64, usize)> {
    if bytes.get(..4)? != MAGIC {
        return None;
    }
    let count = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?) as usize;
    let epoch = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
    if count > FRAME_KEYS_MAX {
        return None;
    }
    let len = FRAME_FIXED + count * KEY_BYTES;
    let (body, crc) = bytes.get(..len)?.split_at(len - 4);
    if crc != crc32c::crc32c(body).to_le_bytes() {
        return None;
    }
    let keys = body[16..]
        .chunks_exact(KEY_BYTES)
        .filter_map(|key| {
            let (tenant, id) = key.split_at(16);
            Some(RecordKey { tenant: TenantId::from_slice(tenant).ok()?, id: ChunkId::from_slice(id).ok()? })
        })
        .collect();
    Some((keys, epoch, len))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::disk::LocalDisk;

    fn key(n: u8) -> RecordKey {
        RecordKey { tenant: TenantId([n; 16]), id: ChunkId([n; 32]) }
    }

    #[test]
    fn touches_are_read_back_up_to_a_torn_frame() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = TouchLog::new(Arc::new(LocalDisk), dir.path().to_owned(), &[]);
        let first_end = log.append(5, &[key(1), key(2)]).unwrap().1;
        let (name, _) = log.append(5, &[key(3)]).unwrap();
        let path = dir.path().join(&name);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        let found = find_logs(&LocalDisk, dir.path()).unwrap();
        let (touches, end, damaged) = read_log(&LocalDisk, &found[0], 0).unwrap();
        assert_eq!((touches, end, damaged), (vec![(key(1), 5), (key(2), 5)], first_end, false));
        // The next start never appends to the torn file.
        let mut next = TouchLog::new(Arc::new(LocalDisk), dir.path().to_owned(), &found);
        assert_ne!(next.append(5, &[key(4)]).unwrap().0, name);
    }

    #[test]
    fn a_damaged_frame_before_a_good_one_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = TouchLog::new(Arc::new(LocalDisk), dir.path().to_owned(), &[]);
        log.append(5, &[key(1)]).unwrap();
        let (name, _) = log.append(5, &[key(2)]).unwrap();
        let mut bytes = fs::read(dir.path().join(&name)).unwrap();
        bytes[20] ^= 1;
        fs::write(dir.path().join(&name), bytes).unwrap();
        let found = find_logs(&LocalDisk, dir.path()).unwrap();
        assert!(read_log(&LocalDisk, &found[0], 0).unwrap().2);
    }

    #[test]
    fn logs_of_old_epochs_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = TouchLog::new(Arc::new(LocalDisk), dir.path().to_owned(), &[]);
        for epoch in [1, 2, 9] {
            log.append(epoch, &[key(1)]).unwrap();
        }
        let found = find_logs(&LocalDisk, dir.path()).unwrap();
        assert_eq!(found.iter().map(|log| log.epoch).collect::<Vec<_>>(), vec![9]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_frame(&bytes);
        }
    }
}
