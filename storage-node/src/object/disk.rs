//! A disk whose sealed segments move to an object store. Everything else stays on the local disk under it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
};

use redb::{Builder, Database, DatabaseError};
use tokio::{runtime::Handle, sync::Notify};

use super::{
    ObjectError, ObjectStore,
    file::ReadFile,
    metrics,
    notes::{Note, Notes},
};
use crate::{
    Error,
    disk::{Disk, DiskFile, DiskUsage},
    segment::SegmentFile,
};

/// The file of the notes, beside the folder of the segments.
const NOTES: &str = "objects.redb";
/// A segment that is made anew has this behind its name until it is done.
const NEW: &str = ".new";

/// The local disk with the objects behind it. Clones share everything.
#[derive(Clone)]
pub struct ObjectDisk(pub(super) Arc<Shared>);

/// What the disk, the files it opened and the uploader share.
pub(super) struct Shared {
    pub local: Arc<dyn Disk>,
    pub store: Arc<dyn ObjectStore>,
    /// Where the calls to the store run; who waits for one blocks a thread that may.
    runtime: Handle,
    prefix: String,
    pub segments: PathBuf,
    /// Every object of this node: its segment's name and its length.
    objects: RwLock<BTreeMap<String, u64>>,
    notes: OnceLock<Notes>,
    opening_notes: Mutex<()>,
    /// Segments that are open to read from the local disk.
    open: Mutex<BTreeMap<String, Vec<Weak<ReadFile>>>>,
    /// Bytes of segments that are only objects.
    elsewhere_bytes: AtomicU64,
    serving: AtomicBool,
    /// Told when a segment is sealed.
    pub sealed: Arc<Notify>,
}

impl ObjectDisk {
    /// Lists the objects under a prefix, completely, and puts them behind the segments' folder of a local disk.
    pub async fn connect(
        local: Arc<dyn Disk>,
        store: Arc<dyn ObjectStore>,
        prefix: String,
        data: &Path,
    ) -> Result<Self, ObjectError> {
        let segments = data.join("segments");
        let mut objects = BTreeMap::new();
        for object in store.list(&prefix).await? {
            let name = &object.key[prefix.len()..];
            if SegmentFile::parse(&segments, name).is_some() {
                objects.insert(name.to_owned(), object.len);
            }
        }
        Ok(Self(Arc::new(Shared {
            local,
            store,
            runtime: Handle::current(),
            prefix,
            segments,
            objects: RwLock::new(objects),
            notes: OnceLock::new(),
            opening_notes: Mutex::default(),
            open: Mutex::default(),
            elsewhere_bytes: AtomicU64::new(0),
            serving: AtomicBool::new(false),
            sealed: Arc::default(),
        })))
    }

    /// The node is open: from now on every byte of an object is read from the store.
    pub fn serve(&self) {
        self.0.serving.store(true, Ordering::Relaxed);
    }

    /// The segment of that path, if it is one that can be an object.
    fn segment(&self, path: &Path) -> Option<String> {
        (path.parent() == Some(&*self.0.segments)).then_some(())?;
        let name = path.file_name()?.to_str()?;
        SegmentFile::parse(&self.0.segments, name).map(|_| name.to_owned())
    }

    fn is_object(&self, path: &Path) -> bool {
        self.segment(path).is_some_and(|name| self.0.object_len(&name).is_some())
    }

    /// Refuses to write where an object stands: it is never written again.
    fn refuse_object(&self, path: &Path) -> io::Result<()> {
        let target = path.to_str().and_then(|text| text.strip_suffix(NEW)).map_or(path, Path::new);
        if self.is_object(target) {
            return Err(io::Error::new(
                ErrorKind::Unsupported,
                "the segment is an object, which is never written again",
            ));
        }
        Ok(())
    }
}

