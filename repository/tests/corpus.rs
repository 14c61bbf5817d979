//! Real and hostile mail is taken apart and comes back bit by bit.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use common::{job_keys, noise, pool};
use futures::TryStreamExt as _;
use holdfast_repository::{
    ContentSource, EntryFlags, EntryKind, FolderKey, ItemFields, ItemKey, MemoryStore, SnapshotWriter,
    TreeReader, WriterOptions,
};

fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, into) } else { into.push(path) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_of_the_corpus_comes_back_bit_by_bit() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus");
    if !folder.is_dir() {
        println!("skipped: there is no folder of mail at {}", folder.display());
        return;
    }
    let mut paths = Vec::new();
    files(&folder, &mut paths);
    paths.sort();
    assert!(!paths.is_empty());
    // As they are, and each attached to a message that is attached to another.
    let plain = paths.iter().map(|path| std::fs::read(path).unwrap());
    let attached =
        plain.clone().map(|bytes| common::mime(&common::mime(&[&bytes[..], &noise(1, 9_000)].concat())));
    let messages: Vec<Vec<u8>> = plain.chain(attached).collect();

    let (store, keys) = (Arc::new(MemoryStore::new()), Arc::new(job_keys(1)));
    let writer = SnapshotWriter::create(store.clone(), keys.clone(), pool(), WriterOptions::default(), None);
    let mut n_recipes = 0;
    for (n, message) in messages.iter().enumerate() {
        let mut mime = writer.mime();
        for piece in message.chunks(1_000 + n) {
            mime.push(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        let draft = mime.finish().await.unwrap().expect("no message needs the fallback");
        n_recipes += usize::from(draft.is_recipe());
        let fields = ItemFields {
            kind: EntryKind::MailMessage,
            flags: EntryFlags::default(),
            change: [0; 16],
            size: 0,
            parent: FolderKey([1; 16]),
            sort: 0,
        };
        let contents = ContentSource::New(vec![draft]);
        writer.put_item(ItemKey(n.to_be_bytes().to_vec()), fields, Bytes::new(), contents).await.unwrap();
    }
    let reader = TreeReader::new(store, &keys, writer.merge().await.unwrap());
    for (n, message) in messages.iter().enumerate() {
        let entry = reader.item(&ItemKey(n.to_be_bytes().to_vec())).await.unwrap().unwrap();
        let part = reader.content(&entry).await.unwrap().remove(0);
        let pieces: Vec<Bytes> = reader.read(&part).try_collect().await.unwrap();
        let name = paths[n % paths.len()].display();
        assert_eq!(part.len, message.len() as u64, "{name}");
        assert!(pieces.concat() == *message, "{name} came back otherwise");
        let (from, to) = (message.len() / 3, message.len() / 2);
        let range = reader.read_range(&part, from as u64, (to - from) as u64).await.unwrap();
        assert!(range == message[from..to], "a range of {name} came back otherwise");
    }
    println!("{} messages, {n_recipes} of them with a recipe", messages.len());
    assert!(n_recipes >= paths.len());
}
