//! Mail folders.
//!
//! The one invariant to know: the tree is whole. What the cheap listing leaves out (hidden folders) is found by comparing the
//! number of children each folder says it has with those that were seen, and listing where they differ.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use futures::future::try_join_all;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    ErrorClass, GraphClient, GraphError, Page,
    error::Operation,
    json::{FromObject, read_object},
    request::{Call, MAX_PAGES, Repeat},
};

use super::outlook::{Change, Created, mailbox};

/// A mailbox has no more folders.
const MAX_FOLDERS: usize = 100_000;

/// Folders per page.
const PAGE_SIZE: &str = "250";
const DELTA_PAGE_SIZE: u32 = 250;

/// The names that a restore maps to the target's own folders, whatever their language.
const WELL_KNOWN: &[&str] = &[
    "inbox",
    "drafts",
    "sentitems",
    "deleteditems",
    "archive",
    "junkemail",
    "outbox",
    "conversationhistory",
];

/// As many as Outlook allows in flight.
const WELL_KNOWN_AT_ONCE: usize = 4;

const ROOT: &str = "msgfolderroot";

/// A mail folder.
#[derive(Debug, Clone, PartialEq)]
pub struct MailFolder {
    /// Its id. Folders have no immutable form.
    pub id: String,
    /// Its name, in the mailbox's language.
    pub display_name: String,
    /// The folder it is in; none for the root.
    pub parent_id: Option<String>,
    /// Whether Outlook hides it.
    pub is_hidden: bool,
    /// A view of other folders: its definition is worth keeping, its content is elsewhere.
    pub is_search_folder: bool,
    /// How many folders are in it.
    pub child_count: u64,
    /// How many messages are in it.
    pub total_items: u64,
    /// Its well-known name, such as `inbox`.
    pub well_known: Option<String>,
    /// Everything Microsoft said.
    pub raw: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FolderFields {
    id: String,
    #[serde(default)]
    display_name: Option<String>,
    #[serde(default)]
    parent_folder_id: Option<String>,
    #[serde(default)]
    is_hidden: Option<bool>,
    #[serde(rename = "@odata.type", default)]
    kind: Option<String>,
    #[serde(default)]
    child_folder_count: Option<u64>,
    #[serde(default)]
    total_item_count: Option<u64>,
    #[serde(default)]
    well_known_name: Option<String>,
}

impl FromObject for MailFolder {
    fn from_object(raw: &[u8]) -> Result<Self, serde_json::Error> {
        let raw: Value = serde_json::from_slice(raw)?;
        let fields = FolderFields::deserialize(&raw)?;
        Ok(Self {
            id: fields.id,
            display_name: fields.display_name.unwrap_or_default(),
            parent_id: fields.parent_folder_id,
            is_hidden: fields.is_hidden.unwrap_or_default(),
            is_search_folder: fields.kind.is_some_and(|kind| kind.ends_with("mailSearchFolder")),
            child_count: fields.child_folder_count.unwrap_or_default(),
            total_items: fields.total_item_count.unwrap_or_default(),
            well_known: fields.well_known_name.filter(|name| !name.is_empty()),
            raw,
        })
    }
}

impl MailFolder {
    /// The root as it is known from an earlier call.
    fn known_root(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            display_name: String::new(),
            parent_id: None,
            is_hidden: false,
            is_search_folder: false,
            child_count: 0,
            total_items: 0,
            well_known: Some(ROOT.to_owned()),
            raw: Value::Null,
        }
    }
}

/// What a delta says about a folder.
pub type FolderChange = Change<MailFolder>;

impl GraphClient {
    /// The whole tree of a mailbox, hidden folders included, parents before their children, `msgfolderroot` first.
    ///
    /// `names` is what an earlier call found: folder id by well-known name. Microsoft is not asked again for the names of
    /// folders that are still there; they keep them for life. A root that is known so has no properties.
    pub async fn mail_folders(
        &self,
        user: &str,
        names: &BTreeMap<String, String>,
    ) -> Result<Vec<MailFolder>, GraphError> {
        let (root, at_top) = self.root_and_children(user, names.get(ROOT)).await?;
        let root_id = root.id.clone();
        let mut known = self.folders_by_delta(user).await?;
        known.insert(root_id.clone(), root);
        let mut listed = HashSet::new();
        let mut next = VecDeque::from([(root_id.clone(), Some(at_top))]);
        while let Some((id, children)) = next.pop_front() {
            listed.insert(id.clone());
            let children = match children {
                Some(children) => children,
                None => self.child_folders(user, &id).await?,
            };
            for folder in children {
                let folder = MailFolder { parent_id: Some(id.clone()), ..folder };
                known.insert(folder.id.clone(), folder);
            }
            if known.len() > MAX_FOLDERS {
                return Err(GraphError::TooMany { what: "the list of mail folders", limit: MAX_FOLDERS });
            }
            if next.is_empty() {
                next.extend(incomplete(&known, &listed).into_iter().map(|id| (id, None)));
            }
        }
        self.name_well_known(user, &mut known, names).await?;
        Ok(in_order(known, &root_id))
    }

