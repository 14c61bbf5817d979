//! Opens the segments a node finds at its start.
//!
//! A sealed segment is believed by its trailer. An open one is walked record by record and every byte is verified: a bad
//! record above the durable mark with nothing valid behind it is a torn tail, kept aside in `quarantine/` and cut off; every
//! other bad record is damage: reported, copied aside, skipped, and never cut off. A damaged segment is not written to again.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use holdfast_record::{
    Footer, FooterEntry, HEADER_PEEK_BYTES, RECORD_ALIGN, SUPERBLOCK_BYTES, Superblock, TRAILER_BYTES,
    Trailer, scan_len,
};

use super::{
    Location, MarkFile, SegmentFile, SegmentId,
    reader::{ReadProblem, is_damage, read_record},
    writer::{OpenSegment, is_full},
};
use crate::{
    Error,
    disk::{Disk, DiskFile},
};

/// Bytes looked through at a time for the next valid record.
const SEARCH_WINDOW: usize = 1 << 20;
/// What is passed over where the disk cannot be read.
const BLOCK: u64 = 4096;
/// No more than this of one damaged range is copied aside.
const ASIDE_BYTES_MAX: u64 = 64 << 20;
/// The first record stands here.
pub(super) const FIRST: u64 = SUPERBLOCK_BYTES as u64;

/// A range of a segment that cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DamagedRange {
    /// In which segment.
    pub segment: SegmentId,
    /// From where.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
}

/// A segment as it was found.
pub struct Opened {
    /// Its name.
    pub name: SegmentFile,
    /// Where its records end.
    pub end: u64,
    /// Sealed, or open with its entries.
    pub state: SegmentState,
    /// What of it is damaged.
    pub damaged: Vec<DamagedRange>,
    /// How many bytes of torn tail were cut off.
    pub torn_bytes: u64,
}

/// Whether appends may go on.
pub enum SegmentState {
    /// It has a footer: read it with [`read_footer`] if the index needs it.
    Sealed(Trailer),
    /// It takes appends.
    Open(Box<OpenSegment>),
    /// It takes none and has no usable footer: its entries.
    Walked(Vec<FooterEntry>),
}

/// What recovery needs.
pub struct Recovery<'a> {
    /// The disk.
    pub disk: &'a dyn Disk,
    /// Where damaged bytes are kept aside.
    pub quarantine: &'a Path,
}

/// The segments in a folder, and the marks whose segment is missing.
pub fn find_segments(disk: &dyn Disk, dir: &Path) -> Result<(Vec<SegmentFile>, Vec<PathBuf>), Error> {
    let (mut segments, mut marks) = (Vec::new(), Vec::new());
    for path in disk.list(dir).map_err(Error::io("list", dir))? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(segment) = SegmentFile::parse(dir, name) {
            segments.push(segment);
        } else if name.ends_with(".mark") {
            marks.push(path);
        }
    }
    marks.retain(|mark| !segments.iter().any(|segment| segment.mark_path() == *mark));
    segments.sort_by_key(SegmentFile::name);
    Ok((segments, marks))
}

/// Opens one segment. `None`: it was being created when the node stopped, held nothing, and was removed.
pub fn recover(context: &Recovery<'_>, name: SegmentFile) -> Result<Option<Opened>, Error> {
    let path = name.path();
    let has_mark = context.disk.exists(&name.mark_path()).map_err(Error::io("look for", name.mark_path()))?;
    let file = if has_mark { context.disk.open(&path) } else { context.disk.open_read(&path) };
    let file = file.map_err(Error::io("open", &path))?;
    let len = file.size().map_err(Error::io("measure", &path))?;
    let trailer = read_trailer(&*file, len).map_err(Error::io("read", &path))?;
    let trailer = match trailer {
        Some(trailer) if has_mark => finish_seal(context, &name, &*file, trailer)?.then_some(trailer),
        other => other,
    };
    if let Some(trailer) = trailer {
        let state = SegmentState::Sealed(trailer);
        return Ok(Some(Opened {
            name,
            end: trailer.footer_offset,
            state,
            damaged: Vec::new(),
            torn_bytes: 0,
        }));
    }
    if !has_mark {
        // It was sealed once: all of it was durable.
        let walk = walk(&*file, name.id, len, len)?;
        let state = SegmentState::Walked(walk.entries);
        context.keep_aside(&*file, &walk.damaged)?;
        return Ok(Some(Opened { name, end: len, state, damaged: walk.damaged, torn_bytes: 0 }));
    }
    let mark = MarkFile::open(context.disk, &name.mark_path(), name.id, FIRST)?;
    let has_superblock = superblock_is_good(&*file, name.id).map_err(Error::io("read", &path))?;
    if mark.durable() <= FIRST && !has_superblock {
        context.disk.remove(&path).map_err(Error::io("remove", &path))?;
        context.disk.remove(&name.mark_path()).map_err(Error::io("remove", name.mark_path()))?;
        return Ok(None);
    }
    recover_open(context, name, file, mark).map(Some)
}

