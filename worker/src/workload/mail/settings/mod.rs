//! What a mailbox does by itself: rules, categories, settings. Read whole, put into the manifest where it changed.
//!
//! Each is an entry without content below a made folder, `/Settings`, so that it can be browsed, compared and selected like a
//! folder. The one thing to know: what Microsoft refuses to show is no failure of the run. It is said once, and what is stored
//! of it stays.

mod put;
mod steady;

use std::collections::BTreeMap;

use holdfast_graph_client::{ErrorClass, GraphError};
use serde_json::{Value, json};

use self::put::SettingToPut;
use crate::{
    JobError,
    backup::BackupContext,
    workload::{
        collect::{Container, State},
        stored::{FolderToPut, Setting},
    },
};

/// What the ids of entries begin with that are not Microsoft's.
const MADE: &str = "holdfast:";
/// The folder that the others are in.
const SETTINGS_ID: &str = "holdfast:settings";
/// The folder of rules.
const RULES_ID: &str = "holdfast:settings/rules";
/// The folder of categories.
const CATEGORIES_ID: &str = "holdfast:settings/categories";
/// The settings.
const MAILBOX_ID: &str = "holdfast:settings/mailbox";
/// Its name, where no folder of the person's own has it …
const NAME: &str = "Settings";
/// … and where one has.
const OTHER_NAME: &str = "Settings (Holdfast)";

/// Whether an entry is a folder that Holdfast made for others to be in.
pub(super) fn is_made(id: &str) -> bool {
    id.starts_with(MADE)
}

/// Something that cannot be read, and that no run fails for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreadable {
    /// The id of the entry, or of the folder that the entries are in.
    pub(super) id: String,
    /// For people.
    pub(super) path: String,
    /// Microsoft's code.
    pub(super) code: String,
}

impl Unreadable {
    /// Where an error says that this cannot be had; other errors are of the whole job.
    pub(super) fn of(id: &str, path: &str, error: GraphError) -> Result<Self, JobError> {
        if !is_refusal(&error) {
            return Err(error.into());
        }
        tracing::info!(code = error.code(), id, "a part of the mailbox is not shown to this app");
        Ok(Self { id: id.to_owned(), path: path.to_owned(), code: error.code().to_owned() })
    }
}

/// Whether Microsoft will not do this one thing, now or later.
pub(super) fn is_refusal(error: &GraphError) -> bool {
    matches!(
        error.class(),
        ErrorClass::FailResource | ErrorClass::SkipItem | ErrorClass::Gone | ErrorClass::Programming
    )
}

/// What of a mailbox is read beside folders and messages.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// Entries, for the engine to know which are gone.
    pub(super) containers: Vec<Container>,
    /// What cannot be read.
    pub(super) unreadable: Vec<Unreadable>,
}

impl Read {
    pub(super) fn add(&mut self, id: &str, path: String) {
        self.containers.push(Container { is_listable: false, ..Container::new(id, path) });
    }

    /// Those of the base stay that are not shown now.
    pub(super) fn keep(&mut self, known: &BTreeMap<String, impl Sized>, prefix: &str, path: &str) {
        for id in known.keys().filter(|id| id.starts_with(prefix)) {
            self.add(id, path.to_owned());
        }
    }
}

/// Reads them and puts what changed into the manifest. `names_at_top` are the folders in the root.
pub(super) async fn sync(
    context: &BackupContext,
    (root, names_at_top): (&str, &[&str]),
    state: &State,
) -> Result<Read, JobError> {
    let name = name(names_at_top);
    let path = format!("/{name}");
    let mut sync = Sync { context, state, path, read: Read::default() };
    sync.folder(SETTINGS_ID, root, name).await?;
    sync.rules().await?;
    sync.categories().await?;
    sync.mailbox().await?;
    Ok(sync.read)
}

/// The ids that [`Unreadable`] may name.
pub(super) const READ_AT_ONCE: [&str; 3] = [RULES_ID, CATEGORIES_ID, MAILBOX_ID];

fn name(names_at_top: &[&str]) -> &'static str {
    match names_at_top.iter().any(|taken| taken.eq_ignore_ascii_case(NAME)) {
        true => OTHER_NAME,
        false => NAME,
    }
}