    /// The root and what is directly in it. One that was found before is not asked for, unless it is gone.
    async fn root_and_children(
        &self,
        user: &str,
        before: Option<&String>,
    ) -> Result<(MailFolder, Vec<MailFolder>), GraphError> {
        if let Some(id) = before {
            match self.child_folders(user, id).await {
                Ok(children) => return Ok((MailFolder::known_root(id), children)),
                Err(error) if matches!(error.class(), ErrorClass::Gone | ErrorClass::Programming) => {
                    tracing::debug!(code = error.code(), "the mailbox has another root than before");
                }
                Err(error) => return Err(error),
            }
        }
        let root = self.mail_folder(user, ROOT).await?;
        let root = MailFolder { well_known: Some(ROOT.to_owned()), parent_id: None, ..root };
        let children = self.child_folders(user, &root.id).await?;
        Ok((root, children))
    }

    /// One page of the changes of a mailbox's folders; `link` is the last page's, or none for the initial round.
    pub async fn mail_folders_delta(
        &self,
        user: &str,
        link: Option<&str>,
    ) -> Result<Page<FolderChange>, GraphError> {
        let first = || self.url(&["users", user, "mailFolders", "delta"], &[]);
        let url = link.map_or_else(first, str::to_owned);
        let call = Call::get(url, Operation::List, mailbox(user)).page_size(DELTA_PAGE_SIZE);
        self.page(call, "a page of mail folders").await
    }

    /// One folder, by id or by well-known name.
    pub async fn mail_folder(&self, user: &str, id: &str) -> Result<MailFolder, GraphError> {
        let call =
            Call::get(self.url(&["users", user, "mailFolders", id], &[]), Operation::List, mailbox(user));
        self.object(call, "a mail folder").await
    }

