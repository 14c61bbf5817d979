//! What a restore would do: counts what was selected, and forecasts it.

use std::collections::BTreeSet;

use futures::TryStreamExt as _;
use holdfast_model::{Workload, asks_for_recoverable};
use holdfast_proto::coordinator::RestorePlan;
use holdfast_repository::{EntryFlags, EntryKind, ItemEntry, ItemKey, SnapshotReader};

use super::{
    OperatorService,
    browse::no_such_path,
    folders::{Folders, key_of},
    forecast::Counted,
};
use crate::{
    catalog::{audit::Actor, snapshot::SnapshotRow},
    error::Error,
};

impl Counted {
    fn add(&mut self, item: &ItemEntry) {
        if item.kind.is_container() {
            self.add_folder(item.kind);
            return;
        }
        self.items += 1;
        self.bytes += item.size;
        self.with_attachments += u64::from(item.flags.contains(EntryFlags::HAS_ATTACHMENTS));
        if item.kind == EntryKind::DriveFile {
            self.file_pieces += Self::pieces_of(item.size);
        }
    }

    /// A folder of a drive is an item of its own; the size that Microsoft gives it is that of what is in it.
    fn add_folder(&mut self, kind: EntryKind) {
        match kind {
            EntryKind::DriveFolder => self.items += 1,
            _ => self.folders += 1,
        }
    }
}

impl OperatorService {
    pub(super) async fn plan(
        &self,
        actor: &Actor,
        snapshot: &SnapshotRow,
        paths: &[String],
    ) -> Result<RestorePlan, Error> {
        let reader = self.open_snapshot(actor, "restore.plan", snapshot).await?;
        let counted = match paths {
            [] => count_all(&reader, snapshot.workload).await?,
            paths => count(&reader, paths).await?,
        };
        Ok(counted.plan(snapshot.workload, &self.core.options.quota))
    }
}

/// Counts everything but what does not come back with everything.
async fn count_all(reader: &SnapshotReader, workload: Workload) -> Result<Counted, Error> {
    let left_out = match workload {
        Workload::Mail => Folders::read(reader).await?.recoverable(),
        Workload::Calendar | Workload::Contacts | Workload::Tasks | Workload::OneDrive => BTreeSet::new(),
    };
    let mut counted = Counted::default();
    let mut items = reader.items();
    while let Some((key, item)) = items.try_next().await? {
        let is_left_out = if item.kind.is_container() {
            left_out.contains(&key_of(&key))
        } else {
            left_out.contains(&item.parent)
        };
        if !is_left_out {
            counted.add(&item);
        }
    }
    Ok(counted)
}

/// Counts folders with all below them, and single items that are in none of them.
async fn count(reader: &SnapshotReader, paths: &[String]) -> Result<Counted, Error> {
    let all = Folders::read(reader).await?;
    let (mut folders, mut single) = (BTreeSet::new(), BTreeSet::new());
    for path in paths {
        let under = all.under(path);
        if under.is_empty() {
            single.insert(ItemKey(path.clone().into_bytes()));
        } else {
            folders.extend(under);
        }
    }
    if !asks_for_recoverable(paths) {
        let left_out = all.recoverable();
        folders.retain(|folder| !left_out.contains(folder));
    }
    let mut counted = Counted::default();
    for folder in all.all.iter().filter(|folder| folders.contains(&folder.key)) {
        counted.add_folder(folder.kind);
        let mut children = reader.children(folder.key);
        while let Some(child) = children.try_next().await? {
            if !child.kind.is_container()
                && let Some(item) = reader.item(&child.key).await?
            {
                counted.add(&item);
            }
        }
    }
    for key in single {
        let item = reader.item(&key).await?;
        let item = item.ok_or_else(|| no_such_path(&String::from_utf8_lossy(&key.0)))?;
        if !folders.contains(&item.parent) {
            counted.add(&item);
        }
    }
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use holdfast_graph_client::RECOVERABLE_ITEMS;
    use holdfast_repository::{BlobRef, ContentHash, FolderKey};

    use super::{
        super::made_snapshot::{Made, made_snapshot},
        *,
    };

    fn item(kind: EntryKind, size: u64, flags: EntryFlags) -> ItemEntry {
        let meta = BlobRef { h: ContentHash::from_bytes([0; 32]), offset: 0, len: 1 };
        let (change, parent) = ([0; 16], FolderKey([0; 16]));
        ItemEntry { kind, flags, change, size, parent, sort: 0, meta, content: None }
    }

    #[test]
    fn folders_of_a_drive_are_items_without_bytes_and_other_folders_are_none() {
        let mut counted = Counted::default();
        counted.add(&item(EntryKind::DriveFolder, 500, EntryFlags::default()));
        counted.add(&item(EntryKind::DriveFile, 25 << 20, EntryFlags::default()));
        counted.add(&item(EntryKind::Folder, 0, EntryFlags::default()));
        counted.add(&item(EntryKind::Task, 7, EntryFlags::HAS_ATTACHMENTS));
        let bytes = (25 << 20) + 7;
        let expected = Counted { items: 3, bytes, with_attachments: 1, folders: 1, file_pieces: 3 };
        assert_eq!(counted, expected);
    }

    #[tokio::test]
    async fn what_was_deleted_is_planned_only_where_it_is_named() {
        let snapshot = made_snapshot(&[
            Made::folder("root", None),
            Made::folder("Inbox", Some("root")),
            Made::message("m1", "Inbox"),
            Made::folder("Recoverable Items", Some("root")),
            Made {
                well_known: Some(RECOVERABLE_ITEMS),
                ..Made::folder("Deletions", Some("Recoverable Items"))
            },
            Made::message("m2", "Deletions"),
            Made::message("m3", "Deletions"),
        ])
        .await;
        let everything = count_all(&snapshot, Workload::Mail).await.unwrap();
        assert_eq!((everything.items, everything.folders), (1, 3));
        for (path, n) in [("/", 1), ("/Inbox", 1), ("/recoverable items", 2), ("Deletions", 2), ("m3", 1)] {
            let counted = count(&snapshot, &[path.to_owned()]).await.unwrap();
            assert_eq!(counted.items, n, "{path}");
        }
    }
}
