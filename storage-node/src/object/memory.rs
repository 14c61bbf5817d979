//! An object store in memory that does wrong what it is told to: for tests.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_model::Millis;

use super::{ListPage, Listed, ObjectError, ObjectInfo, ObjectStore, PutNew};

/// What it does wrong.
#[derive(Debug, Clone, Default)]
pub struct MemoryFaults {
    /// It cannot be reached.
    pub is_away: bool,
    /// It lists and looks, and cannot be reached to read.
    pub fails_reads: bool,
    /// It stores what it is given and cannot be reached for the answer.
    pub loses_answers: bool,
    /// Its listings break off at this page.
    pub fails_page: Option<usize>,
    /// Objects stored from now on have a bit flipped.
    pub flips_a_bit: bool,
    /// Creates overwrite.
    pub overwrites: bool,
    /// Locked versions can be deleted.
    pub ignores_locks: bool,
    /// The bucket has no object lock.
    pub has_no_lock: bool,
    /// Every call is refused.
    pub refuses: Option<ObjectError>,
}

struct Stored {
    bytes: Bytes,
    version: u64,
    locked_until_ms: Option<Millis>,
}

/// The store. It has no clock: a lock lasts as long as the store.
pub struct MemoryStore {
    objects: Mutex<BTreeMap<String, Stored>>,
    faults: Mutex<MemoryFaults>,
    page: usize,
    reads: AtomicU64,
}

impl MemoryStore {
    /// An empty store that lists so many objects per page.
    pub fn new(page: usize) -> Self {
        Self {
            objects: Mutex::default(),
            faults: Mutex::default(),
            page: page.max(1),
            reads: AtomicU64::new(0),
        }
    }

    /// Does other things wrong from now on.
    pub fn set_faults(&self, faults: MemoryFaults) {
        *lock(&self.faults) = faults;
    }

    /// Ranges read so far.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Every key.
    pub fn keys(&self) -> Vec<String> {
        lock(&self.objects).keys().cloned().collect()
    }

    /// Changes an object's bytes behind everybody's back; none removes it.
    pub fn replace(&self, key: &str, bytes: Option<Bytes>) {
        let mut objects = lock(&self.objects);
        match bytes {
            Some(bytes) => {
                let version = objects.get(key).map_or(0, |stored| stored.version) + 1;
                objects.insert(key.to_owned(), Stored { bytes, version, locked_until_ms: None });
            }
            None => drop(objects.remove(key)),
        }
    }

    fn reached(&self, action: &'static str) -> Result<(), ObjectError> {
        let faults = lock(&self.faults);
        if faults.is_away {
            return Err(ObjectError::Unreachable { action, reason: "connection refused".to_owned() });
        }
        faults.refuses.clone().map_or(Ok(()), Err)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn not_found(key: &str) -> ObjectError {
    ObjectError::NotFound { key: key.to_owned() }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    async fn put_new(
        &self,
        key: &str,
        bytes: Bytes,
        locked_until_ms: Option<Millis>,
    ) -> Result<PutNew, ObjectError> {
        const ACTION: &str = "create an object";
        self.reached(ACTION)?;
        let faults = lock(&self.faults).clone();
        let mut objects = lock(&self.objects);
        if objects.contains_key(key) && !faults.overwrites {
            return Ok(PutNew::Exists);
        }
        let mut bytes = bytes.to_vec();
        if let Some(byte) = bytes.last_mut().filter(|_| faults.flips_a_bit) {
            *byte ^= 1;
        }
        let version = objects.get(key).map_or(0, |stored| stored.version) + 1;
        objects.insert(key.to_owned(), Stored { bytes: bytes.into(), version, locked_until_ms });
        if faults.loses_answers {
            return Err(ObjectError::Unreachable { action: ACTION, reason: "connection reset".to_owned() });
        }
        Ok(PutNew::Stored)
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, ObjectError> {
        const READ: &str = "read an object";
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.reached(READ)?;
        if lock(&self.faults).fails_reads {
            return Err(ObjectError::Unreachable { action: READ, reason: "connection reset".to_owned() });
        }
        let objects = lock(&self.objects);
        let bytes = &objects.get(key).ok_or_else(|| not_found(key))?.bytes;
        if range.end > bytes.len() as u64 {
            return Err(ObjectError::TooShort { key: key.to_owned() });
        }
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(bytes.slice(at(range.start)..at(range.end)))
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo, ObjectError> {
        self.reached("look at an object")?;
        let objects = lock(&self.objects);
        let Stored { bytes, version, locked_until_ms } = objects.get(key).ok_or_else(|| not_found(key))?;
        let (len, version) = (bytes.len() as u64, Some(version.to_string()));
        Ok(ObjectInfo { len, version, locked_until_ms: *locked_until_ms })
    }

    async fn list_page(&self, prefix: &str, from: Option<String>) -> Result<ListPage, ObjectError> {
        const ACTION: &str = "list the bucket";
        self.reached(ACTION)?;
        let n: usize = from.map_or(0, |from| from.parse().unwrap_or(0));
        if lock(&self.faults).fails_page == Some(n) {
            return Err(ObjectError::Unreachable { action: ACTION, reason: "connection reset".to_owned() });
        }
        let objects = lock(&self.objects);
        let mut found = objects.iter().filter(|(key, _)| key.starts_with(prefix)).skip(n * self.page);
        let page: Vec<Listed> = found
            .by_ref()
            .take(self.page)
            .map(|(key, stored)| Listed { key: key.clone(), len: stored.bytes.len() as u64 })
            .collect();
        let next = found.next().map(|_| (n + 1).to_string());
        Ok(ListPage { objects: page, next })
    }

    async fn is_lockable(&self) -> Result<bool, ObjectError> {
        self.reached("read the bucket's object lock")?;
        Ok(!lock(&self.faults).has_no_lock)
    }

    async fn delete_version(&self, key: &str, version: &str) -> Result<(), ObjectError> {
        const ACTION: &str = "delete a version";
        self.reached(ACTION)?;
        let ignores_locks = lock(&self.faults).ignores_locks;
        let mut objects = lock(&self.objects);
        let Some(stored) = objects.get(key).filter(|stored| stored.version.to_string() == version) else {
            return Err(not_found(key));
        };
        if stored.locked_until_ms.is_some() && !ignores_locks {
            return Err(ObjectError::Denied { action: ACTION });
        }
        objects.remove(key);
        Ok(())
    }
}
