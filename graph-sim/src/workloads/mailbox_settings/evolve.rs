//! Rules and categories come, change and go; a flag is a setting.

use serde_json::json;

use crate::rng::Rng;
use crate::workloads::Changes;
use crate::workloads::mailbox_settings::generate;
use crate::workloads::mailbox_settings::store::SettingsStore;
use crate::world::World;

/// Lets it happen in one mailbox: each new, edited and deleted one is a rule and a category.
pub(super) fn evolve(world: &World, user: u32, wanted: &Changes, rng: &mut Rng) -> Changes {
    let folders = generate::folders(world, user);
    let mut store = world.state::<SettingsStore>(user);
    let mut done = Changes::default();
    for _ in 0..wanted.deleted {
        if store.rules.pop().is_none() && store.categories.is_empty() {
            break;
        }
        store.categories.pop();
        done.deleted += 1;
    }
    for number in 0..wanted.edited {
        if let Some(rule) = store.rules.first_mut() {
            let words = json!({"subjectContains": [format!("edited {number} {}", rng.below(10_000))]});
            rule.fields.insert("conditions".into(), words);
        }
        if let Some(category) = store.categories.first_mut() {
            category.fields.insert("color".into(), format!("preset{}", rng.below(25)).into());
        }
        done.edited += 1;
    }
    for _ in 0..wanted.new {
        generate::add_category(&mut store);
        generate::add_rule(&mut store, &folders, rng);
        done.new += 1;
    }
    for _ in 0..wanted.flags {
        store.settings.insert("timeZone".into(), format!("Zone {}", rng.below(10_000)).into());
        done.flags += 1;
    }
    done
}
