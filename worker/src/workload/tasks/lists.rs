//! The lists: read whole, put into the manifest where they changed.

use std::collections::BTreeMap;

use holdfast_graph_client::{Change, ErrorClass, GraphClient, GraphError, TodoList};

use crate::{
    JobError,
    backup::BackupContext,
    workload::{
        collect::Container,
        stored::{FolderToPut, ROOT_ID, ROOT_RAW},
    },
};

/// Pages of lists: a hundred each.
const MAX_PAGES: usize = 1_000;
/// A round whose links die is begun again so often.
const MAX_ROUNDS: u32 = 20;

/// Reads the lists and puts what changed into the manifest.
pub(super) async fn sync(context: &BackupContext) -> Result<Vec<Container>, JobError> {
    let lists = read(&context.graph, &context.user).await?;
    FolderToPut::root(ROOT_RAW).put(&context.manifest).await?;
    let mut containers = Vec::with_capacity(lists.len());
    for list in lists.values() {
        let put = FolderToPut {
            id: &list.id,
            parent_id: Some(ROOT_ID),
            raw: &list.raw.to_string(),
            well_known: list.well_known.as_deref(),
        };
        put.put(&context.manifest).await?;
        let path = format!("/{}", list.display_name.replace('/', "\u{2215}"));
        containers.push(Container {
            // A view of flagged mail: the messages are backed up as mail.
            is_listable: !list.is_flagged_mail(),
            ..Container::new(&list.id, path)
        });
    }
    Ok(containers)
}

/// All lists by id. An initial round costs one call in most mailboxes, as the next round of a delta would.
pub(super) async fn read(graph: &GraphClient, user: &str) -> Result<BTreeMap<String, TodoList>, GraphError> {
    let mut n_rounds = 1;
    loop {
        match round(graph, user).await {
            Err(error) if error.class() == ErrorClass::Resync && n_rounds < MAX_ROUNDS => n_rounds += 1,
            result => return result,
        }
    }
}

async fn round(graph: &GraphClient, user: &str) -> Result<BTreeMap<String, TodoList>, GraphError> {
    let (mut lists, mut link) = (BTreeMap::new(), None);
    for _ in 0..MAX_PAGES {
        let page = graph.todo_lists_delta(user, link.as_deref()).await?;
        for change in page.items {
            match change {
                Change::Present(list) => lists.insert(list.id.clone(), *list),
                Change::Removed { id, .. } => lists.remove(&id),
            };
        }
        link = page.next;
        if link.is_none() {
            return Ok(lists);
        }
    }
    Err(GraphError::TooMany { what: "the list of task lists", limit: MAX_PAGES })
}
