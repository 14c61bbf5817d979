//! Search folders are made again as what they search for, with the folders that they search mapped to the target's.
//!
//! A hidden property holds the restore key, as on everything that Exchange lets be marked.

use std::collections::HashMap;

use holdfast_graph_client::{GraphError, MarkedFolder, SEARCH_FOLDERS};
use holdfast_model::ConflictPolicy;
use serde_json::{Value, json};

use super::{Outcome, Run, Stored};
use crate::{
    JobError,
    workload::{
        mail::apart::SEARCH_FOLDERS_ID,
        write_back::{CREATE_ATTEMPTS, RESTORE_KEY_PROPERTY, Written, restore_key, restore_key_property},
    },
};

const TYPE: &str = "#microsoft.graph.mailSearchFolder";
/// None of the folders that it searches is in the snapshot.
const SOURCES_GONE: &str = "SearchFolderSourcesGone";
/// Some are not.
const SOURCE_GONE: &str = "SearchFolderSourceGone";
/// A folder that is no search folder has its name.
const NAME_TAKEN: &str = "NameTakenByFolder";

/// What is in the places of the target, by the place's id.
type There = HashMap<String, Vec<MarkedFolder>>;

pub(super) async fn restore<'a>(
    run: &mut Run<'_>,
    stored: impl Iterator<Item = &'a Stored<'a>>,
) -> Result<(), JobError> {
    let mut there = There::new();
    for one in stored {
        let outcome = write(run, one, &mut there).await;
        run.note(one, outcome)?;
    }
    Ok(())
}

async fn write(run: &mut Run<'_>, one: &Stored<'_>, there: &mut There) -> Result<Outcome, JobError> {
    let (sources, n_gone) = sources(run, one).await?;
    if sources.is_empty() {
        return Ok(Outcome::Refused(SOURCES_GONE));
    }
    let losses: Vec<String> = (n_gone > 0).then(|| SOURCE_GONE.to_owned()).into_iter().collect();
    let (parent, name) = place(run, one).await?;
    if !there.contains_key(&parent) {
        there.insert(parent.clone(), look(run, &parent).await?);
    }
    let siblings = there.entry(parent.clone()).or_default();
    let key = restore_key(&run.context.restore_key, &one.folder.id);
    if siblings.iter().any(|folder| folder.value.as_deref() == Some(&key)) {
        return Ok(Outcome::whole(Written::Before));
    }
    let mut body = json!({ "@odata.type": TYPE, "sourceFolderIds": sources,
        "includeNestedFolders": one.fields.get("includeNestedFolders").cloned().unwrap_or(json!(false)),
        "filterQuery": one.text("filterQuery") });
    let same = siblings.iter().find(|folder| folder.display_name.to_lowercase() == name.to_lowercase());
    let name = match (same, run.context.conflict) {
        (None, _) => name,
        (Some(_), ConflictPolicy::Rename) => free_name(&name, siblings),
        (Some(same), _) if !same.is_search_folder => return Ok(Outcome::Refused(NAME_TAKEN)),
        (Some(_), ConflictPolicy::Skip) => return Ok(Outcome::whole(Written::Skipped)),
        (Some(same), ConflictPolicy::Replace) => {
            run.context.graph.change_search_folder(&run.context.user, &same.id, &body).await?;
            return Ok(Outcome::Done(Written::Created, losses));
        }
    };
    body["displayName"] = name.as_str().into();
    body["singleValueExtendedProperties"] = vec![restore_key_property(&key)].into();
    let id = create(run, (&parent, &key), &body).await?;
    siblings.push(MarkedFolder { id, display_name: name, value: Some(key), is_search_folder: true });
    Ok(Outcome::Done(Written::Created, losses))
}

/// The folders that it searches, in the target, and how many are gone.
async fn sources(run: &mut Run<'_>, one: &Stored<'_>) -> Result<(Vec<String>, usize), JobError> {
    let (mut found, mut n_gone) = (Vec::new(), 0);
    let stored = one.fields.get("sourceFolderIds").and_then(Value::as_array);
    for id in stored.into_iter().flatten().filter_map(Value::as_str) {
        match run.folder(id).await? {
            Some(id) => found.push(id),
            None => n_gone += 1,
        }
    }
    Ok((found, n_gone))
}

/// Where it goes, and under which name. Outlook shows those of one place only, so there is no folder of that place to put them
/// into: the name says what it was restored into.
async fn place(run: &mut Run<'_>, one: &Stored<'_>) -> Result<(String, String), JobError> {
    let name = one.folder.name.clone();
    let into = run.context.into.trim_matches('/').to_owned();
    match one.folder.parent {
        Some(parent) if run.snapshot.all()[parent].id != SEARCH_FOLDERS_ID => {
            Ok((run.folders.resolve(run.snapshot, parent).await?, name))
        }
        _ if into.is_empty() => Ok((SEARCH_FOLDERS.to_owned(), name)),
        _ => Ok((SEARCH_FOLDERS.to_owned(), format!("{into} / {name}"))),
    }
}

async fn look(run: &Run<'_>, parent: &str) -> Result<Vec<MarkedFolder>, GraphError> {
    run.context.graph.marked_folders(&run.context.user, parent, RESTORE_KEY_PROPERTY).await
}

/// `NAME (2)`, or the next number that is free.
fn free_name(name: &str, siblings: &[MarkedFolder]) -> String {
    let is_free = |wanted: &String| {
        !siblings.iter().any(|one| one.display_name.to_lowercase() == wanted.to_lowercase())
    };
    let mut numbered = (2_u64..).map(|n| format!("{name} ({n})"));
    numbered.find(is_free).expect("there are more numbers than folders")
}

/// Makes it once: an unknown outcome is looked up by the restore key.
async fn create(run: &Run<'_>, (parent, key): (&str, &str), body: &Value) -> Result<String, JobError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let made = run.context.graph.create_search_folder(&run.context.user, parent, body).await;
        let error = match made {
            Ok(id) => return Ok(id),
            Err(error @ GraphError::Ambiguous { .. }) => error,
            Err(error) => return Err(error.into()),
        };
        let found = look(run, parent).await?;
        if let Some(folder) = found.into_iter().find(|one| one.value.as_deref() == Some(key)) {
            return Ok(folder.id);
        }
        if attempt >= CREATE_ATTEMPTS {
            return Err(error.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_taken_is_numbered() {
        let folder = |name: &str| MarkedFolder {
            id: name.into(),
            display_name: name.into(),
            value: None,
            is_search_folder: true,
        };
        assert_eq!(free_name("Unread", &[folder("unread"), folder("UNREAD (2)")]), "Unread (3)");
    }
}
