//! What a mailbox is made with, from the seed.

use serde_json::{Map, Value, json};

use crate::ids::Id;
use crate::rng::Rng;
use crate::workloads::mail::mailbox::INBOX;
use crate::workloads::mailbox_settings::store::{CATEGORY, Category, RULE, Rule, SettingsStore};
use crate::world::World;

/// No mailbox has a folder with this key any more.
const LOST_FOLDER: u32 = 2_000_000_000;
const COLORS: u64 = 25;

/// Fills a mailbox that is new.
pub(super) fn fill(world: &World, store: &mut SettingsStore) {
    let (options, user) = (world.options(), store.user);
    let population = &options.population;
    let mut rng = Rng::new(&[options.seed, 0x7275_6c65, u64::from(user)]);
    for _ in 0..population.categories_per_user {
        add_category(store);
    }
    let folders = folders(world, user);
    for _ in 0..population.inbox_rules_per_user {
        add_rule(store, &folders, &mut rng);
    }
    if population.inbox_rules_per_user > 0 {
        settings(store);
    }
}

/// Ids of folders that somebody made and that are no search folders; the Inbox, where there are none.
pub(super) fn folders(world: &World, user: u32) -> Vec<String> {
    let mailbox = world.mailbox(user);
    let own = mailbox.own_folders().into_iter().filter(|key| mailbox.folders[key].search.is_none());
    let own: Vec<String> = own.map(|key| mailbox.folder_id(key)).collect();
    if own.is_empty() { vec![mailbox.folder_id(INBOX)] } else { own }
}

pub(super) fn add_category(store: &mut SettingsStore) {
    let key = store.next_key();
    let mut fields = CATEGORY.blank();
    fields.insert("displayName".into(), format!("Category {key}").into());
    fields.insert("color".into(), format!("preset{}", key % COLORS).into());
    store.categories.push(Category { key, fields });
}

pub(super) fn add_rule(store: &mut SettingsStore, folders: &[String], rng: &mut Rng) {
    let key = store.next_key();
    let number = store.rules.len();
    let folder = rng.pick(folders).clone();
    let lost = Id::Folder { user: store.user, key: LOST_FOLDER }.encode();
    let person = json!([{"emailAddress": {"name": "Ann", "address": format!("ann.{key}@fabrikam.example")}}]);
    let actions = match number % 6 {
        0 => json!({"moveToFolder": folder, "stopProcessingRules": true}),
        1 => json!({"copyToFolder": folder, "assignCategories": ["Category 1"], "markAsRead": true}),
        2 => json!({"forwardTo": person}),
        3 => json!({"markImportance": "high"}),
        4 => json!({"moveToFolder": lost}),
        _ => json!({"delete": true}),
    };
    let mut fields = RULE.blank();
    let given = json!({
        "displayName": format!("Rule {key}"), "sequence": number + 1, "isEnabled": number % 4 != 1,
        "conditions": {"subjectContains": [format!("word {key}")], "sentToMe": true},
        "exceptions": if rng.percent(50) { json!({"importance": "high"}) } else { Value::Null },
        "actions": actions,
    });
    fields.extend(given.as_object().cloned().unwrap_or_else(Map::new));
    store.rules.push(Rule { key, is_read_only: number % 6 == 3, fields });
}

/// Settings that somebody has made; every second person is away.
fn settings(store: &mut SettingsStore) {
    let is_away = store.user.is_multiple_of(2);
    let given = json!({
        "automaticRepliesSetting": {
            "status": if is_away { "alwaysEnabled" } else { "disabled" }, "externalAudience": "contactsOnly",
            "internalReplyMessage": "<p>I am away.</p>", "externalReplyMessage": "<p>I am away until Monday.</p>"},
        "dateFormat": "dd.MM.yyyy", "timeFormat": "HH:mm", "timeZone": "W. Europe Standard Time",
        "delegateMeetingMessageDeliveryOptions": "sendToDelegateAndPrincipal",
        "language": {"locale": "de-CH", "displayName": "German (Switzerland)"},
        "workingHours": {"daysOfWeek": ["monday", "tuesday", "thursday"], "startTime": "07:30:00.0000000",
            "endTime": "16:00:00.0000000", "timeZone": {"name": "W. Europe Standard Time"}},
    });
    store.settings.extend(given.as_object().cloned().unwrap_or_else(Map::new));
}
