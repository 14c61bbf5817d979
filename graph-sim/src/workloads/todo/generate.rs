//! Tasks from (seed, person, number).

use serde_json::{Value, json};

use crate::blob::{Data, Shape as Look, Synthetic};
use crate::json::timestamp;
use crate::rng::Rng;
use crate::words;
use crate::workloads::todo::children::{Checklist, ChildKind, Links};
use crate::workloads::todo::store::{Child, File, ListKind, SCHEMA, Task, TodoStore};
use crate::world::World;

/// The oldest generated task was made then: 2025-01-06T07:30:00Z.
const FIRST_MS: u64 = 1_736_148_600_000;
const SPACING_MS: u64 = 11 * 60 * 60 * 1000;
const LIST_NAMES: [&str; 6] = ["Groceries", "House", "Project Atlas", "Reading", "Errands", "Team"];

/// Fills the lists of a person as the options say.
pub(crate) fn populate(world: &World, store: &mut TodoStore) {
    let options = world.options();
    let count = options.population.tasks_per_user;
    if count == 0 {
        return;
    }
    let mut rng = Rng::new(&[options.seed, 0x746f_646c, u64::from(store.user)]);
    for number in 0..2 + rng.below(3) {
        let name = LIST_NAMES[(number + store.user as usize) % LIST_NAMES.len()];
        store.add_list(name, ListKind::Own, FIRST_MS);
    }
    let places = store.places();
    for _ in 0..count {
        add(world, store, *rng.pick(&places), None);
    }
}

/// Adds the next generated task, of the time it always had or of now.
pub(crate) fn add(world: &World, store: &mut TodoStore, list: u64, now_ms: Option<u64>) -> u64 {
    let index = store.next_index();
    let made = now_ms.unwrap_or(FIRST_MS + u64::from(index) * SPACING_MS);
    let mut rng = Rng::new(&[world.options().seed, 0x7461_736b, u64::from(store.user), u64::from(index)]);
    let task = task(store, index, made, &mut rng);
    store.tasks.insert(&mut store.numbers, list, made, task)
}

fn task(store: &mut TodoStore, index: u32, made: u64, rng: &mut Rng) -> Task {
    let language = words::language(rng.next());
    let mut task = Task { fields: SCHEMA.blank(), body_modified_ms: made, ..Task::default() };
    let mut set = |name: &str, value: Value| task.fields.insert(name.to_owned(), value);
    set("title", format!("{} {index}", rng.phrase(language.subjects)).into());
    let note = if rng.percent(50) { rng.phrase(language.sentences) } else { "" };
    set("body", json!({"content": note, "contentType": "text"}));
    set("importance", (*rng.pick(&["normal", "normal", "high", "low"])).into());
    if rng.percent(30) {
        set("categories", json!([*rng.pick(&words::CATEGORIES)]));
    }
    let day = |offset: u64, hour: u64| {
        let midnight = (made / 86_400_000 + offset) * 86_400_000;
        date_time(midnight + hour * 3_600_000)
    };
    if rng.percent(50) {
        set("dueDateTime", day(2 + rng.below(20) as u64, 0));
        if rng.percent(40) {
            set("isReminderOn", true.into());
            set("reminderDateTime", day(1, 9));
        }
        if rng.percent(20) {
            let pattern = json!({"type": "weekly", "interval": 1, "month": 0, "dayOfMonth": 0,
                "daysOfWeek": ["monday"], "firstDayOfWeek": "sunday", "index": "first"});
            let range = json!({"type": "noEnd", "startDate": timestamp(made)[..10], "endDate": "0001-01-01",
                "recurrenceTimeZone": "UTC", "numberOfOccurrences": 0});
            set("recurrence", json!({"pattern": pattern, "range": range}));
        }
    } else if rng.percent(50) {
        set("status", "completed".into());
        set("completedDateTime", day(1, 0));
    } else {
        set("status", (*rng.pick(&["notStarted", "inProgress", "waitingOnOthers", "deferred"])).into());
    }
    if rng.percent(35) {
        for line in 0..1 + rng.below(4) {
            let fields = json!({"displayName": format!("Step {line}"), "isChecked": rng.percent(40)});
            task.checklist.push(child::<Checklist>(store, &fields, made));
        }
    }
    if rng.percent(20) {
        let fields = json!({"applicationName": "Wiki", "displayName": "Page", "externalId": format!("page-{index}"),
            "webUrl": format!("https://wiki.contoso.example/{index}")});
        task.links.push(child::<Links>(store, &fields, made));
    }
    if rng.percent(15) {
        for number in 0..1 + rng.below(2) {
            task.files.push(file(store, number, made, rng));
        }
    }
    task
}

/// As Graph writes a time with its zone.
pub(crate) fn date_time(ms: u64) -> Value {
    json!({"dateTime": format!("{}.0000000", timestamp(ms).trim_end_matches('Z')), "timeZone": "UTC"})
}

fn child<K: ChildKind>(store: &mut TodoStore, given: &Value, made: u64) -> Child {
    let mut fields = K::SCHEMA.blank();
    fields.extend(given.as_object().cloned().unwrap_or_default());
    K::derive(&mut fields, made);
    Child { key: store.numbers.next_key(), created_ms: made, fields }
}

fn file(store: &mut TodoStore, number: usize, made: u64, rng: &mut Rng) -> File {
    let size = 500 + rng.below(60_000) as u64;
    File {
        key: store.numbers.next_key(),
        name: format!("{} {number}.txt", rng.pick(&words::FILES)),
        content_type: "text/plain".into(),
        added_ms: made,
        data: Data::Generated(Synthetic { seed: rng.next(), size, shape: Look::Text }),
    }
}
