//! The tree of contact folders.
//!
//! Two ways: a walk asks each folder for what is in it; a delta lists all at once. Microsoft does not say whether that delta goes
//! below the top, and a contact folder does not say how many are in it. So a delta is believed where it shows a nested folder
//! itself; where it shows none, the folders are walked as well.

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::Value;

use crate::{
    GraphClient, GraphError, Page,
    error::Operation,
    request::{Call, MAX_PAGES},
};

use super::{ContactFolder, DEFAULT_FOLDER, DELTA_PAGE_SIZE, FOLDER_PAGE_SIZE, MAX_FOLDERS};
use crate::api::{
    mail_folder::is_delta_unusable,
    outlook::{Change, mailbox},
};

const WHAT: &str = "the list of contact folders";

impl GraphClient {
    /// All folders of contacts, the default one first, parents before their children, by asking each.
    pub async fn contact_folders(&self, user: &str) -> Result<Vec<ContactFolder>, GraphError> {
        let default = self.default_contact_folder(user).await?;
        self.walked(user, vec![default]).await
    }

    /// The same in few calls. `default` is the id of the default folder where an earlier call found it: it is not asked for
    /// again, and has no properties then.
    pub async fn contact_folders_by_delta(
        &self,
        user: &str,
        default: Option<&str>,
    ) -> Result<Vec<ContactFolder>, GraphError> {
        let default = match default {
            None => self.default_contact_folder(user).await?,
            Some(id) => ContactFolder {
                id: id.to_owned(),
                display_name: String::new(),
                parent_id: None,
                is_default: true,
                raw: Value::Null,
            },
        };
        let Some(listed) = self.contact_folders_delta(user).await? else {
            return self.walked(user, vec![default]).await;
        };
        let shows_nested = |folder: &ContactFolder| {
            let parent = folder.parent_id.as_deref();
            parent.is_some_and(|parent| parent != default.id && listed.contains_key(parent))
        };
        if listed.values().any(shows_nested) {
            return Ok(in_order(default, listed));
        }
        let is_flat = listed.is_empty();
        let found = in_order(default, listed);
        if is_flat { Ok(found) } else { self.walked_below(user, found).await }
    }

    async fn default_contact_folder(&self, user: &str) -> Result<ContactFolder, GraphError> {
        let url = self.url(&["users", user, "contactFolders", DEFAULT_FOLDER], &[]);
        let call = Call::get(url, Operation::List, mailbox(user));
        let default: ContactFolder = self.object(call, "the default contact folder").await?;
        Ok(ContactFolder { is_default: true, ..default })
    }

    /// What an initial round lists; none where it does not work for this mailbox.
    async fn contact_folders_delta(
        &self,
        user: &str,
    ) -> Result<Option<HashMap<String, ContactFolder>>, GraphError> {
        let mut known = HashMap::new();
        let mut url = self.url(&["users", user, "contactFolders", "delta"], &[]);
        for _ in 0..MAX_PAGES {
            let call = Call::get(url, Operation::List, mailbox(user)).page_size(DELTA_PAGE_SIZE);
            let page: Page<Change<ContactFolder>> = match self.page(call, "a page of contact folders").await {
                Ok(page) => page,
                Err(error) if is_delta_unusable(&error) => {
                    tracing::debug!(
                        code = error.code(),
                        "contact folder delta does not work here, listing instead"
                    );
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            for change in page.items {
                match change {
                    Change::Present(folder) => drop(known.insert(folder.id.clone(), *folder)),
                    Change::Removed { id, .. } => drop(known.remove(&id)),
                }
            }
            match page.next {
                Some(next) => url = next,
                None => return Ok(Some(known)),
            }
        }
        Err(GraphError::TooMany { what: WHAT, limit: MAX_PAGES })
    }

    /// Adds the folders at the top, and then those in every one.
    async fn walked(
        &self,
        user: &str,
        mut folders: Vec<ContactFolder>,
    ) -> Result<Vec<ContactFolder>, GraphError> {
        let first = self.url(&["users", user, "contactFolders"], &[("$top", FOLDER_PAGE_SIZE)]);
        let call = |url| Call::get(url, Operation::List, mailbox(user));
        let listed: Vec<ContactFolder> = self.whole(first, call, WHAT).await?;
        let mut seen: HashSet<String> = folders.iter().map(|folder| folder.id.clone()).collect();
        // The children of the default folder are in this listing too.
        folders.extend(listed.into_iter().filter(|folder| seen.insert(folder.id.clone())));
        self.children_from(user, folders, 0).await
    }

    /// Adds those in every folder but the default one, whose children are known.
    async fn walked_below(
        &self,
        user: &str,
        folders: Vec<ContactFolder>,
    ) -> Result<Vec<ContactFolder>, GraphError> {
        self.children_from(user, folders, 1).await
    }

    async fn children_from(
        &self,
        user: &str,
        mut folders: Vec<ContactFolder>,
        from: usize,
    ) -> Result<Vec<ContactFolder>, GraphError> {
        let call = |url| Call::get(url, Operation::List, mailbox(user));
        let mut seen: HashSet<String> = folders.iter().map(|folder| folder.id.clone()).collect();
        let mut next = from;
        while next < folders.len() {
            let path = ["users", user, "contactFolders", &folders[next].id, "childFolders"];
            let url = self.url(&path, &[("$top", FOLDER_PAGE_SIZE)]);
            let children: Vec<ContactFolder> = self.whole(url, call, WHAT).await?;
            folders.extend(children.into_iter().filter(|child| seen.insert(child.id.clone())));
            if folders.len() > MAX_FOLDERS {
                return Err(GraphError::TooMany { what: WHAT, limit: MAX_FOLDERS });
            }
            next += 1;
        }
        Ok(folders)
    }
}

/// The default folder, then the others with parents before their children; siblings by name.
fn in_order(default: ContactFolder, mut listed: HashMap<String, ContactFolder>) -> Vec<ContactFolder> {
    listed.remove(&default.id);
    let mut children: HashMap<String, Vec<(String, String)>> = HashMap::new();
    for folder in listed.values() {
        // One beside the default folder, or in one that is not listed, is taken as in the default one.
        let parent = folder.parent_id.clone().filter(|parent| listed.contains_key(parent));
        let name = (folder.display_name.clone(), folder.id.clone());
        children.entry(parent.unwrap_or_else(|| default.id.clone())).or_default().push(name);
    }
    let mut next = VecDeque::from([default.id.clone()]);
    let mut ordered = vec![default];
    while let Some(id) = next.pop_front() {
        let mut siblings = children.remove(&id).unwrap_or_default();
        siblings.sort();
        for (_, child) in siblings {
            ordered.extend(listed.remove(&child));
            next.push_back(child);
        }
    }
    // What is left hangs in a circle: it is kept all the same.
    let mut circle: Vec<ContactFolder> = listed.into_values().collect();
    circle.sort_by(|a, b| a.id.cmp(&b.id));
    ordered.extend(circle);
    ordered
}
