//! `/mailFolders/inbox/messageRules`.
//!
//! Invariant: a rule that would send mail to people is counted the moment it is made or switched on.

use serde_json::{Map, Value};

use crate::http::{Answer, Call, Refusal, Reply, refuse};
use crate::workloads::mailbox_settings::store::{RULE, Rule, SettingsStore};
use crate::workloads::objects::page;
use crate::workloads::objects::schema::object;

/// Actions that name a folder.
pub(super) const FOLDERS: [&str; 2] = ["moveToFolder", "copyToFolder"];
/// Actions that send mail.
const SENDS: [&str; 3] = ["forwardTo", "forwardAsAttachmentTo", "redirectTo"];

/// Only the Inbox has rules.
fn inbox(call: &Call) -> Result<(), Refusal> {
    let mailbox = call.world.mailbox(call.user);
    let named = mailbox.find_folder(call.param("folder").unwrap_or_default())?;
    match named == mailbox.find_folder("inbox")? {
        true => Ok(()),
        false => Err(refuse(400, "ErrorInvalidArgument", "Rules are of the Inbox only.")),
    }
}

/// The folders that a rule names and the mailbox lacks.
fn lost(call: &Call, fields: &Map<String, Value>) -> bool {
    let mailbox = call.world.mailbox(call.user);
    folders_of(fields).any(|id| mailbox.find_folder(id).is_err())
}

/// The ids of folders that a rule names.
fn folders_of(fields: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let actions = fields.get("actions");
    FOLDERS.iter().filter_map(move |name| actions?.get(name)?.as_str())
}

fn shown(call: &Call, id: &str, rule: &Rule) -> Value {
    let mut fields = rule.fields.clone();
    // Exchange leaves out what is not there.
    fields.retain(|_, value| !value.is_null());
    fields.insert("id".into(), id.into());
    fields.insert("isReadOnly".into(), rule.is_read_only.into());
    fields.insert("hasError".into(), lost(call, &rule.fields).into());
    Value::Object(fields)
}

pub(super) fn list(call: &Call) -> Answer {
    inbox(call)?;
    let mut rules: Vec<(String, Rule)> = {
        let store = call.world.state::<SettingsStore>(call.user);
        store.rules.iter().map(|rule| (store.rule_id(rule.key), rule.clone())).collect()
    };
    rules.sort_by_key(|(_, rule)| rule.fields["sequence"].as_u64());
    page::list(call, "messageRules", &rules, |(id, rule)| shown(call, id, rule))
}

pub(super) fn get(call: &Call) -> Answer {
    inbox(call)?;
    let (id, rule) = found(call)?;
    page::one(200, &shown(call, &id, &rule))
}

fn found(call: &Call) -> Result<(String, Rule), Refusal> {
    let store = call.world.state::<SettingsStore>(call.user);
    let id = call.param("rule").unwrap_or_default();
    let place = store.find_rule(id)?;
    Ok((id.to_owned(), store.rules[place].clone()))
}

/// Refuses what Exchange refuses, and counts what would send mail.
fn check(call: &Call, fields: &Map<String, Value>) -> Result<(), Refusal> {
    let invalid = |text: &str| refuse(400, "ErrorInvalidArgument", text);
    if fields["displayName"].as_str().is_none_or(str::is_empty) {
        return Err(invalid("displayName is missing"));
    }
    let actions = fields["actions"].as_object();
    let actions = actions.filter(|actions| !actions.is_empty()).ok_or_else(|| invalid("no action"))?;
    if lost(call, fields) {
        return Err(refuse(400, "ErrorInvalidArgument", "A folder of the rule is not there."));
    }
    let has_people =
        |name: &str| actions.get(name).and_then(Value::as_array).is_some_and(|people| !people.is_empty());
    if fields["isEnabled"] == true && SENDS.iter().any(|name| has_people(name)) {
        call.would_send("rule");
    }
    Ok(())
}

pub(super) fn create(call: &Call) -> Answer {
    inbox(call)?;
    let mut fields = RULE.blank();
    fields.insert("isEnabled".into(), true.into());
    RULE.apply(&mut fields, object(&call.json()?)?)?;
    check(call, &fields)?;
    let (id, rule) = {
        let mut store = call.world.state::<SettingsStore>(call.user);
        let key = store.next_key();
        if fields["sequence"].is_null() {
            fields.insert("sequence".into(), (store.rules.len() + 1).into());
        }
        let rule = Rule { key, is_read_only: false, fields };
        store.rules.push(rule.clone());
        (store.rule_id(key), rule)
    };
    page::one(201, &shown(call, &id, &rule))
}

fn refuse_read_only(rule: &Rule) -> Result<(), Refusal> {
    match rule.is_read_only {
        true => Err(refuse(403, "ErrorAccessDenied", "The rule is read-only.")),
        false => Ok(()),
    }
}

pub(super) fn patch(call: &Call) -> Answer {
    inbox(call)?;
    let (id, mut rule) = found(call)?;
    refuse_read_only(&rule)?;
    RULE.apply(&mut rule.fields, object(&call.json()?)?)?;
    check(call, &rule.fields)?;
    {
        let mut store = call.world.state::<SettingsStore>(call.user);
        let place = store.find_rule(&id)?;
        store.rules[place] = rule.clone();
    }
    page::one(200, &shown(call, &id, &rule))
}

pub(super) fn delete(call: &Call) -> Answer {
    inbox(call)?;
    let mut store = call.world.state::<SettingsStore>(call.user);
    let place = store.find_rule(call.param("rule").unwrap_or_default())?;
    refuse_read_only(&store.rules[place])?;
    store.rules.remove(place);
    Ok(Reply::Empty(204))
}
