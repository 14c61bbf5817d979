//! The content of one simulated file, twice: as the process sees it and as it would be after a power loss.
//!
//! Pages are shared until they differ. A sector is dirty until it is synced; a sync that fails leaves it clean without having
//! stored it, as operating systems do, so that a second sync passes it over.

use std::{collections::BTreeMap, io, sync::Arc};

use crate::SimRandom;

const PAGE: usize = 4096;
/// What a disk writes as a whole.
const SECTOR: usize = 512;

type Page = Arc<[u8; PAGE]>;

#[derive(Default, Clone)]
struct Content {
    pages: Vec<Option<Page>>,
    len: u64,
}

impl Content {
    fn page(&self, index: usize) -> Option<&Page> {
        self.pages.get(index).and_then(Option::as_ref)
    }

    fn page_mut(&mut self, index: usize) -> &mut [u8; PAGE] {
        if self.pages.len() <= index {
            self.pages.resize(index + 1, None);
        }
        Arc::make_mut(self.pages[index].get_or_insert_with(|| Arc::new([0; PAGE])))
    }

    fn cut(&mut self, len: u64) {
        if len < self.len {
            let (pages, rest) = split(len);
            self.pages.truncate(pages + usize::from(rest > 0));
            if rest > 0 && self.page(pages).is_some() {
                self.page_mut(pages)[rest..].fill(0);
            }
        }
        self.len = len;
    }
}

fn split(at: u64) -> (usize, usize) {
    let at = usize::try_from(at).expect("a simulated file fits into memory");
    (at / PAGE, at % PAGE)
}

/// How a power loss treats what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// All of it is lost.
    Lost,
    /// All of it happened to be stored.
    Stored,
    /// Each sector is stored or not.
    Torn,
}

/// One file.
#[derive(Default)]
pub struct Pages {
    now: Content,
    durable: Content,
    /// By page: which sectors a sync must store.
    dirty: BTreeMap<usize, u8>,
    /// The shortest it was since the last sync.
    cut_to: Option<u64>,
}

impl Pages {
    /// Its length, as the process sees it.
    pub fn len(&self) -> u64 {
        self.now.len
    }