/// A mark beside a trailer: the seal was interrupted, perhaps before its sync. Only when every record before the footer is
/// there is it completed; otherwise the segment is still open, and what looks like a footer is part of its torn tail.
fn finish_seal(
    context: &Recovery<'_>,
    name: &SegmentFile,
    file: &dyn DiskFile,
    trailer: Trailer,
) -> Result<bool, Error> {
    let path = name.path();
    let mark = MarkFile::open(context.disk, &name.mark_path(), name.id, FIRST)?;
    let walk = walk(file, name.id, trailer.footer_offset, mark.durable())?;
    let whole = walk.damaged.is_empty() && walk.end == trailer.footer_offset;
    if !whole || read_footer(context.disk, name, trailer).is_err() {
        return Ok(false);
    }
    let len = file.size().map_err(Error::io("measure", &path))?;
    write_again(file, mark.durable().max(FIRST)..len).map_err(Error::io("write", &path))?;
    file.sync().map_err(Error::io("sync", &path))?;
    context.disk.remove(&name.mark_path()).map_err(Error::io("remove", name.mark_path()))?;
    context.disk.sync_dir(name.dir()).map_err(Error::io("sync", name.dir()))?;
    Ok(true)
}

fn recover_open(
    context: &Recovery<'_>,
    name: SegmentFile,
    file: Arc<dyn DiskFile>,
    mark: MarkFile,
) -> Result<Opened, Error> {
    let path = name.path();
    let len = file.size().map_err(Error::io("measure", &path))?;
    let mut walk = walk(&*file, name.id, len, mark.durable())?;
    if !superblock_is_good(&*file, name.id).map_err(Error::io("read", &path))? {
        walk.damaged.push(DamagedRange { segment: name.id, offset: 0, len: FIRST });
    }
    if !walk.damaged.is_empty() {
        // Left as it is, for people and for repair: it takes no appends and is walked again at the next start.
        context.keep_aside(&*file, &walk.damaged)?;
        let unsynced = walk.entries.iter().map(|entry| entry.offset..entry.offset + u64::from(entry.len));
        for range in unsynced.filter(|range| range.end > mark.durable()) {
            write_again(&*file, range).map_err(Error::io("write", &path))?;
        }
        file.sync().map_err(Error::io("sync", &path))?;
        let state = SegmentState::Walked(walk.entries);
        return Ok(Opened { name, end: walk.end, state, damaged: walk.damaged, torn_bytes: 0 });
    }
    let torn_bytes = len.saturating_sub(walk.end);
    if torn_bytes > 0 {
        context
            .keep_aside(&*file, &[DamagedRange { segment: name.id, offset: walk.end, len: torn_bytes }])?;
        file.truncate(walk.end).map_err(Error::io("truncate", &path))?;
    }
    let hasher = hash(&*file, &walk.entries).map_err(Error::io("read", &path))?;
    let mut open = OpenSegment {
        file,
        mark,
        durable_entries: walk.entries.len(),
        entries: walk.entries,
        durable_hasher: hasher.clone(),
        hasher,
        end: walk.end,
        staged: Vec::new(),
        name: name.clone(),
    };
    // What stands above the mark was perhaps never synced, nor the superblock where nothing else was; from now on it is served.
    let synced = Some(open.mark.durable()).filter(|durable| *durable > FIRST).unwrap_or(0);
    let unsynced = synced..walk.end;
    write_again(&*open.file, unsynced).map_err(Error::io("write", &path))?;
    open.sync().map_err(Error::io("sync", &path))?;
    let state = SegmentState::Open(Box::new(open));
    Ok(Opened { name, end: walk.end, state, damaged: Vec::new(), torn_bytes })
}

impl Recovery<'_> {
    /// Copies damaged bytes to `quarantine/`, for people to look at.
    pub(super) fn keep_aside(&self, file: &dyn DiskFile, ranges: &[DamagedRange]) -> Result<(), Error> {
        for range in ranges {
            let path = self.quarantine.join(format!("{}-{}.bad", hex::encode(range.segment), range.offset));
            let len = file.size().map_err(Error::io("measure", &path))?;
            let wanted = range.len.min(ASIDE_BYTES_MAX).min(len.saturating_sub(range.offset));
            let mut bytes = vec![0; usize::try_from(wanted).unwrap_or(0)];
            if let Err(error) = file.read_exact_at(&mut bytes, range.offset) {
                tracing::warn!(path = %path.display(), %error, "damaged bytes cannot be read and are not kept aside");
                continue;
            }
            match self.disk.write(&path, &bytes) {
                // A full disk must not keep the node from serving what it has.
                Err(error) if is_full(&error) => {
                    tracing::warn!(path = %path.display(), %error, "damaged bytes are not kept aside: make room on the disk");
                    self.disk.remove(&path).map_err(Error::io("remove", &path))?;
                    continue;
                }
                written => written.map_err(Error::io("write", &path))?,
            }
            self.disk.sync_dir(self.quarantine).map_err(Error::io("sync", self.quarantine))?;
        }
        Ok(())
    }
}

