//! The way back of what a mailbox does by itself: search folders, categories, rules, settings.
//!
//! It comes after the folders and messages, because search folders and rules name folders. The one invariant to know: nothing
//! that is written here sends mail. A rule that would is restored switched off, and so are automatic replies.

mod categories;
mod mailbox;
mod rule_body;
mod rules;
mod search_folders;

use holdfast_model::Account;
use serde_json::{Map, Value};

use super::{
    settings::is_refusal,
    target_folders::{self, Folders},
};
use crate::{
    JobError,
    backup::key,
    restore::{RestoreContext, Restored},
    workload::{
        collect::ItemFailure,
        snapshot_folders::{SnapshotFolder, SnapshotFolders},
        stored::{Setting, broken},
        write_back::{Written, count},
    },
};

/// What became of one of them.
enum Outcome {
    /// It is as it should be, but for these losses.
    Done(Written, Vec<String>),
    /// It cannot be brought back, for this reason of our own.
    Refused(&'static str),
}

impl Outcome {
    /// Nothing is lost.
    fn whole(written: Written) -> Self {
        Self::Done(written, Vec::new())
    }
}

/// One of them, as it is stored.
struct Stored<'a> {
    folder: &'a SnapshotFolder,
    fields: Map<String, Value>,
}

impl Stored<'_> {
    fn text(&self, name: &str) -> &str {
        self.fields.get(name).and_then(Value::as_str).unwrap_or_default()
    }
}

/// Restores those that are selected, and adds them to what was restored.
pub(super) async fn run(context: &RestoreContext, restored: Restored) -> Result<Restored, JobError> {
    let snapshot = SnapshotFolders::read(&context.reader).await?;
    let selected = snapshot.select(&context.reader, &context.paths).await?.folders;
    let selected: Vec<usize> =
        selected.into_iter().filter(|index| snapshot.all()[*index].is_definition()).collect();
    if selected.is_empty() {
        return Ok(restored);
    }
    let folders = target_folders::open(context).await?;
    let mut run = Run { context, snapshot: &snapshot, folders, restored };
    let stored = run.read(&selected).await?;
    let of = |setting: Option<Setting>| stored.iter().filter(move |one| one.folder.setting == setting);
    search_folders::restore(&mut run, of(None)).await?;
    categories::restore(&mut run, of(Some(Setting::Category))).await?;
    rules::restore(&mut run, of(Some(Setting::Rule))).await?;
    mailbox::restore(&mut run, of(Some(Setting::Mailbox))).await?;
    run.finish()
}

/// A restore of settings in progress.
struct Run<'a> {
    context: &'a RestoreContext,
    snapshot: &'a SnapshotFolders,
    folders: Folders<'a>,
    restored: Restored,
}

impl<'a> Run<'a> {
    async fn read(&self, selected: &[usize]) -> Result<Vec<Stored<'a>>, JobError> {
        let mut all = Vec::with_capacity(selected.len());
        for index in selected {
            let folder = &self.snapshot.all()[*index];
            let Some(entry) = self.context.reader.item(&key(&folder.id)).await? else { continue };
            let meta = self.context.reader.meta(&entry).await?;
            all.push(Stored { folder, fields: serde_json::from_slice(&meta).map_err(broken("setting"))? });
        }
        Ok(all)
    }

    /// Whether a path names them, and not only everything.
    fn is_asked_for(&self) -> bool {
        self.context.paths.iter().any(|path| !path.trim_matches('/').is_empty())
    }

    /// What only makes sense in place is left out where everything goes below a folder. Said only to who asks for it.
    fn is_in_place(&mut self, one: &Stored<'_>) -> Result<bool, JobError> {
        if self.context.into.is_empty() {
            return Ok(true);
        }
        if self.is_asked_for() {
            self.note(one, Ok(Outcome::Refused("OnlyInPlace")))?;
        }
        Ok(false)
    }

    /// The target's folder for one of the snapshot, made where it is missing; none where the snapshot has no such folder.
    async fn folder(&mut self, id: &str) -> Result<Option<String>, JobError> {
        let index = self.snapshot.by_key(crate::workload::container_key(id));
        match index.filter(|index| !self.snapshot.all()[*index].is_definition()) {
            Some(index) => Ok(Some(self.folders.resolve(self.snapshot, index).await?)),
            None => Ok(None),
        }
    }

    /// Adds one to the account. What Microsoft refuses is told and keeps no other from coming back.
    fn note(&mut self, one: &Stored<'_>, outcome: Result<Outcome, JobError>) -> Result<(), JobError> {
        let (id, path) = (one.folder.id.as_str(), one.folder.path.as_str());
        let failed = match outcome {
            Ok(Outcome::Done(written, losses)) => {
                return count(&mut self.restored, (id, path, 0), Ok((written, losses)));
            }
            Ok(Outcome::Refused(code)) => ItemFailure::ours(id, path, code, false),
            Err(JobError::Graph(error)) if is_refusal(&error) => ItemFailure::of(id, path, &error, 1),
            Err(error) => return count(&mut self.restored, (id, path, 0), Err(error)),
        };
        self.restored.account.listed += 1;
        self.restored.account.failed_permanent += 1;
        self.restored.failed.push(failed);
        Ok(())
    }

    fn finish(mut self) -> Result<Restored, JobError> {
        let account = &mut self.restored.account;
        account.requests = self.context.graph.requests();
        if !account.adds_up() {
            let Account { listed, .. } = *account;
            return Err(JobError::DoesNotAddUp { listed, accounted: account.accounted() });
        }
        self.context.progress.set(*account);
        Ok(self.restored)
    }
}
