//! A mailbox with contacts, and what a snapshot of them holds.

use std::collections::BTreeMap;

use holdfast_graph_sim::{Population, SimOptions};
use holdfast_model::Workload;
use serde_json::Value;

pub use crate::support::{World, blake3_hex, failures, outcome};

impl World {
    pub async fn new(contacts: u32) -> Self {
        let population = Population {
            users: 2,
            messages_per_user: 0,
            contacts_per_user: contacts,
            ..Population::default()
        };
        Self::start(Workload::Contacts, SimOptions { population, ..SimOptions::default() }).await
    }

    /// Compares the newest snapshot with what the mailbox holds, photos included.
    pub async fn check_snapshot(&self) {
        let truth = self.truth_by_id().await;
        let photos = self.check_properties(&truth).await;
        for (id, photo) in &photos {
            assert_eq!(*photo, truth[id]["photoBlake3"], "the photo of {}", truth[id]["identity"]);
        }
    }

    /// Compares everything but photos; those that are stored, by contact: the hash, or null.
    pub async fn check_properties(&self, truth: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
        let stored = self.stored().await;
        assert_eq!(stored.len(), truth.len(), "as many contacts as the mailbox holds");
        let mut photos = BTreeMap::new();
        for contact in stored {
            let expected = truth.get(&contact.id).unwrap_or_else(|| panic!("{} is not there", contact.id));
            assert_eq!(contact.path, expected["folderPath"]);
            contact.assert_properties(expected, &["identity", "folderPath", "photoBlake3", "photoType"]);
            let photo = contact.parts.first().map(|bytes| blake3_hex(bytes));
            assert_eq!(contact.meta["_holdfast"]["photo"]["blake3"].as_str(), photo.as_deref());
            photos.insert(contact.id, photo.map_or(Value::Null, Value::String));
        }
        photos
    }

    pub fn n_photo_requests(&self) -> u64 {
        self.requests().get("contact_photo_value").copied().unwrap_or(0)
    }
}