    /// Creates a folder. One of the same name that is there already is returned instead.
    pub async fn create_folder(
        &self,
        user: &str,
        parent_id: &str,
        name: &str,
        is_hidden: bool,
    ) -> Result<MailFolder, GraphError> {
        let url = self.url(&["users", user, "mailFolders", parent_id, "childFolders"], &[]);
        let body = json!({ "displayName": name, "isHidden": is_hidden });
        match self.send(Call::post(url, &body, Repeat::Safe, mailbox(user))).await {
            Ok(reply) => read_object(&reply.body, "a created folder"),
            Err(error) if error.status() == Some(409) => {
                let siblings = self.child_folders(user, parent_id).await?;
                let exact = siblings.iter().position(|folder| folder.display_name == name);
                let similar =
                    || siblings.iter().position(|f| f.display_name.to_lowercase() == name.to_lowercase());
                exact.or_else(similar).and_then(|index| siblings.into_iter().nth(index)).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes a folder with what is in it. One that is gone already is deleted.
    pub async fn delete_folder(&self, user: &str, id: &str) -> Result<(), GraphError> {
        let url = self.url(&["users", user, "mailFolders", id], &[]);
        self.delete_gone(Call::delete(url, mailbox(user))).await
    }

    /// The folders directly in one, hidden ones included.
    pub async fn child_folders(&self, user: &str, parent_id: &str) -> Result<Vec<MailFolder>, GraphError> {
        let query = [("includeHiddenFolders", "true"), ("$top", PAGE_SIZE)];
        let first = self.url(&["users", user, "mailFolders", parent_id, "childFolders"], &query);
        let call = |url| Call::get(url, Operation::List, mailbox(user));
        self.whole(first, call, "the list of mail folders").await
    }

    /// All folders that the delta lists, in few calls; none where it does not work for this mailbox.
    async fn folders_by_delta(&self, user: &str) -> Result<HashMap<String, MailFolder>, GraphError> {
        let mut known = HashMap::new();
        let mut link = None;
        for _ in 0..MAX_PAGES {
            let page = match self.mail_folders_delta(user, link.as_deref()).await {
                Ok(page) => page,
                Err(error) if is_delta_unusable(&error) => {
                    tracing::debug!(
                        code = error.code(),
                        "mail folder delta does not work here, listing instead"
                    );
                    return Ok(HashMap::new());
                }
                Err(error) => return Err(error),
            };
            for change in page.items {
                match change {
                    FolderChange::Present(folder) => drop(known.insert(folder.id.clone(), *folder)),
                    FolderChange::Removed { id, .. } => drop(known.remove(&id)),
                }
            }
            match page.next {
                Some(next) => link = Some(next),
                None => return Ok(known),
            }
        }
        Err(GraphError::TooMany { what: "the list of mail folders", limit: MAX_PAGES })
    }

    async fn name_well_known(
        &self,
        user: &str,
        known: &mut HashMap<String, MailFolder>,
        before: &BTreeMap<String, String>,
    ) -> Result<(), GraphError> {
        // Where Microsoft names them itself, nothing has to be asked.
        if known.values().any(|folder| folder.well_known.as_deref().is_some_and(|name| name != ROOT)) {
            return Ok(());
        }
        let mut to_ask = Vec::new();
        for name in WELL_KNOWN {
            match before.get(*name).and_then(|id| known.get_mut(id)) {
                Some(folder) => folder.well_known = Some((*name).to_owned()),
                None => to_ask.push(*name),
            }
        }
        for names in to_ask.chunks(WELL_KNOWN_AT_ONCE) {
            let ids = try_join_all(names.iter().map(|name| self.well_known_id(user, name))).await?;
            for (name, id) in names.iter().zip(ids) {
                if let Some(folder) = id.and_then(|id| known.get_mut(&id)) {
                    folder.well_known = Some((*name).to_owned());
                }
            }
        }
        Ok(())
    }

    /// Not every mailbox has every one.
    async fn well_known_id(&self, user: &str, name: &str) -> Result<Option<String>, GraphError> {
        let url = self.url(&["users", user, "mailFolders", name], &[("$select", "id")]);
        match self.object::<Created>(Call::get(url, Operation::Item, mailbox(user)), "a mail folder").await {
            Ok(found) => Ok(Some(found.id)),
            Err(error) if matches!(error.class(), ErrorClass::Gone | ErrorClass::SkipItem) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

pub(super) fn is_delta_unusable(error: &GraphError) -> bool {
    matches!(
        error.class(),
        ErrorClass::Programming | ErrorClass::Resync | ErrorClass::Gone | ErrorClass::SkipItem
    ) || error.has_code("ErrorQuotaExceeded")
}

/// Folders that say they have another number of children than are known.
fn incomplete(known: &HashMap<String, MailFolder>, listed: &HashSet<String>) -> Vec<String> {
    let mut children: HashMap<&str, u64> = HashMap::new();
    for parent in known.values().filter_map(|folder| folder.parent_id.as_deref()) {
        *children.entry(parent).or_default() += 1;
    }
    let differs = |f: &&MailFolder| children.get(f.id.as_str()).copied().unwrap_or_default() != f.child_count;
    let mut ids: Vec<_> =
        known.values().filter(|f| !listed.contains(&f.id)).filter(differs).map(|f| f.id.clone()).collect();
    ids.sort();
    ids
}

/// Folders that hang in nothing that is listed are hung into the root, or nobody would find what is in them.
fn adopt(known: &mut HashMap<String, MailFolder>, root_id: &str) {
    let mut reached: HashSet<String> = HashSet::from([root_id.to_owned()]);
    let reach = |known: &HashMap<String, MailFolder>, reached: &mut HashSet<String>| loop {
        let is_new = |f: &&MailFolder| {
            !reached.contains(&f.id) && f.parent_id.as_ref().is_some_and(|parent| reached.contains(parent))
        };
        let found: Vec<String> = known.values().filter(is_new).map(|folder| folder.id.clone()).collect();
        if found.is_empty() {
            return;
        }
        reached.extend(found);
    };
    reach(known, &mut reached);
    // One at a time: what hangs in an adopted folder stays there, and of a circle the first one is adopted.
    loop {
        let is_top = |f: &&MailFolder| !f.parent_id.as_ref().is_some_and(|parent| known.contains_key(parent));
        let lost = || known.values().filter(|folder| !reached.contains(&folder.id));
        let next = lost().filter(is_top).chain(lost()).map(|f| (!is_top(&f), f.id.clone())).min();
        let Some((_, id)) = next else { return };
        if let Some(folder) = known.get_mut(&id) {
            tracing::debug!("a mail folder hangs in none that is listed, taken as one of the root");
            folder.parent_id = Some(root_id.to_owned());
        }
        reach(known, &mut reached);
    }
}

/// Breadth first from the root, siblings by name.
fn in_order(mut known: HashMap<String, MailFolder>, root_id: &str) -> Vec<MailFolder> {
    adopt(&mut known, root_id);
    let mut children: HashMap<String, Vec<(String, String)>> = HashMap::new();
    for folder in known.values() {
        if let Some(parent) = &folder.parent_id {
            children
                .entry(parent.clone())
                .or_default()
                .push((folder.display_name.clone(), folder.id.clone()));
        }
    }
    let mut ordered = Vec::with_capacity(known.len());
    let mut next = VecDeque::from([root_id.to_owned()]);
    while let Some(id) = next.pop_front() {
        ordered.extend(known.remove(&id));
        let mut siblings = children.remove(&id).unwrap_or_default();
        siblings.sort();
        next.extend(siblings.into_iter().map(|(_, id)| id));
    }
    ordered
}
