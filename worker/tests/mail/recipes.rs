use bytes::Bytes;
use futures::TryStreamExt as _;
use holdfast_repository::EntryKind;
use holdfast_worker::workload::mail::{
    meta::{AttachmentSource, stored_message},
    mime_parts::Encoding,
};

use crate::harness::World;

/// Attachments that decode to this are taken out of the message.
const LARGE: u64 = holdfast_repository::recipe::MIN_RUN_BYTES as u64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_with_attachments_are_stored_as_recipes_and_read_back_whole() {
    let mut world = World::new(60).await;
    world.back_up().await;
    world.check_snapshot().await;

    let reader = world.reader().await;
    let (mut n_recipes, mut n_plain) = (0, 0);
    let mut items = reader.items();
    while let Some((_, entry)) = items.try_next().await.unwrap() {
        if entry.kind != EntryKind::MailMessage {
            continue;
        }
        let stored = stored_message(&reader.meta(&entry).await.unwrap()).unwrap();
        let mime = reader.content(&entry).await.unwrap().remove(0);
        let is_large = |source: &AttachmentSource| matches!(source, AttachmentSource::Mime { encoding: Encoding::Base64, decoded, .. } if *decoded >= LARGE);
        if stored.attachments.iter().any(|one| is_large(&one.source)) {
            assert!(mime.is_recipe(), "a message with a large attachment is stored as a recipe");
        }
        n_recipes += u32::from(mime.is_recipe());
        n_plain += u32::from(!mime.is_recipe());
        // Reading the whole message compares it with the BLAKE3 of what Microsoft sent.
        let pieces: Vec<Bytes> = reader.read(&mime).try_collect().await.unwrap();
        assert_eq!(pieces.iter().map(|piece| piece.len() as u64).sum::<u64>(), stored.mime_len);
    }
    assert!(n_recipes > 0 && n_plain > 0, "both kinds: {n_recipes} recipes, {n_plain} without");
}
