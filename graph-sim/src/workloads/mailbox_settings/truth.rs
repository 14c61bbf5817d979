//! What a mailbox really does by itself, in a form tests compare: folders by path, because ids differ between mailboxes.

use serde_json::{Value, json};

use crate::workloads::mail::mailbox::Mailbox;
use crate::workloads::mailbox_settings::rules::FOLDERS;
use crate::workloads::mailbox_settings::store::{Category, Rule, SettingsStore};
use crate::world::World;

/// Rules, categories, search folders, and the settings last.
pub(super) fn list(world: &World, user: u32) -> Vec<Value> {
    let (rules, categories, settings) = {
        let store = world.state::<SettingsStore>(user);
        (store.rules.clone(), store.categories.clone(), store.settings.clone())
    };
    let mailbox = world.mailbox(user);
    let mut all: Vec<Value> = rules.iter().map(|rule| described_rule(&mailbox, rule)).collect();
    all.extend(categories.iter().map(described_category));
    all.extend(search_folders(&mailbox));
    let mut record = json!({"id": "settings", "identity": "settings", "kind": "settings"});
    for (name, value) in settings {
        record[name] = value;
    }
    all.push(record);
    all
}

fn described_rule(mailbox: &Mailbox, rule: &Rule) -> Value {
    let name = rule.fields["displayName"].as_str().unwrap_or_default();
    let mut record = json!({
        "id": rule.key, "identity": format!("rule {name}"), "kind": "rule", "isReadOnly": rule.is_read_only,
    });
    for (name, value) in &rule.fields {
        record[name] = value.clone();
    }
    for name in FOLDERS {
        if let Some(id) = record["actions"].get(name).and_then(Value::as_str) {
            let path = path(mailbox, id);
            record["actions"][name] = path;
        }
    }
    record
}

/// The path of a folder; none of one that is not there.
fn path(mailbox: &Mailbox, id: &str) -> Value {
    mailbox.find_folder(id).ok().map(|key| mailbox.folder_path(key)).into()
}

fn described_category(category: &Category) -> Value {
    let name = category.fields["displayName"].as_str().unwrap_or_default();
    json!({"id": category.key, "identity": format!("category {}", name.to_lowercase()), "kind": "category",
        "displayName": name, "color": category.fields["color"]})
}

fn search_folders(mailbox: &Mailbox) -> Vec<Value> {
    let described = |folder: &crate::workloads::mail::mailbox::Folder| {
        let search = folder.search.as_ref()?;
        let mut sources: Vec<Value> = search.sources.iter().map(|id| path(mailbox, id)).collect();
        sources.sort_by_cached_key(Value::to_string);
        Some(json!({"id": folder.key, "identity": format!("search {}", mailbox.folder_path(folder.key)),
            "kind": "searchFolder", "includeNestedFolders": search.includes_nested, "sources": sources,
            "filterQuery": search.filter}))
    };
    mailbox.folders.values().filter_map(described).collect()
}