impl Shared {
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Relaxed)
    }

    pub fn object_len(&self, name: &str) -> Option<u64> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    /// Waits for a call to the store. Blocks the thread: never one that the calls themselves run on.
    pub fn wait<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, ObjectError>> + Send + 'static,
    ) -> io::Result<T> {
        let (answer, receive) = mpsc::sync_channel(1);
        // Nobody is left to hear it only when this thread is gone.
        self.runtime.spawn(async move { drop(answer.send(call.await)) });
        let answered = receive.recv().unwrap_or(Err(ObjectError::Stopping));
        answered.map_err(io::Error::from)
    }

    pub fn note(&self, name: &str) -> io::Result<Option<Note>> {
        self.notes()?.get(name).map_err(io::Error::other)
    }

    /// The notes, opened at their first use: by then it is known that the data folder is this node's.
    fn notes(&self) -> io::Result<&Notes> {
        if let Some(notes) = self.notes.get() {
            return Ok(notes);
        }
        let _guard = lock(&self.opening_notes);
        if let Some(notes) = self.notes.get() {
            return Ok(notes);
        }
        let path = self.segments.with_file_name(NOTES);
        let notes = Notes::open(&*self.local, &path).map_err(io::Error::other)?;
        self.compare(&notes)?;
        Ok(self.notes.get_or_init(|| notes))
    }

    /// Tells what is noted and not there, or there otherwise, and counts what is only there.
    fn compare(&self, notes: &Notes) -> io::Result<()> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        let (mut missing, mut resized) = (0, 0);
        for (name, len) in notes.lengths().map_err(io::Error::other)? {
            match objects.get(&name) {
                None => missing += 1,
                Some(found) if *found != len => resized += 1,
                Some(_) => {}
            }
        }
        if missing + resized > 0 {
            tracing::error!(
                missing,
                resized,
                prefix = self.prefix,
                "objects that this node uploaded are gone from the bucket or have another length: their records come back from \
                 other nodes; where the bucket keeps versions, remove the delete markers and start the node again"
            );
        }
        let mut bytes = 0;
        for (name, len) in objects.iter() {
            if !self.local.exists(&self.segments.join(name))? {
                bytes += len;
            }
        }
        self.elsewhere_bytes.store(bytes, Ordering::Relaxed);
        metrics::objects(objects.len() as u64, objects.values().sum(), missing);
        Ok(())
    }

    /// Notes an object that was read back; durable when this returns. From then on it is part of the listing.
    pub fn keep(&self, name: &str, note: &Note) -> Result<(), Error> {
        let path = self.segments.with_file_name(NOTES);
        let notes = self.notes().map_err(Error::io("open", path))?;
        notes.put(name, note)?;
        self.objects.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), note.len);
        Ok(())
    }

    /// Removes the local file of a segment that is an object, and closes it where it is open to read.
    pub fn free(&self, name: &str) -> io::Result<()> {
        let Some(len) = self.object_len(name) else { return Err(ErrorKind::InvalidInput.into()) };
        let mut open = lock(&self.open);
        self.local.remove(&self.segments.join(name))?;
        for file in open.remove(name).unwrap_or_default() {
            if let Some(file) = file.upgrade() {
                file.let_go();
            }
        }
        drop(open);
        self.elsewhere_bytes.fetch_add(len, Ordering::Relaxed);
        self.local.sync_dir(&self.segments)
    }

    /// Sealed segments that have a local file, with its size, in the order of their names. Blocks on the disk.
    pub fn journal(&self) -> io::Result<Vec<(SegmentFile, u64)>> {
        let mut sealed = Vec::new();
        for path in self.local.list(&self.segments)? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(segment) = SegmentFile::parse(&self.segments, name) else { continue };
            if !self.local.exists(&segment.mark_path())? {
                let len = self.local.open_read(&path)?.size()?;
                sealed.push((segment, len));
            }
        }
        Ok(sealed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk for ObjectDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.refuse_object(path)?;
        self.0.local.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.0.local.open(path)
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let Some(name) = self.segment(path) else { return self.0.local.open_read(path) };
        // Held, so that the local file is not removed between its opening and its registration.
        let mut open = lock(&self.0.open);
        let local = match self.0.local.open_read(path) {
            Ok(local) => Some(local),
            Err(error) if error.kind() == ErrorKind::NotFound && self.0.object_len(&name).is_some() => None,
            Err(error) => return Err(error),
        };
        let is_local = local.is_some();
        let file = Arc::new(ReadFile::new(self.0.clone(), name.clone(), local));
        if is_local {
            let files = open.entry(name).or_default();
            files.retain(|file| file.strong_count() > 0);
            files.push(Arc::downgrade(&file));
        }
        Ok(file)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.local.sync_dir(path)
    }

    fn usage(&self, path: &Path) -> io::Result<DiskUsage> {
        self.0.local.usage(path)
    }

    fn elsewhere_bytes(&self) -> Option<u64> {
        Some(self.0.elsewhere_bytes.load(Ordering::Relaxed))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths: BTreeSet<PathBuf> = self.0.local.list(dir)?.into_iter().collect();
        if dir == self.0.segments {
            self.0.notes()?;
            let objects = self.0.objects.read().unwrap_or_else(PoisonError::into_inner);
            paths.extend(objects.keys().map(|name| dir.join(name)));
        }
        Ok(paths.into_iter().collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.0.local.exists(path)? || self.is_object(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.refuse_object(to)?;
        self.0.local.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.refuse_object(path)?;
        self.0.local.remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.local.create_dir(path)
    }

    fn protect(&self, path: &Path) -> io::Result<()> {
        self.0.local.protect(path)?;
        self.0.sealed.notify_one();
        Ok(())
    }

    fn database(&self, path: &Path, builder: &Builder) -> Result<Database, DatabaseError> {
        self.0.local.database(path, builder)
    }
}
