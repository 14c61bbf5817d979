//! The hidden folder where messages with large attachments are built; each restore has its own.

use tokio::sync::OnceCell;

use super::target_folders::Folders;
use crate::{JobError, restore::RestoreContext};

/// The beginning of its name.
const NAME: &str = "Holdfast staging";

/// The staging folder of one restore.
pub(super) struct Staging<'a> {
    context: &'a RestoreContext,
    root: String,
    name: String,
    /// That of an earlier attempt.
    old: Option<String>,
    made: OnceCell<String>,
}

impl<'a> Staging<'a> {
    /// It is not made before it is needed.
    pub(super) fn new(context: &'a RestoreContext, folders: &Folders<'_>) -> Self {
        let restore = &blake3::hash(context.restore_key.as_bytes()).to_hex()[..8];
        let name = format!("{NAME} {restore}");
        let old = folders.at_top(&name).map(str::to_owned);
        Self { context, root: folders.root().to_owned(), name, old, made: OnceCell::new() }
    }

    /// That of an earlier attempt.
    pub(super) fn old(&self) -> Option<&str> {
        self.old.as_deref()
    }

    /// Its id; it is made when first needed.
    pub(super) async fn folder(&self) -> Result<&str, JobError> {
        let make = || async {
            let (graph, user) = (&self.context.graph, &self.context.user);
            match &self.old {
                Some(id) => Ok(id.clone()),
                None => Ok(graph.create_folder(user, &self.root, &self.name, true).await?.id),
            }
        };
        self.made.get_or_try_init(make).await.map(String::as_str)
    }

    /// It is only there while something is restored.
    pub(super) async fn remove(&self) {
        let Some(staging) = self.made.get().or(self.old.as_ref()) else { return };
        if let Err(error) = self.context.graph.delete_folder(&self.context.user, staging).await {
            tracing::warn!(code = error.code(), "the hidden staging folder stays in the mailbox");
        }
    }
}
