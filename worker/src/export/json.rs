//! Everything that is stored of an item: its properties as JSON, and what hangs on it as files in a folder beside it.

use std::{collections::HashSet, path::PathBuf};

use serde_json::Value;

use super::{
    names::item_name,
    render::{Body, Item, OutFile, short},
};
use crate::{JobError, workload::stored::broken};

/// The files of an item.
pub(super) fn files(item: &Item<'_>) -> Result<Vec<OutFile>, JobError> {
    let mut titles = ["subject", "displayName", "title", "name"].into_iter().map(|name| item.text(name));
    let title = titles.find(|title| !title.is_empty()).unwrap_or_default();
    let stem = item_name(item.sort, title, item.id);
    let body = serde_json::to_vec_pretty(&item.meta).map_err(broken("meta"))?;
    let file = |name: PathBuf, body: Body| OutFile { name, modified_ms: item.sort, body };
    let mut files = vec![file(format!("{stem}.json").into(), Body::Bytes(body))];
    let mut names = HashSet::new();
    for (index, part) in item.parts.iter().enumerate() {
        let mut name = short(&part_name(&item.meta, index));
        if !names.insert(name.to_lowercase()) {
            name = format!("{index} {name}");
            names.insert(name.to_lowercase());
        }
        files.push(file([stem.as_str(), &name].iter().collect(), Body::Part(part.clone())));
    }
    Ok(files)
}

/// The properties of something that has no content, such as a search folder or a rule.
pub(super) fn definition(meta: &[u8]) -> Result<Vec<u8>, JobError> {
    let value: Value = serde_json::from_slice(meta).map_err(broken("setting"))?;
    serde_json::to_vec_pretty(&value).map_err(broken("setting"))
}

/// What a part is called: as the attachment that it is, or by what it is of the item.
fn part_name(meta: &Value, index: usize) -> String {
    let attachments = meta.pointer("/_holdfast/attachments").and_then(Value::as_array);
    let is_it = |one: &&Value| one.pointer("/source/part").and_then(Value::as_u64) == Some(index as u64);
    let attachment = attachments.into_iter().flatten().find(is_it);
    if let Some(name) = attachment.and_then(|one| one.pointer("/info/name")).and_then(Value::as_str) {
        return name.to_owned();
    }
    match meta.get("name").and_then(Value::as_str) {
        Some(name) if index == 0 => name.to_owned(),
        Some(name) => format!("version -{index} {name}"),
        None if meta.pointer("/_holdfast/photo").is_some() => "photo.jpg".to_owned(),
        None if meta.pointer("/_holdfast/mimeLen").is_some() && index == 0 => "message.eml".to_owned(),
        None => format!("part {index}.bin"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parts_are_called_by_what_they_are() {
        let task = json!({ "_holdfast": { "attachments": [
            { "info": { "name": "a.pdf" }, "source": { "in": "part", "part": 0, "len": 1 } },
        ] } });
        assert_eq!((part_name(&task, 0).as_str(), part_name(&task, 1).as_str()), ("a.pdf", "part 1.bin"));
        let file = json!({ "name": "x.txt", "_holdfast": {} });
        assert_eq!(
            (part_name(&file, 0).as_str(), part_name(&file, 2).as_str()),
            ("x.txt", "version -2 x.txt")
        );
        assert_eq!(part_name(&json!({ "_holdfast": { "photo": {} } }), 0), "photo.jpg");
        assert_eq!(part_name(&json!({ "_holdfast": { "mimeLen": 1 } }), 0), "message.eml");
    }
}
