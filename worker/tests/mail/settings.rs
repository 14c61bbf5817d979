//! What a mailbox does by itself, and what is outside its visible tree.

use std::collections::BTreeMap;

use holdfast_graph_sim::{Population, SimApp, SimOptions, differences_of};
use holdfast_model::{ConflictPolicy, ExportFormat};
use holdfast_repository::ItemKey;
use holdfast_worker::{
    backup::Progress,
    restore::Restored,
    verify::VerifyJob,
    workload::snapshot_folders::{SnapshotFolder, SnapshotFolders},
};
use serde_json::{Value, json};

use crate::harness::{READ_AHEAD_BYTES, World, failures};

const N_CATEGORIES: u64 = 5;
const N_SEARCH_FOLDERS: u64 = 4;
const N_RECOVERABLE: u64 = 3;
/// Of eight: one is read-only, one has lost its folder.
const N_RULES_THAT_COME_BACK: u64 = 6;

fn a_mailbox_with_settings() -> SimOptions {
    let population = Population {
        users: 2,
        messages_per_user: 12,
        total_bytes: 500_000,
        max_message_bytes: 100_000,
        inbox_rules_per_user: 8,
        categories_per_user: N_CATEGORIES as u32,
        search_folders_per_user: N_SEARCH_FOLDERS as u32,
        recoverable_messages_per_user: N_RECOVERABLE as u32,
        ..Population::default()
    };
    let openapi = std::env::var_os("HOLDFAST_OPENAPI").map(Into::into);
    SimOptions { population, openapi, ..SimOptions::default() }
}

impl World {
    async fn with_settings() -> Self {
        Self::with(a_mailbox_with_settings()).await
    }

    async fn settings_truth(&self) -> Vec<Value> {
        self.sim.truth_of("mailbox-settings", &self.user.id).await.unwrap()
    }

    async fn wipe_all(&self) {
        self.control("wipe", json!({"user": self.user.id})).await;
    }

    /// What the newest snapshot has beside folders and messages, by path.
    async fn definitions(&self) -> BTreeMap<String, (SnapshotFolder, Value)> {
        let reader = self.reader().await;
        let folders = SnapshotFolders::read(&reader).await.unwrap();
        let mut all = BTreeMap::new();
        for folder in folders.all().iter().filter(|folder| folder.is_definition()) {
            let entry = reader.item(&ItemKey(folder.id.clone().into_bytes())).await.unwrap().unwrap();
            let meta = serde_json::from_slice(&reader.meta(&entry).await.unwrap()).unwrap();
            all.insert(folder.path.clone(), (folder.clone(), meta));
        }
        all
    }

    /// Compares what is stored with what the mailbox has, property by property; folders of rules are compared by a restore.
    async fn check_definitions(&self) {
        let (stored, truth) = (self.definitions().await, self.settings_truth().await);
        assert_eq!(stored.len(), truth.len());
        for one in truth {
            let name = one["displayName"].as_str().unwrap_or_default();
            let (path, properties): (_, &[&str]) = match one["kind"].as_str().unwrap() {
                "rule" => (
                    format!("/Settings/Rules/{name}"),
                    &["displayName", "sequence", "isEnabled", "isReadOnly", "conditions", "exceptions"],
                ),
                "category" => (format!("/Settings/Categories/{name}"), &["displayName", "color"]),
                "searchFolder" => {
                    let path = one["identity"].as_str().unwrap().trim_start_matches("search ");
                    (path.replace("/Finder/", "/Search Folders/"), &["includeNestedFolders", "filterQuery"])
                }
                _ => {
                    ("/Settings/Mailbox".to_owned(), &["timeZone", "language", "workingHours", "dateFormat"])
                }
            };
            let (_, meta) = stored.get(&path).unwrap_or_else(|| panic!("{path} is not stored"));
            let meta = meta.get("mailboxSettings").unwrap_or(meta);
            for property in properties {
                assert_eq!(meta[property], one[property], "{property} of {path}");
            }
        }
    }

    fn assert_nothing_was_sent(&self) {
        let counters = self.counters();
        assert_eq!(counters.would_have_sent_mail, 0, "{:?}", counters.would_have_sent);
        assert_eq!(counters.openapi_violations, Vec::<String>::new());
    }