    /// Reads; an error past the end.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.now.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (mut page, mut within) = split(offset);
        let mut rest = buffer;
        while !rest.is_empty() {
            let n = rest.len().min(PAGE - within);
            let (piece, behind) = rest.split_at_mut(n);
            match self.now.page(page) {
                Some(bytes) => piece.copy_from_slice(&bytes[within..within + n]),
                None => piece.fill(0),
            }
            (rest, page, within) = (behind, page + 1, 0);
        }
        Ok(())
    }

    /// Writes, and makes the file longer where needed.
    pub fn write(&mut self, buffer: &[u8], offset: u64) {
        let (mut page, mut within) = split(offset);
        let mut rest = buffer;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rest.len().min(PAGE - within));
            self.now.page_mut(page)[within..within + piece.len()].copy_from_slice(piece);
            for sector in within / SECTOR..=(within + piece.len() - 1) / SECTOR {
                *self.dirty.entry(page).or_default() |= 1 << sector;
            }
            (rest, page, within) = (behind, page + 1, 0);
        }
        self.now.len = self.now.len.max(offset + buffer.len() as u64);
    }

    /// Sets the length.
    pub fn set_len(&mut self, len: u64) {
        self.now.cut(len);
        self.cut_to = Some(self.cut_to.map_or(len, |cut_to| cut_to.min(len)));
        self.dirty.retain(|page, _| (*page * PAGE) as u64 <= len);
    }

    /// Stores what is dirty.
    pub fn sync(&mut self) {
        if let Some(len) = self.cut_to.take().filter(|len| *len < self.durable.len) {
            self.durable.cut(len);
        }
        for (page, sectors) in std::mem::take(&mut self.dirty) {
            self.store(page, sectors);
        }
        self.durable.cut(self.now.len);
    }

    fn store(&mut self, page: usize, sectors: u8) {
        let Some(now) = self.now.page(page).cloned() else { return };
        if sectors == u8::MAX {
            self.durable.page_mut(page);
            self.durable.pages[page] = Some(now);
            return;
        }
        let durable = self.durable.page_mut(page);
        for sector in (0..PAGE / SECTOR).filter(|sector| sectors & (1 << sector) != 0) {
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            durable[range.clone()].copy_from_slice(&now[range]);
        }
    }

    /// A sync that failed: nothing is stored, and nothing is dirty any more.
    pub fn fail_sync(&mut self) {
        self.dirty.clear();
    }

    /// What a power loss leaves.
    pub fn lose_power(&mut self, unsynced: Unsynced, random: &SimRandom) {
        self.cut_to = None;
        let longer = self.now.len.max(self.durable.len);
        let mut len = self.durable.len;
        for (page, sectors) in std::mem::take(&mut self.dirty) {
            let kept = match unsynced {
                Unsynced::Lost => 0,
                Unsynced::Stored => sectors,
                Unsynced::Torn => sectors & u8::try_from(random.below(256)).expect("below 256"),
            };
            if kept != 0 {
                self.store(page, kept);
                let last = 8 - kept.leading_zeros() as usize;
                len = len.max(((page * PAGE + last * SECTOR) as u64).min(self.now.len));
            }
        }
        // The length is stored apart from the content: the file may have grown by zeros, or be cut.
        if unsynced != Unsynced::Lost && random.per_mille(500) {
            len = if self.now.len < self.durable.len { self.now.len } else { longer };
        }
        self.durable.cut(len);
        self.now = self.durable.clone();
    }

    /// Flips one bit, on the disk and in what the process sees.
    pub fn rot(&mut self, offset: u64, bit: u8) {
        let (page, within) = split(offset);
        for content in [&mut self.now, &mut self.durable] {
            if offset < content.len {
                content.page_mut(page)[within] ^= 1 << (bit % 8);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pages: &Pages) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(pages.len()).unwrap()];
        pages.read(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn a_power_loss_takes_what_was_not_synced() {
        let random = SimRandom::new(1, "test");
        let mut pages = Pages::default();
        pages.write(&[1; 5_000], 0);
        pages.sync();
        pages.write(&[2; 5_000], 2_500);
        assert_eq!(read(&pages)[2_500..], [2; 5_000]);
        pages.lose_power(Unsynced::Lost, &random);
        assert_eq!(read(&pages), [1; 5_000]);
    }

    #[test]
    fn after_a_failed_sync_the_next_one_stores_nothing_of_it() {
        let random = SimRandom::new(1, "test");
        let mut pages = Pages::default();
        pages.write(&[1; 100], 0);
        pages.fail_sync();
        pages.sync();
        pages.lose_power(Unsynced::Stored, &random);
        assert_eq!(read(&pages), [0; 100]);
    }

    #[test]
    fn a_torn_write_keeps_whole_sectors() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..40 {
            let mut pages = Pages::default();
            pages.write(&[1; 1_024], 0);
            pages.sync();
            pages.write(&[2; 1_024], 0);
            pages.lose_power(Unsynced::Torn, &SimRandom::new(seed, "test"));
            let bytes = read(&pages);
            assert!(bytes.chunks(SECTOR).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
            seen.insert((bytes[0], bytes[SECTOR]));
        }
        assert_eq!(seen.len(), 4);
    }

    #[test]
    fn a_cut_file_reads_zeros_where_it_grows_again() {
        let mut pages = Pages::default();
        pages.write(&[1; 5_000], 0);
        pages.set_len(100);
        pages.write(&[2], 200);
        assert_eq!(&read(&pages)[99..201], [[1].as_slice(), &[0; 100], &[2]].concat());
    }
}
