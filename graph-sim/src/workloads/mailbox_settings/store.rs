//! What a person has: rules in their order, categories, settings.

use serde_json::{Map, Value, json};

use crate::ids::{FIRST_TAG, Id, Missing};
use crate::workloads::mailbox_settings::generate;
use crate::workloads::objects::schema::{Schema, Shape};
use crate::workloads::states::UserState;
use crate::world::World;

const RULE_TAG: u8 = FIRST_TAG + 40;

/// What a rule has.
pub(super) const RULE: Schema = Schema {
    name: "messageRule",
    properties: &[
        ("id", Shape::Fixed),
        ("hasError", Shape::Fixed),
        ("isReadOnly", Shape::Fixed),
        ("displayName", Shape::Text),
        ("sequence", Shape::Number),
        ("isEnabled", Shape::Flag),
        ("conditions", Shape::Object),
        ("exceptions", Shape::Object),
        ("actions", Shape::Object),
    ],
};

/// What a category has.
pub(super) const CATEGORY: Schema = Schema {
    name: "outlookCategory",
    properties: &[("id", Shape::Fixed), ("displayName", Shape::Text), ("color", Shape::Text)],
};

/// What may be written of a mailbox's settings.
pub(super) const SETTINGS: Schema = Schema {
    name: "mailboxSettings",
    properties: &[
        ("automaticRepliesSetting", Shape::Object),
        ("dateFormat", Shape::Text),
        (
            "delegateMeetingMessageDeliveryOptions",
            Shape::Choice(&[
                "sendToDelegateAndInformationToPrincipal",
                "sendToDelegateAndPrincipal",
                "sendToDelegateOnly",
            ]),
        ),
        ("language", Shape::Object),
        ("timeFormat", Shape::Text),
        ("timeZone", Shape::Text),
        ("workingHours", Shape::Object),
    ],
};

/// A rule.
#[derive(Clone)]
pub(super) struct Rule {
    pub key: u64,
    /// Made by something that Graph may not change.
    pub is_read_only: bool,
    pub fields: Map<String, Value>,
}

/// A category.
#[derive(Clone)]
pub(super) struct Category {
    pub key: u64,
    pub fields: Map<String, Value>,
}

pub(crate) struct SettingsStore {
    pub(super) user: u32,
    pub(super) rules: Vec<Rule>,
    pub(super) categories: Vec<Category>,
    pub(super) settings: Map<String, Value>,
    next_key: u64,
}

impl UserState for SettingsStore {
    fn populate(world: &World, user: u32) -> Self {
        let mut store = Self::blank(user);
        generate::fill(world, &mut store);
        store
    }
}

impl SettingsStore {
    fn blank(user: u32) -> Self {
        let settings = plain_settings();
        Self { user, rules: Vec::new(), categories: Vec::new(), settings, next_key: 1 }
    }

    pub(super) fn next_key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key - 1
    }

    pub(super) fn rule_id(&self, key: u64) -> String {
        Id::Object { tag: RULE_TAG, user: self.user, key, extra: 0, moves: None }.encode()
    }

    pub(super) fn category_id(&self, key: u64) -> String {
        format!("{:08x}-0000-4000-8000-{key:012x}", self.user)
    }

    /// The place of a rule.
    pub(super) fn find_rule(&self, id: &str) -> Result<usize, Missing> {
        self.rules.iter().position(|rule| self.rule_id(rule.key) == id).ok_or(Missing::Gone)
    }

    /// The place of a category.
    pub(super) fn find_category(&self, id: &str) -> Result<usize, Missing> {
        self.categories.iter().position(|one| self.category_id(one.key) == id).ok_or(Missing::Gone)
    }

    /// Takes rules and categories away, makes the settings those of a new mailbox, and says how many went.
    pub(super) fn wipe(&mut self) -> u64 {
        let gone = self.rules.len() + self.categories.len();
        self.rules.clear();
        self.categories.clear();
        self.settings = plain_settings();
        gone as u64
    }
}

/// The settings of a new mailbox.
fn plain_settings() -> Map<String, Value> {
    let settings = json!({
        "automaticRepliesSetting": {"status": "disabled", "externalAudience": "none",
            "internalReplyMessage": "", "externalReplyMessage": ""},
        "dateFormat": "M/d/yyyy",
        "delegateMeetingMessageDeliveryOptions": "sendToDelegateOnly",
        "language": {"locale": "en-US", "displayName": "English (United States)"},
        "timeFormat": "h:mm tt",
        "timeZone": "UTC",
        "workingHours": {"daysOfWeek": ["monday", "tuesday", "wednesday", "thursday", "friday"],
            "startTime": "08:00:00.0000000", "endTime": "17:00:00.0000000", "timeZone": {"name": "UTC"}},
    });
    match settings {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