    /// Everything, and what only comes back where it is named.
    async fn restore_with_settings(&self, key: &str, conflict: ConflictPolicy) -> [Restored; 2] {
        let everything = self.restore_paths(&[], (key, "", conflict)).await.unwrap();
        let named = self.restore_paths(&["/Settings/Mailbox"], (key, "", conflict)).await.unwrap();
        [everything, named]
    }
}

/// The truth after a restore: what cannot be made is not there, and what would send mail is off.
fn restorable(truth: &[Value]) -> Vec<Value> {
    let is_lost = |one: &Value| one["actions"].get("moveToFolder").is_some_and(Value::is_null);
    let kept = truth.iter().filter(|one| one["isReadOnly"] != true && !is_lost(one));
    let quiet = |one: &Value| {
        let mut one = one.clone();
        if one["actions"].get("forwardTo").is_some() {
            one["isEnabled"] = json!(false);
        }
        if one["kind"] == "settings" {
            one["automaticRepliesSetting"]["status"] = json!("disabled");
        }
        one
    };
    kept.map(quiet).collect()
}

fn codes(restored: &Restored) -> Vec<&str> {
    let mut codes: Vec<&str> = restored.failed.iter().map(|failed| failed.code.as_str()).collect();
    codes.sort_unstable();
    codes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_mailbox_does_by_itself_comes_back_property_by_property_and_once() {
    let mut world = World::with_settings().await;
    assert_eq!(failures(&world.back_up().await.account), 0);
    world.check_definitions().await;
    let before = restorable(&world.settings_truth().await);
    let n_messages = world.truth().await.len() as u64 - N_RECOVERABLE;
    let n = n_messages + N_CATEGORIES + N_SEARCH_FOLDERS + N_RULES_THAT_COME_BACK;
    let other = world.sim.users().into_iter().nth(1).unwrap();
    let first = world.user.clone();
    for (round, user) in [first, other].into_iter().enumerate() {
        world.user = user;
        world.wipe_all().await;
        let [all, named] = world.restore_with_settings(&format!("{round} a"), ConflictPolicy::Skip).await;
        assert_eq!(codes(&all), ["ReadOnlyRule", "RestoredDisabled", "RuleFolderGone"]);
        let account = &all.account;
        assert_eq!((account.stored, account.incomplete, account.skipped), (n, 1, 1), "{account:?}");
        assert_eq!((account.failed_permanent, account.adds_up()), (1, true));
        assert_eq!((codes(&named), named.account.stored), (vec!["AutomaticRepliesOff"], 1));
        assert_eq!(differences_of(&before, &world.settings_truth().await), Vec::<String>::new());

        // The same restore again, another one beside it, and one that replaces.
        for (key, conflict) in
            [("a", ConflictPolicy::Rename), ("b", ConflictPolicy::Skip), ("c", ConflictPolicy::Replace)]
        {
            let [all, _] = world.restore_with_settings(&format!("{round} {key}"), conflict).await;
            assert_eq!(all.account.failed_permanent, 1, "{key}: {:?}", all.failed);
            let stored = if conflict == ConflictPolicy::Replace { n_messages + N_SEARCH_FOLDERS } else { 0 };
            assert_eq!(all.account.stored, stored, "{key}: {:?}", all.account);
            assert_eq!(differences_of(&before, &world.settings_truth().await), Vec::<String>::new());
        }
    }
    world.assert_nothing_was_sent();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_meanwhile_is_left_or_replaced_or_restored_beside() {
    let mut world = World::with_settings().await;
    world.back_up().await;
    let before = restorable(&world.settings_truth().await);
    world.wipe_all().await;
    world.restore_with_settings("a", ConflictPolicy::Skip).await;
    let user = world.user.clone();
    let changes = json!({"seed": 3, "users": [user.id], "workload": "mailbox-settings", "new": 0, "edited": 1,
        "moved": 0, "deleted": 0, "flags": 0});
    world.control("evolve", changes).await;
    let graph = world.graph();
    let search = graph.search_folders(&user.id).await.unwrap();
    let edit = json!({"@odata.type": "#microsoft.graph.mailSearchFolder", "filterQuery": "isDraft eq true"});
    graph.change_search_folder(&user.id, &search[0].id, &edit).await.unwrap();
    let changed = world.settings_truth().await;
    assert!(differences_of(&before, &changed).len() >= 3);

    world.restore_with_settings("b", ConflictPolicy::Skip).await;
    assert_eq!(differences_of(&changed, &world.settings_truth().await), Vec::<String>::new());
    for _ in 0..2 {
        world.restore_paths(&["/Settings/Rules"], ("c", "", ConflictPolicy::Rename)).await.unwrap();
        let beside = world.settings_truth().await;
        assert_eq!(differences_of(&changed, &beside), ["rule Rule 6 (restored): 1 too many"], "once");
    }
    world.restore_with_settings("d", ConflictPolicy::Replace).await;
    let mut found = differences_of(&before, &world.settings_truth().await);
    found.retain(|difference| !difference.ends_with("(restored): 1 too many"));
    assert_eq!(found, Vec::<String>::new());
    world.assert_nothing_was_sent();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_untouched_mailbox_costs_five_calls_beside_its_deltas_and_leaves_the_roots_alone() {
    let mut world = World::with_settings().await;
    world.back_up().await;
    let (roots, before) = (world.reader().await.header().roots, world.requests());
    let n_folders = world.reader().await.header().state.clone();
    let n_folders = serde_json::from_slice::<Value>(&n_folders).unwrap()["folders"]
        .as_object()
        .unwrap()
        .values()
        .filter(|folder| folder["link"] != "")
        .count() as u64;
    world.time.days_pass(1);
    let second = world.back_up().await;
    assert_eq!((second.account.listed, second.failed.len()), (0, 0));
    assert_eq!(
        world.reader().await.header().roots,
        roots,
        "the hour that automatic replies show is no change"
    );
    let mut spent = world.requests();
    for (kind, n) in before {
        *spent.get_mut(&kind).unwrap() -= n;
    }
    spent.retain(|_, n| *n > 0);
    let expected = [
        ("category_list", 1),
        ("folder_delta", 1),
        ("folder_list", 2),
        ("mailbox_settings_get", 1),
        ("message_delta", n_folders),
        ("rule_list", 1),
    ];
    assert_eq!(spent, expected.map(|(kind, n)| (kind.to_owned(), n)).into());

    let changes = json!({"seed": 3, "users": [world.user.id], "workload": "mailbox-settings", "new": 2,
        "edited": 1, "moved": 0, "deleted": 1, "flags": 1});
    world.control("evolve", changes).await;
    world.back_up().await;
    world.check_definitions().await;
    assert_ne!(world.reader().await.header().roots, roots);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_without_the_right_backs_up_the_rest_and_says_so_once() {
    let roles = vec!["Mail.ReadWrite".to_owned(), "User.Read.All".to_owned()];
    let apps = vec![SimApp { roles, ..SimApp::default() }];
    let mut world = World::with(SimOptions { apps, ..a_mailbox_with_settings() }).await;
    world.control("options", json!({"recoverable-items": false})).await;
    for _ in 0..2 {
        let finished = world.back_up().await;
        assert!(!finished.account.has_exceptions(), "{:?}", finished.account);
        let mut paths: Vec<&str> = finished.failed.iter().map(|failed| failed.path.as_str()).collect();
        paths.sort_unstable();
        let expected = ["/Recoverable Items", "/Settings/Categories", "/Settings/Mailbox", "/Settings/Rules"];
        assert_eq!(paths, expected);
        assert!(finished.failed.iter().all(|failed| failed.code == "NotReadable:ErrorAccessDenied"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_be_recovered_is_kept_when_it_is_not_shown_any_more_and_comes_back_where_it_is_named() {
    let mut world = World::with_settings().await;
    world.options.flags_every = 1;
    world.back_up().await;
    world.check_snapshot().await;
    let n = world.base.as_ref().unwrap().items;
    world.control("options", json!({"recoverable-items": false})).await;
    for _ in 0..2 {
        let finished = world.back_up().await;
        assert_eq!((finished.pin.items, finished.account.removed), (n, 0));
        assert_eq!((finished.failed.len(), finished.account.has_exceptions()), (1, false));
    }
    world.control("options", json!({"recoverable-items": true})).await;
    let finished = world.back_up().await;
    assert_eq!((finished.pin.items, finished.failed.len()), (n, 0));
    world.check_snapshot().await;

    world.wipe_all().await;
    let restored = world.restore("a", "", ConflictPolicy::Skip).await;
    assert_eq!(world.truth().await.len() as u64, n - N_RECOVERABLE);
    assert!(restored.account.adds_up());
    let named = world.restore_paths(&["/recoverable items"], ("b", "", ConflictPolicy::Skip)).await.unwrap();
    assert_eq!((named.account.stored, failures(&named.account)), (N_RECOVERABLE, 0));
    let folders = world.graph().mail_folders(&world.user.id, &BTreeMap::new()).await.unwrap();
    let ordinary = folders.iter().find(|folder| folder.display_name == "Deletions").unwrap();
    assert_eq!(ordinary.total_items, N_RECOVERABLE);
    world.assert_nothing_was_sent();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_a_folder_only_search_folders_come_back_and_the_rest_says_why_where_it_is_asked_for() {
    let mut world = World::with_settings().await;
    world.back_up().await;
    let before = world.settings_truth().await;
    let restored = world.restore("a", "Restored", ConflictPolicy::Skip).await;
    assert_eq!(failures(&restored.account), 0, "{:?}", restored.failed);
    let added = differences_of(&before, &world.settings_truth().await);
    assert_eq!(added.len() as u64, N_SEARCH_FOLDERS, "{added:?}");
    assert!(added.iter().all(|one| one.starts_with("search /") && one.contains("Restored")), "{added:?}");
    let named = world.restore_paths(&["/Settings"], ("b", "Restored", ConflictPolicy::Skip)).await.unwrap();
    assert!(named.failed.iter().all(|failed| failed.code == "OnlyInPlace"), "{:?}", named.failed);
    assert_eq!(named.account.failed_permanent, N_CATEGORIES + 8 + 1);
    world.assert_nothing_was_sent();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_come_back_through_faults_of_every_kind() {
    let mut world = World::with_settings().await;
    world.back_up().await;
    let before = restorable(&world.settings_truth().await);
    world.wipe_all().await;
    world
        .faults(json!({"seed": 3, "rate-503": 0.03, "rate-reset": 0.05, "rate-truncate": 0.1,
            "rate-lost-answer": 0.1}))
        .await;
    let mut is_done = false;
    for _ in 0..30 {
        let all = world.restore_paths(&[], ("a", "", ConflictPolicy::Rename)).await;
        let named = world.restore_paths(&["/Settings/Mailbox"], ("a", "", ConflictPolicy::Rename)).await;
        is_done = all.is_ok_and(|all| all.account.failed_permanent == 1) && named.is_ok();
        if is_done {
            break;
        }
    }
    assert!(is_done, "the restore ends");
    world
        .faults(json!({"rate-503": 0.0, "rate-reset": 0.0, "rate-truncate": 0.0, "rate-lost-answer": 0.0}))
        .await;
    assert_eq!(differences_of(&before, &world.settings_truth().await), Vec::<String>::new());
    world.assert_nothing_was_sent();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_proved_by_a_verify_and_exported_as_json() {
    let mut world = World::with_settings().await;
    world.back_up().await;
    let job = VerifyJob {
        pin: world.base.clone().unwrap(),
        sample_percent: 100,
        read_ahead_bytes: READ_AHEAD_BYTES,
    };
    let proved = job.run(world.store.clone(), world.keys.clone(), Progress::default().into()).await.unwrap();
    assert_eq!(proved.failed, []);

    let out = tempfile::tempdir().unwrap();
    let done = world.export(ExportFormat::Json, out.path()).await;
    let definitions = world.definitions().await;
    let n_messages = world.base.as_ref().unwrap().items;
    assert_eq!((done.account.stored, done.failed.len()), (n_messages + definitions.len() as u64, 0));
    for (path, (_, meta)) in definitions {
        let file = out.path().join(format!("{}.json", path.trim_start_matches('/')));
        let exported: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(exported, meta, "{path}");
    }
}
