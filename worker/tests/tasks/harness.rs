//! A person with tasks, and what a snapshot of them holds.

use holdfast_graph_sim::{Population, SimOptions};
use holdfast_model::Workload;
use serde_json::{Value, json};

pub use crate::support::{Stored, World, assert_same, blake3_hex, failures, outcome};

/// What hangs on a task is compared by other means.
const APART: [&str; 6] = ["id", "identity", "list", "checklistItems", "linkedResources", "attachments"];

impl World {
    pub async fn new(tasks: u32) -> Self {
        let population =
            Population { users: 2, messages_per_user: 20, tasks_per_user: tasks, ..Population::default() };
        Self::start(Workload::Tasks, SimOptions { population, ..SimOptions::default() }).await
    }

    /// Compares the newest snapshot with what the lists hold, to the last byte of every attachment.
    pub async fn check_snapshot(&self) {
        let truth = self.truth_by_id().await;
        let stored = self.stored().await;
        assert_eq!(stored.len(), truth.len(), "as many tasks as the lists hold");
        for task in stored {
            let id = task.meta["id"].as_str().unwrap();
            assert!(task.id.ends_with(&format!(":{id}")), "a key is list and task");
            let expected = truth.get(id).unwrap_or_else(|| panic!("{id} is not there"));
            assert_eq!(task.path, format!("/{}", expected["list"].as_str().unwrap()));
            task.assert_properties(expected, &APART);
            for name in ["checklistItems", "linkedResources"] {
                let (stored, expected) = (&task.meta["_holdfast"][name], expected[name].as_array().unwrap());
                assert_eq!(
                    stored.as_array().unwrap().len(),
                    expected.len(),
                    "{name} of {}",
                    task.meta["title"]
                );
                for (one, expected) in stored.as_array().unwrap().iter().zip(expected) {
                    assert_same(one, expected, &[]);
                }
            }
            assert_eq!(attachments(&task), expected["attachments"], "of {}", expected["identity"]);
        }
    }

    pub fn n_files_read(&self) -> u64 {
        self.requests().get("task_attachment_value").copied().unwrap_or(0)
    }
}

/// The stored attachments as a truth has them.
fn attachments(task: &Stored) -> Value {
    let mut all: Vec<Value> = Vec::new();
    for one in task.meta["_holdfast"]["attachments"].as_array().unwrap() {
        let bytes = &task.parts[usize::try_from(one["source"]["part"].as_u64().unwrap()).unwrap()];
        all.push(json!({"name": one["info"]["name"], "contentType": one["info"]["contentType"],
            "size": bytes.len(), "blake3": blake3_hex(bytes)}));
    }
    all.sort_by_cached_key(Value::to_string);
    all.into()
}
