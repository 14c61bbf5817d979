//! A mailbox: what it holds, what a snapshot of it holds, and how it is restored.

use std::collections::BTreeMap;

use base64::Engine as _;
use futures::TryStreamExt as _;
use holdfast_graph_sim::{Population, SimOptions, TruthMessage};
use holdfast_model::Workload;
use holdfast_repository::{ItemEntry, SnapshotReader};
use holdfast_worker::workload::{
    mail::{
        meta::{AttachmentSource, stored_message},
        mime_parts::Encoding,
    },
    snapshot_folders::SnapshotFolders,
};
use serde_json::{Value, json};

pub use crate::support::{READ_AHEAD_BYTES, World, failures};

impl World {
    pub async fn new(messages: u32) -> Self {
        let population = Population {
            users: 2,
            messages_per_user: messages,
            total_bytes: u64::from(messages) * 2 * 30_000,
            max_message_bytes: 2_000_000,
            ..Population::default()
        };
        Self::with(SimOptions { population, ..SimOptions::default() }).await
    }

    pub async fn with(options: SimOptions) -> Self {
        Self::start(Workload::Mail, options).await
    }

    pub async fn truth(&self) -> BTreeMap<String, TruthMessage> {
        let all = self.sim.truth(&self.user.id).await.unwrap();
        all.into_iter().map(|message| (message.id.clone(), message)).collect()
    }

    pub fn content_requests(&self) -> u64 {
        self.sim.counters().content_requests.values().sum()
    }

    /// Compares the newest snapshot with what the mailbox holds, to the last byte of every attachment.
    pub async fn check_snapshot(&self) {
        let truth = self.truth().await;
        let reader = self.reader().await;
        let folders = SnapshotFolders::read(&reader).await.unwrap();
        let selection = folders.select(&reader, &[]).await.unwrap();
        let stored: Vec<_> = folders.selected(&reader, &selection).try_collect().await.unwrap();
        let ids: Vec<&String> = stored.iter().map(|(_, id, _)| id).collect();
        assert_eq!(ids.len(), truth.len(), "as many messages as the mailbox holds");
        assert_eq!(self.base.as_ref().unwrap().items, truth.len() as u64);
        for (folder, id, entry) in &stored {
            let expected = truth.get(id).unwrap_or_else(|| panic!("{id} is not in the mailbox"));
            assert_eq!(folders.all()[*folder].path, expected.folder_path);
            self.check_message(&reader, entry, expected).await;
        }
    }

    async fn check_message(&self, reader: &SnapshotReader, entry: &ItemEntry, expected: &TruthMessage) {
        let meta = reader.meta(entry).await.unwrap();
        let value: Value = serde_json::from_slice(&meta).unwrap();
        assert_eq!(value["subject"], json!(expected.subject));
        assert_eq!(value["isRead"], json!(expected.is_read), "{}", expected.subject);
        assert_eq!(value["categories"], json!(expected.categories));
        assert_eq!(value["flag"]["flagStatus"], json!(expected.flag));
        let body = value["body"]["content"].as_str().unwrap_or_default();
        assert_eq!(blake3::hash(body.as_bytes()).to_hex().as_str(), expected.body_blake3);
        let stored = stored_message(&meta).unwrap();
        assert_eq!(stored.attachments.len(), expected.attachments.len(), "{}", expected.subject);
        let parts = reader.content(entry).await.unwrap();
        assert_eq!(parts[0].len, stored.mime_len);
        for expected in expected.attachments.iter().filter(|one| one.kind == "file") {
            let mut found = Vec::new();
            for one in &stored.attachments {
                let bytes = match &one.source {
                    AttachmentSource::Mime { start, len, encoding, decoded } => {
                        let raw = reader.read_range(&parts[0], *start, *len).await.unwrap();
                        let bytes = decode(*encoding, &raw);
                        assert_eq!(bytes.len() as u64, *decoded);
                        bytes
                    }
                    AttachmentSource::Part { part, len } => {
                        reader.read_range(&parts[*part as usize], 0, *len).await.unwrap().to_vec()
                    }
                    _ => continue,
                };
                found.push(blake3::hash(&bytes).to_hex().to_string());
            }
            assert!(found.contains(&expected.blake3), "attachment {} is not stored", expected.name);
        }
    }
}

fn decode(encoding: Encoding, raw: &[u8]) -> Vec<u8> {
    match encoding {
        Encoding::Identity => raw.to_vec(),
        Encoding::Base64 => {
            let text: Vec<u8> = raw.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
            base64::engine::general_purpose::STANDARD.decode(text).unwrap()
        }
        Encoding::QuotedPrintable => panic!("the simulator writes attachments as base64"),
    }
}