struct Sync<'a> {
    context: &'a BackupContext,
    state: &'a State,
    path: String,
    read: Read,
}

impl Sync<'_> {
    async fn rules(&mut self) -> Result<(), JobError> {
        let path = format!("{}/Rules", self.path);
        self.folder(RULES_ID, SETTINGS_ID, "Rules").await?;
        let rules = match self.context.graph.inbox_rules(&self.context.user).await {
            Ok(rules) => rules,
            Err(error) => return self.cannot_read((RULES_ID, "rule/"), &path, error),
        };
        for rule in rules {
            let id = format!("{SETTINGS_ID}/rule/{}", rule.id);
            self.put((&id, RULES_ID), &rule.raw, Setting::Rule).await?;
            self.read.add(&id, format!("{path}/{}", rule.display_name));
        }
        Ok(())
    }

    async fn categories(&mut self) -> Result<(), JobError> {
        let path = format!("{}/Categories", self.path);
        self.folder(CATEGORIES_ID, SETTINGS_ID, "Categories").await?;
        let categories = match self.context.graph.mail_categories(&self.context.user).await {
            Ok(categories) => categories,
            Err(error) => return self.cannot_read((CATEGORIES_ID, "category/"), &path, error),
        };
        for category in categories {
            let id = format!("{SETTINGS_ID}/category/{}", category.id);
            self.put((&id, CATEGORIES_ID), &category.raw, Setting::Category).await?;
            self.read.add(&id, format!("{path}/{}", category.display_name));
        }
        Ok(())
    }

    async fn mailbox(&mut self) -> Result<(), JobError> {
        let path = format!("{}/Mailbox", self.path);
        match self.context.graph.mailbox_settings(&self.context.user).await {
            Ok(settings) => {
                let raw = json!({ "displayName": "Mailbox", "mailboxSettings": settings });
                self.put((MAILBOX_ID, SETTINGS_ID), &raw, Setting::Mailbox).await?;
                self.read.add(MAILBOX_ID, path);
                Ok(())
            }
            Err(error) => self.cannot_read((MAILBOX_ID, "mailbox"), &path, error),
        }
    }

    fn cannot_read(
        &mut self,
        (id, kept): (&str, &str),
        path: &str,
        error: GraphError,
    ) -> Result<(), JobError> {
        self.read.unreadable.push(Unreadable::of(id, path, error)?);
        self.read.keep(&self.state.containers, &format!("{SETTINGS_ID}/{kept}"), path);
        Ok(())
    }

    async fn folder(&mut self, id: &str, parent: &str, name: &str) -> Result<(), JobError> {
        put_made(self.context, (id, parent), name).await?;
        self.read.add(id, String::new());
        Ok(())
    }

    async fn put(&self, (id, parent): (&str, &str), raw: &Value, setting: Setting) -> Result<(), JobError> {
        SettingToPut { id, parent_id: parent, raw, setting }.put(&self.context.manifest).await
    }
}

/// Puts a folder that Holdfast makes.
pub(super) async fn put_made(
    context: &BackupContext,
    (id, parent): (&str, &str),
    name: &str,
) -> Result<(), JobError> {
    let raw = json!({ "displayName": name }).to_string();
    FolderToPut { id, parent_id: Some(parent), raw: &raw, well_known: None }.put(&context.manifest).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_the_persons_own_keeps_its_name() {
        assert_eq!(name(&["Inbox"]), "Settings");
        assert_eq!(name(&["Inbox", "settings"]), "Settings (Holdfast)");
    }

    #[test]
    fn what_is_not_shown_now_stays() {
        let mut read = Read::default();
        let known = BTreeMap::from([
            ("holdfast:settings/rule/a".to_owned(), ()),
            ("holdfast:settings/rules".to_owned(), ()),
            ("AAA".to_owned(), ()),
        ]);
        read.keep(&known, "holdfast:settings/rule/", "/Settings/Rules");
        let ids: Vec<&str> = read.containers.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(ids, ["holdfast:settings/rule/a"]);
        assert!(!read.containers[0].is_listable);
    }
}
