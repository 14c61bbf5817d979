//! What a mailbox does by itself: inbox rules, categories, settings.
//!
//! `store` is what a person has, `generate` where it comes from · `rules`, `categories`, `settings` answer calls ·
//! `evolve` and `truth` are for tests; the truth has the mailbox's search folders too.

mod categories;
mod evolve;
mod generate;
mod rules;
mod settings;
mod store;
mod truth;

use serde_json::Value;

use crate::rng::Rng;
use crate::workloads::backend::Backend;
use crate::workloads::mailbox_settings::store::SettingsStore;
use crate::workloads::route::Route;
use crate::workloads::states::States;
use crate::workloads::{Changes, Roles, Slice, Workload};
use crate::world::World;

/// The registry's entry.
pub(crate) struct MailboxSettings;

impl Workload for MailboxSettings {
    fn name(&self) -> &'static str {
        "mailbox-settings"
    }

    fn backend(&self) -> Backend {
        Backend::Outlook
    }

    fn roles(&self) -> Roles {
        Roles {
            read: &["MailboxSettings.Read", "MailboxSettings.ReadWrite"],
            write: &["MailboxSettings.ReadWrite"],
        }
    }

    fn items(&self) -> &'static str {
        "rules_and_categories"
    }

    fn routes(&self) -> Vec<Route> {
        const RULES: &str = "users/{user}/mailFolders/{folder}/messageRules";
        const RULE: &str = "users/{user}/mailFolders/{folder}/messageRules/{rule}";
        const CATEGORIES: &str = "users/{user}/outlook/masterCategories";
        const CATEGORY: &str = "users/{user}/outlook/masterCategories/{category}";
        const SETTINGS: &str = "users/{user}/mailboxSettings";
        vec![
            Route::get(RULES, "rule_list", rules::list),
            Route::post(RULES, "rule_create", rules::create),
            Route::get(RULE, "rule_get", rules::get),
            Route::patch(RULE, "rule_patch", rules::patch),
            Route::delete(RULE, "rule_delete", rules::delete),
            Route::get(CATEGORIES, "category_list", categories::list),
            Route::post(CATEGORIES, "category_create", categories::create),
            Route::get(CATEGORY, "category_get", categories::get),
            Route::patch(CATEGORY, "category_patch", categories::patch),
            Route::delete(CATEGORY, "category_delete", categories::delete),
            Route::get(SETTINGS, "mailbox_settings_get", settings::get),
            Route::patch(SETTINGS, "mailbox_settings_patch", settings::patch),
        ]
    }

    fn add_states(&self, states: &mut States) {
        states.add::<SettingsStore>();
    }

    fn evolve(&self, world: &World, user: u32, wanted: &Changes, rng: &mut Rng) -> Changes {
        evolve::evolve(world, user, wanted, rng)
    }

    fn wipe(&self, world: &World, user: u32) -> Option<u64> {
        Some(world.state::<SettingsStore>(user).wipe())
    }

    fn truth(&self, world: &World, user: u32, slice: &Slice) -> Vec<Value> {
        truth::list(world, user).into_iter().skip(slice.skip).take(slice.top).collect()
    }
}