/// Reads the footer of a sealed segment.
pub fn read_footer(disk: &dyn Disk, name: &SegmentFile, trailer: Trailer) -> Result<Footer, Error> {
    let path = name.path();
    let file = disk.open_read(&path).map_err(Error::io("open", &path))?;
    footer_of(&*file, trailer).map_err(|problem| match problem {
        ReadProblem::Io(source) => Error::Io { action: "read", path, source },
        ReadProblem::Bad(source) => Error::BadBytes { what: "footer", source },
    })
}

/// The same of a file that is open.
pub(super) fn footer_of(file: &dyn DiskFile, trailer: Trailer) -> Result<Footer, ReadProblem> {
    let mut bytes = vec![0; usize::try_from(trailer.footer_len).unwrap_or(0)];
    file.read_exact_at(&mut bytes, trailer.footer_offset).map_err(ReadProblem::Io)?;
    Footer::decode(&bytes).map_err(ReadProblem::Bad)
}

/// Walks a segment whose footer is damaged up to where the footer starts.
pub(crate) fn walk_sealed(
    context: &Recovery<'_>,
    name: &SegmentFile,
    end: u64,
) -> Result<(Vec<FooterEntry>, Vec<DamagedRange>), Error> {
    let path = name.path();
    let file = context.disk.open_read(&path).map_err(Error::io("open", &path))?;
    let walk = walk(&*file, name.id, end, end)?;
    context.keep_aside(&*file, &walk.damaged)?;
    Ok((walk.entries, walk.damaged))
}

/// What a segment holds, record by record.
pub(super) struct Walk {
    pub(super) entries: Vec<FooterEntry>,
    pub(super) damaged: Vec<DamagedRange>,
    /// Behind the last valid record, or the durable mark if that is higher.
    pub(super) end: u64,
}

pub(super) fn walk(file: &dyn DiskFile, segment: SegmentId, len: u64, durable: u64) -> Result<Walk, Error> {
    let mut walk = Walk { entries: Vec::new(), damaged: Vec::new(), end: FIRST };
    let read = |source| Error::Io { action: "read", path: PathBuf::from(hex::encode(segment)), source };
    let mut at = FIRST;
    while at < len {
        if let Some(entry) = valid_at(file, segment, at, len).map_err(read)? {
            at += u64::from(entry.len);
            walk.entries.push(entry);
            continue;
        }
        let next = next_valid(file, segment, at + RECORD_ALIGN as u64, len).map_err(read)?;
        let stop = match next {
            Some(next) => next,
            // Nothing valid behind: damage up to the mark, a torn tail above it.
            None if at < durable => durable.min(len),
            None => break,
        };
        walk.damaged.push(DamagedRange { segment, offset: at, len: stop - at });
        at = stop;
        if next.is_none() {
            break;
        }
    }
    if len < durable {
        // Acknowledged bytes are gone from the end of the file.
        let offset = len.max(FIRST);
        walk.damaged.push(DamagedRange { segment, offset, len: durable.saturating_sub(offset) });
    }
    walk.end = at.min(len.max(FIRST));
    Ok(walk)
}

fn valid_at(
    file: &dyn DiskFile,
    segment: SegmentId,
    offset: u64,
    len: u64,
) -> std::io::Result<Option<FooterEntry>> {
    let mut head = [0; HEADER_PEEK_BYTES];
    if !reads(file, &mut head, offset)? {
        return Ok(None);
    }
    let Ok(peek) = scan_len(&head) else { return Ok(None) };
    let Ok(record_len) = u32::try_from(peek.total_len) else { return Ok(None) };
    if offset + u64::from(record_len) > len {
        return Ok(None);
    }
    let location = Location { segment, offset, len: record_len };
    match read_record(file, location) {
        Ok(record) => Ok(Some(FooterEntry {
            key: record.key(),
            offset,
            len: location.len,
            kind: record.header.kind,
            ct: record.ct,
            write_epoch: record.placement.write_epoch,
            lock_floor_ms: record.placement.lock_floor_ms,
        })),
        Err(ReadProblem::Io(error)) if !is_damage(&error) => Err(error),
        Err(ReadProblem::Io(_) | ReadProblem::Bad(_)) => Ok(None),
    }
}

