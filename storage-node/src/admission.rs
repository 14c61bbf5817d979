//! Which layout writers may work by, and which is still in use by writes that run.
//!
//! Invariant: a write is counted before its layout is looked at, so that whoever is told that a version is in use no more can
//! rely on it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use holdfast_model::LayoutVersion;

use crate::{Error, Node};

/// How many writes run, by the layout that was installed when they came.
#[derive(Debug, Default)]
pub(crate) struct Admissions(Mutex<BTreeMap<LayoutVersion, usize>>);

/// A write that runs; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    all: Arc<Admissions>,
    version: LayoutVersion,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut running = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = running.get_mut(&self.version) {
            *n -= 1;
            if *n == 0 {
                running.remove(&self.version);
            }
        }
    }
}

impl Node {
    /// Lets a caller write that works by a layout of this version, 0 when it does not say; refuses one from before the last move.
    pub(crate) fn admit(&self, offered: LayoutVersion) -> Result<Admitted, Error> {
        let mut running = self.admissions.0.lock().unwrap_or_else(PoisonError::into_inner);
        let layout = self.layout().ok_or(Error::NoLayout)?;
        if offered < layout.moved_in {
            return Err(Error::StaleLayout { offered, moved_in: layout.moved_in });
        }
        *running.entry(layout.version).or_default() += 1;
        Ok(Admitted { all: self.admissions.clone(), version: layout.version })
    }

    /// The oldest layout version that a running write was admitted by, or the installed one.
    pub(crate) fn layout_in_use(&self) -> LayoutVersion {
        let running = self.admissions.0.lock().unwrap_or_else(PoisonError::into_inner);
        let installed = self.layout().map_or(LayoutVersion(0), |layout| layout.version);
        running.keys().next().map_or(installed, |oldest| installed.min(*oldest))
    }
}
