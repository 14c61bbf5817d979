//! New tasks, edits, moves, deletions, ticked lines.
//!
//! Invariant: no task is chosen twice in one evolution, so the counts given back are exact.

use serde_json::{Value, json};

use crate::rng::Rng;
use crate::workloads::Changes;
use crate::workloads::todo::children::{Checklist, ChildKind as _};
use crate::workloads::todo::generate::{add, date_time};
use crate::workloads::todo::store::{Task, TodoStore};
use crate::world::World;

/// Lets it happen to one person's tasks.
pub(crate) fn evolve(world: &World, user: u32, wanted: &Changes, rng: &mut Rng) -> Changes {
    let now = world.clock.now_ms();
    let mut done = Changes::default();
    let mut store = world.state::<TodoStore>(user);
    let places = store.places();
    let mut free: Vec<u64> = store.tasks.iter().map(|task| task.key).collect();
    let mut choose = |rng: &mut Rng| (!free.is_empty()).then(|| free.swap_remove(rng.below(free.len())));
    let TodoStore { numbers, tasks, .. } = &mut *store;
    for _ in 0..wanted.deleted {
        let Some(key) = choose(rng) else { break };
        tasks.remove(numbers, key);
        done.deleted += 1;
    }
    for _ in 0..wanted.moved {
        let Some(key) = choose(rng) else { break };
        let from = tasks.get(key).map_or(0, |task| task.place);
        let targets: Vec<u64> = places.iter().copied().filter(|place| *place != from).collect();
        // A task that is dragged to another list is a new task there.
        if let Some(task) = tasks.remove(numbers, key).filter(|_| !targets.is_empty()) {
            tasks.insert(numbers, *rng.pick(&targets), now, task.value);
            done.moved += 1;
        }
    }
    for _ in 0..wanted.edited {
        let Some(key) = choose(rng) else { break };
        if let Some(task) = tasks.change(numbers, key, now) {
            let note = format!("Waiting for answer {}.", rng.below(10_000));
            task.fields.insert("body".into(), json!({"content": note, "contentType": "text"}));
            task.body_modified_ms = now;
        }
        done.edited += 1;
    }
    for _ in 0..wanted.flags {
        let Some(key) = choose(rng) else { break };
        if let Some(task) = tasks.change(numbers, key, now) {
            tick(task, now);
        }
        done.flags += 1;
    }
    for _ in 0..wanted.new {
        add(world, &mut store, *rng.pick(&places), Some(now));
        done.new += 1;
    }
    done
}

/// Ticks or unticks the first line, else completes or reopens the task.
fn tick(task: &mut Task, now_ms: u64) {
    if let Some(line) = task.checklist.first_mut() {
        let is_checked = line.fields.get("isChecked").and_then(Value::as_bool).unwrap_or(false);
        line.fields.insert("isChecked".into(), (!is_checked).into());
        Checklist::derive(&mut line.fields, now_ms);
        return;
    }
    let is_completed = task.fields.get("status").is_some_and(|status| status == "completed");
    let (status, date) = if is_completed {
        ("notStarted", Value::Null)
    } else {
        ("completed", date_time(now_ms / 86_400_000 * 86_400_000))
    };
    task.fields.insert("status".into(), status.into());
    task.fields.insert("completedDateTime".into(), date);
}