/// Fills a buffer. `false`: what is stored there cannot be read. Any other failure says nothing about it and is an error:
/// neither a network that is down nor a lack of memory may look like damage.
fn reads(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> std::io::Result<bool> {
    match file.read_exact_at(buffer, offset) {
        Ok(()) => Ok(true),
        Err(error) if is_damage(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn next_valid(
    file: &dyn DiskFile,
    segment: SegmentId,
    from: u64,
    len: u64,
) -> std::io::Result<Option<u64>> {
    let mut start = from;
    while start < len {
        let mut want = (SEARCH_WINDOW as u64).min(len - start);
        let mut window = vec![0; usize::try_from(want).expect("at most the window")];
        if !reads(file, &mut window, start)? {
            // A sector cannot be read: look block by block, and pass over the bad ones.
            want = BLOCK.min(want);
            window.truncate(usize::try_from(want).expect("at most a block"));
            if !reads(file, &mut window, start)? {
                window.clear();
            }
        }
        for at in (0..window.len()).step_by(RECORD_ALIGN) {
            // A cheap look at the magic; a header that crosses the window is looked at by its own read.
            if window[at..].starts_with(b"HFRECORD") {
                let offset = start + at as u64;
                if valid_at(file, segment, offset, len)?.is_some() {
                    return Ok(Some(offset));
                }
            }
        }
        start += want;
    }
    Ok(None)
}

/// After a failed sync the system may call pages clean that never reached the disk, and a later sync passes them over. Written
/// once more they are dirty again.
fn write_again(file: &dyn DiskFile, range: std::ops::Range<u64>) -> std::io::Result<()> {
    let mut buffer = vec![0; SEARCH_WINDOW];
    let mut at = range.start;
    while at < range.end {
        let want = usize::try_from((range.end - at).min(SEARCH_WINDOW as u64)).expect("at most the window");
        file.read_exact_at(&mut buffer[..want], at)?;
        file.write_all_at(&buffer[..want], at)?;
        at += want as u64;
    }
    Ok(())
}

/// Over the superblock and the header of every record, as the writer makes it.
pub(super) fn hash(file: &dyn DiskFile, entries: &[FooterEntry]) -> std::io::Result<blake3::Hasher> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; SUPERBLOCK_BYTES];
    file.read_exact_at(&mut buffer, 0)?;
    hasher.update(&buffer);
    for entry in entries {
        buffer.resize(HEADER_PEEK_BYTES, 0);
        file.read_exact_at(&mut buffer, entry.offset)?;
        let peek = scan_len(&buffer).map_err(std::io::Error::other)?;
        buffer.resize(peek.header_len, 0);
        file.read_exact_at(&mut buffer, entry.offset)?;
        hasher.update(&buffer);
    }
    Ok(hasher)
}

/// The trailer, if it is good.
pub(super) fn read_trailer(file: &dyn DiskFile, len: u64) -> std::io::Result<Option<Trailer>> {
    let Some(at) = len.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
    let mut bytes = [0; TRAILER_BYTES];
    if !reads(file, &mut bytes, at)? {
        return Ok(None);
    }
    let Ok(trailer) = Trailer::decode(&bytes) else { return Ok(None) };
    let fits =
        trailer.footer_offset >= FIRST && trailer.footer_offset.checked_add(trailer.footer_len) == Some(at);
    Ok(fits.then_some(trailer))
}

pub(super) fn superblock_is_good(file: &dyn DiskFile, segment: SegmentId) -> std::io::Result<bool> {
    let mut bytes = [0; SUPERBLOCK_BYTES];
    Ok(reads(file, &mut bytes, 0)?
        && Superblock::decode(&bytes).is_ok_and(|superblock| superblock.segment == segment))
}

/// Whether a sealed segment is good from its first byte to its last.
pub(crate) fn is_whole(file: &dyn DiskFile, name: &SegmentFile) -> std::io::Result<bool> {
    let Some(trailer) = read_trailer(file, file.size()?)? else { return Ok(false) };
    let footer = match footer_of(file, trailer) {
        Ok(footer) => footer,
        Err(ReadProblem::Io(error)) if !is_damage(&error) => return Err(error),
        Err(ReadProblem::Io(_) | ReadProblem::Bad(_)) => return Ok(false),
    };
    let end = trailer.footer_offset;
    let walk = walk(file, name.id, end, end).map_err(std::io::Error::other)?;
    Ok(walk.damaged.is_empty()
        && walk.end == end
        && walk.entries.len() == footer.entries.len()
        && superblock_is_good(file, name.id)?)
}
