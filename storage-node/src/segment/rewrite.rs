//! Makes the frame of a sealed segment anew: superblock, footer and trailer around records that are all good.
//!
//! Order: the damaged bytes go to `quarantine/` → the whole segment is written as `<name>.new` and synced → it is read back
//! and every record verified → it takes the old one's name → the folder is synced. Invariant: under the segment's name stands
//! at any moment one file with all of its records, at the places where the index has them, and none that needs less to be known
//! about it than before: where the superblock cannot be read, the new one says all that any segment of the folder may need.

use std::{io, path::Path};

use holdfast_record::{Features, Footer, FooterEntry, SUPERBLOCK_BYTES, Superblock, Trailer};

use super::{
    DamagedRange, Recovery, SegmentFile, SegmentIdentity,
    recovery::{FIRST, footer_of, hash, next_valid, read_trailer, superblock_is_good, walk},
};
use crate::{
    Error,
    disk::{Disk, DiskFile},
};

/// Bytes copied at a time.
const COPY_BYTES: u64 = 1 << 20;
/// A segment that is being written, until it has its name.
const NEW: &str = "seg.new";
/// What a footer begins with.
const FOOTER_MAGIC: &[u8] = b"HFFOOTER";

/// Removes what an interrupted rewrite left: the old file still has its name.
pub(crate) fn remove_leftovers(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    for path in disk.list(dir).map_err(Error::io("list", dir))? {
        if path.to_str().is_some_and(|path| path.ends_with(&format!(".{NEW}"))) {
            disk.remove(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

/// Rewrites a sealed segment whose records end at `end` as far as the index knows. `false`: not every record is good, or it
/// cannot be told where they end or what must be known to write to the segment, and nothing was changed.
pub(crate) fn rewrite_frame(
    context: &Recovery<'_>,
    name: &SegmentFile,
    (identity, of_unreadable): (SegmentIdentity, Features),
    end: u64,
    damaged: &[DamagedRange],
) -> Result<bool, Error> {
    let (disk, path) = (context.disk, name.path());
    let old = disk.open_read(&path).map_err(Error::io("open", &path))?;
    let superblock = superblock(&*old, name, identity, of_unreadable);
    let Some(superblock) = superblock.map_err(Error::io("read", &path))? else { return Ok(false) };
    let Some((entries, end)) = records(&*old, name, end)? else { return Ok(false) };
    let damaged: Vec<_> = damaged.iter().filter(|range| range.len > 0).copied().collect();
    context.keep_aside(&*old, &damaged)?;
    let new_path = path.with_extension(NEW);
    let written = write(disk, (&*old, &new_path), (name, &superblock), &entries, end)
        .and_then(|()| verify(disk, &new_path, name, &entries, end));
    if let Err(error) = written {
        // It has no name that counts; what cannot be removed now is removed at the next start.
        let _ = disk.remove(&new_path);
        return Err(Error::Io { action: "rewrite", path, source: error });
    }
    disk.rename(&new_path, &path).map_err(Error::io("rename", &new_path))?;
    disk.sync_dir(name.dir()).map_err(Error::io("sync", name.dir()))?;
    Ok(true)
}

/// The records, if all are good, and where they end.
fn records(
    file: &dyn DiskFile,
    name: &SegmentFile,
    end: u64,
) -> Result<Option<(Vec<FooterEntry>, u64)>, Error> {
    let len = file.size().map_err(Error::io("measure", name.path()))?;
    // It says so better than the index, which may know an earlier end of a segment that was sealed just now.
    let trailer = read_trailer(file, len).map_err(Error::io("read", name.path()))?;
    let end = trailer.map_or(end, |trailer| trailer.footer_offset);
    if next_valid(file, name.id, end, len).map_err(Error::io("read", name.path()))?.is_some() {
        return Ok(None);
    }
    let walk = walk(file, name.id, end, end)?;
    match walk.damaged[..] {
        [] => Ok((walk.end == end).then_some((walk.entries, end))),
        // A start that found the footer damaged took it for records: where one begins right behind the last record, none is
        // missing.
        [range] if range.offset + range.len == end => {
            let mut magic = [0; FOOTER_MAGIC.len()];
            let is_footer = file.read_exact_at(&mut magic, range.offset).is_ok() && magic == FOOTER_MAGIC;
            Ok(is_footer.then_some((walk.entries, range.offset)))
        }
        _ => Ok(None),
    }
}

/// The superblock that the segment is to have; none where only another build could make it.
fn superblock(
    old: &dyn DiskFile,
    name: &SegmentFile,
    identity: SegmentIdentity,
    of_unreadable: Features,
) -> io::Result<Option<Vec<u8>>> {
    if superblock_is_good(old, name.id)? {
        // It says more than this start knows.
        let mut block = vec![0; SUPERBLOCK_BYTES];
        old.read_exact_at(&mut block, 0)?;
        return Ok(Some(block));
    }
    let features = of_unreadable;
    if features.check_read("segment").and_then(|()| features.check_write("segment")).is_err() {
        return Ok(None);
    }
    let SegmentIdentity { cluster, node, disk, generation } = identity;
    let (segment, class) = (name.id, name.class);
    let block = Superblock { cluster, node, disk, segment, generation, class, features };
    Ok(Some(block.encode()))
}

fn write(
    disk: &dyn Disk,
    (old, new_path): (&dyn DiskFile, &Path),
    (name, superblock): (&SegmentFile, &[u8]),
    entries: &[FooterEntry],
    end: u64,
) -> io::Result<()> {
    if disk.exists(new_path)? {
        disk.remove(new_path)?;
    }
    let new = disk.create(new_path)?;
    new.write_all_at(superblock, 0)?;
    let mut at = FIRST;
    while at < end {
        let mut piece = vec![0; usize::try_from((end - at).min(COPY_BYTES)).map_err(io::Error::other)?];
        old.read_exact_at(&mut piece, at)?;
        new.write_all_at(&piece, at)?;
        at += piece.len() as u64;
    }
    let hasher = hash(&*new, entries)?;
    let footer = Footer::new(name.id, *hasher.finalize().as_bytes(), entries.to_vec()).encode();
    let trailer = Trailer { footer_offset: end, footer_len: footer.len() as u64 }.encode();
    new.write_all_at(&footer, end)?;
    new.write_all_at(&trailer, end + footer.len() as u64)?;
    new.sync()?;
    disk.protect(new_path)
}

/// Reads the new file as a start and the scrub would.
fn verify(
    disk: &dyn Disk,
    path: &Path,
    name: &SegmentFile,
    entries: &[FooterEntry],
    end: u64,
) -> io::Result<()> {
    let file = disk.open_read(path)?;
    let trailer = read_trailer(&*file, file.size()?)?.filter(|trailer| trailer.footer_offset == end);
    let footer = trailer.and_then(|trailer| footer_of(&*file, trailer).ok());
    let walk = walk(&*file, name.id, end, end).map_err(io::Error::other)?;
    let is_whole = superblock_is_good(&*file, name.id)?
        && walk.damaged.is_empty()
        && walk.entries == entries
        && footer.is_some_and(|footer| footer.entries.len() == entries.len());
    if is_whole { Ok(()) } else { Err(io::Error::other("what was written does not verify")) }
}
