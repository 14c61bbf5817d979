//! A whole coordinator over real mTLS, with two fake storage nodes and a fake Microsoft.
#![allow(clippy::unwrap_used)]

mod fake_microsoft;
mod fake_node;
mod roles;
mod searching;
mod snapshot;
mod workloads;
mod world;

use std::time::Duration;

use fake_microsoft::{ALL_ROLES, SECRET};
use futures::TryStreamExt as _;
use holdfast_coordinator::CoordinatorOptions;
use holdfast_graph_client::AccessToken;
use holdfast_model::{Fence, Generation, JobId, Sequence, Verb};
use holdfast_proto::{coordinator::*, status::ErrorCode, storage::UploadStatus};
use holdfast_record::Pin;
use holdfast_repository::JobKeys;
use snapshot::MadeSnapshot;
use tonic::Status;
use world::{World, eventually};

fn refused<T: std::fmt::Debug>(outcome: Result<T, Status>, code: ErrorCode, text: &str) {
    let status = outcome.unwrap_err();
    assert_eq!(ErrorCode::of(&status), code, "{status:?}");
    assert!(status.message().contains(text), "{}", status.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_tells_what_is_wrong_and_stores_nothing_then() {
    let world = World::start(|_| ()).await;
    let mut operator = world.operator();
    let wrong = operator.connect_tenant(world.connect_request("wrong-secret")).await;
    refused(wrong, ErrorCode::BadRequest, "(AADSTS7000215): the client secret is wrong: create a new secret");
    world.microsoft.directory.lock().unwrap().roles = vec!["User.Read.All"];
    let missing = operator.connect_tenant(world.connect_request(SECRET)).await;
    let missing = missing.unwrap_err();
    assert_eq!(ErrorCode::of(&missing), ErrorCode::Forbidden);
    for permission in ["Mail.Read (for backup)", "Mail.ReadWrite (for restore)", "Contacts.Read (for backup)"]
    {
        assert!(missing.message().contains(permission), "{}", missing.message());
    }
    assert!(operator.list_tenants(ListTenantsRequest {}).await.unwrap().into_inner().tenants.is_empty());
    let backup = StartBackupRequest { tenant: "contoso".to_owned(), ..Default::default() };
    refused(operator.start_backup(backup).await, ErrorCode::NotFound, "holdfast tenant connect");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_discovers_mailboxes_and_can_be_repeated() {
    let world = World::start(|_| ()).await;
    let mut operator = world.operator();
    let mut roles = ALL_ROLES.to_vec();
    roles[0] = "User.ReadBasic.All";
    world.microsoft.directory.lock().unwrap().roles = roles;
    for _ in 0..2 {
        let answer = world.connect().await;
        assert_eq!(answer.resources, 2, "a user without a mailbox is not a resource");
        assert!(answer.permissions.iter().all(|check| check.granted));
    }
    let request =
        ListResourcesRequest { tenant: "contoso".to_owned(), workload: "mail".to_owned(), refresh: true };
    let listed = operator.list_resources(request).await.unwrap().into_inner().resources;
    let seen: Vec<_> = listed.iter().map(|r| (r.name.as_str(), r.state.as_str())).collect();
    assert_eq!(
        seen,
        [("user:ann@contoso.test", "never backed up"), ("user:ben@contoso.test", "never backed up")]
    );
    let audit = operator.list_audit(ListAuditRequest { newest: 0 }).await.unwrap().into_inner();
    assert!(audit.chain_intact);
    let actions: Vec<_> = audit.rows.iter().map(|row| (row.action.as_str(), row.actor.as_str())).collect();
    let actor = "operator/tester";
    assert_eq!(actions, [("resources.refresh", actor), ("tenant.connect", actor), ("tenant.connect", actor)]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_get_the_layout_and_the_status_page_counts_them() {
    let world = World::start(|_| ()).await;
    let laid_out = async || world.nodes.iter().all(|node| node.state.lock().unwrap().layout_version == 1);
    eventually("both nodes have layout 1", laid_out).await;
    let status = world.operator().get_status(GetStatusRequest { failed: true }).await.unwrap().into_inner();
    assert_eq!((status.nodes_up, status.nodes, status.sites_up, status.sites), (2, 2, 2, 2));
    assert!(status.leader.starts_with("c1#"), "{}", status.leader);
    let nodes = world.operator().list_nodes(ListNodesRequest {}).await.unwrap().into_inner().nodes;
    assert!(nodes.iter().all(|node| node.state == "up" && node.partitions == 4096));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_page_and_the_nodes_tell_the_same_of_the_storage() {
    let world = World::start(|nodes| {
        nodes[0].state.lock().unwrap().repair_stopped = true;
        let uploads =
            UploadStatus { waiting_segments: 3, waiting_bytes: 9, held_segments: 1, ..Default::default() };
        let last_error_class = "damaged".to_owned();
        nodes[1].state.lock().unwrap().uploads = Some(UploadStatus { last_error_class, ..uploads });
    })
    .await;
    let laid_out = async || world.nodes.iter().all(|node| node.state.lock().unwrap().layout_version == 1);
    eventually("both nodes have layout 1", laid_out).await;
    let expected = StorageHealth { nodes_nearly_full: 1, nodes_not_uploading: 1, ..Default::default() };
    let status = world.operator().get_status(GetStatusRequest::default()).await.unwrap().into_inner();
    assert_eq!(status.storage, Some(expected));
    let answer = world.operator().list_nodes(ListNodesRequest {}).await.unwrap().into_inner();
    assert_eq!(answer.storage, Some(expected));
    let [without, with] = [0, 1].map(|n| answer.nodes[n].uploads.clone());
    assert_eq!(without, None, "a node without a bucket");
    let with = with.unwrap();
    assert_eq!((with.waiting_segments, with.waiting_bytes, with.held_segments), (3, 9, 1));
    assert_eq!(with.last_error_class, "damaged");
    assert!(answer.nodes[0].reason.contains("nearly full"), "{}", answer.nodes[0].reason);
    assert!(answer.nodes[1].reason.contains("not uploaded"), "{}", answer.nodes[1].reason);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_catalog_raises_its_generation_above_the_nodes() {
    let world = World::start(|nodes| {
        let mut state = nodes[1].state.lock().unwrap();
        (state.generation, state.epoch, state.layout_version) = (5, 3, 7);
    })
    .await;
    let followed = async || {
        world.nodes.iter().all(|node| {
            let state = node.state.lock().unwrap();
            (state.generation, state.epoch, state.layout_version) == (6, 3, 8)
        })
    };
    eventually("both nodes have generation 6, epoch 3 and layout 8", followed).await;
    assert_eq!(world.catalog().await.numbers().await.unwrap().0, Generation(6));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_holds_what_a_backup_needs_and_nothing_more() {
    let mut world = World::start(|_| ()).await;
    world.connect().await;
    let started = world.start_backup("user:ANN@contoso.test").await;
    assert_eq!(world.start_backup("user:ann@contoso.test").await, started, "the queued backup is joined");
    let lease = world.claim_next().await;
    assert_eq!(hex::encode(&lease.job), started.jobs[0]);
    assert!(world.claim(JobId::from_slice(&lease.job).unwrap()).await.is_none(), "claimed once");
    let keys = JobKeys::from_bytes(&lease.keys.unwrap().job_keys).unwrap();
    assert_eq!((&keys.tenant.0[..], &keys.resource.0[..]), (&lease.tenant[..], &lease.resource[..]));
    let claims = world.verifier.token(&lease.session_token.unwrap(), 0).unwrap();
    assert_eq!(claims.verbs, [Verb::Read, Verb::Write, Verb::Commit]);
    assert_eq!(claims.fence, Fence::from(lease.fence.unwrap()));
    let graph = lease.graph.unwrap();
    assert_eq!((graph.user_id.as_str(), graph.client_id.as_str()), ("id-ann", "app"));
    assert!(!graph.token.unwrap().access_token.contains(SECRET));
    assert_eq!(lease.layout.unwrap().owners.len(), 4096 * 2);
    assert!(
        matches!(lease.spec, Some(lease::Spec::Backup(spec)) if spec.sequence == 1 && spec.base_pin.is_empty())
    );

    let beat = |fence| HeartbeatRequest { job: lease.job.clone(), fence: Some(fence), ..Default::default() };
    let fence = lease.fence.unwrap();
    let answer = world.worker().heartbeat(beat(fence)).await.unwrap().into_inner();
    assert!(!answer.stop && answer.token.is_none(), "the first tokens are still good");
    let old = holdfast_proto::storage::Fence { attempt: fence.attempt - 1, ..fence };
    assert!(world.worker().heartbeat(beat(old)).await.unwrap().into_inner().stop);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_token_is_renewed_once_for_all_who_report_it_and_never_at_once_again() {
    let mut world = World::start(|_| ()).await;
    world.connect().await;
    let mut leases = Vec::new();
    for user in ["user:ann@contoso.test", "user:ben@contoso.test"] {
        world.start_backup(user).await;
        leases.push(world.claim_next().await);
    }
    let token_of = |lease: &Lease| lease.graph.clone().unwrap().token.unwrap().access_token;
    let first = token_of(&leases[0]);
    assert_eq!(token_of(&leases[1]), first);
    let requested = || world.microsoft.directory.lock().unwrap().token_requests.clone();
    let before = requested().len();

    let report = async |lease: &Lease, token: &str, claims: &str| {
        let fingerprint = AccessToken::new(token.to_owned(), 0).fingerprint().0.to_vec().into();
        let request = HeartbeatRequest {
            job: lease.job.clone(),
            fence: lease.fence,
            rejected: Some(RejectedToken { fingerprint, claims: claims.to_owned() }),
            ..Default::default()
        };
        let answer = world.worker().heartbeat(request).await.unwrap().into_inner();
        assert!(!answer.stop);
        answer.token.map(|token| token.access_token)
    };
    let claims = r#"{"access_token":{"nbf":{"essential":true,"value":"1"}}}"#;
    let mut second = None;
    eventually("a new token comes", async || {
        second = report(&leases[0], &first, claims).await;
        let _still_claimed = report(&leases[1], "somebody else's", "").await;
        second.is_some()
    })
    .await;
    let second = second.unwrap();
    assert_ne!(second, first);
    assert_eq!(
        report(&leases[1], &first, "").await,
        Some(second.clone()),
        "it is given to the other one too"
    );
    assert_eq!(report(&leases[1], &second, "").await, None, "it is too young");
    let sent = requested().split_off(before);
    assert!(sent.len() <= 2 && sent.iter().any(|sent| sent == claims), "{sent:?}");

    let bad = HeartbeatRequest {
        job: leases[0].job.clone(),
        fence: leases[0].fence,
        rejected: Some(RejectedToken::default()),
        ..Default::default()
    };
    refused(world.worker().heartbeat(bad).await, ErrorCode::BadRequest, "rejected.fingerprint");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_starts_while_redis_is_away() {
    // Nobody listens on port 1.
    let away = |options: &mut CoordinatorOptions| options.redis_url = Some("redis://127.0.0.1:1/".to_owned());
    let mut world = World::start_with(|_| (), away).await;
    assert_eq!(world.connect().await.resources, 2, "discovery lives on the fallback's share");
    world.start_backup("user:ann@contoso.test").await;
    assert!(world.claim_next().await.graph.is_some());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_answering_loses_the_job_to_the_next() {
    let mut world = World::start(|_| ()).await;
    world.connect().await;
    world.start_backup("user:ann@contoso.test").await;
    let first = world.claim_next().await;
    let second = world.claim_next().await;
    assert_eq!(second.job, first.job);
    assert!(second.fence.unwrap().attempt > first.fence.unwrap().attempt);
    assert_eq!(second.attempt_number, 2);
    let release = ReleaseJobRequest {
        job: first.job.clone(),
        fence: first.fence,
        reason: ReleaseReason::Permanent.into(),
        ..Default::default()
    };
    refused(world.worker().release_job(release).await, ErrorCode::Fenced, "drop the job");
    world.stop().await;
}

async fn prepared(world: &World, lease: &Lease, pin: &Pin) {
    let request = PrepareCommitRequest {
        job: lease.job.clone(),
        fence: lease.fence,
        pin: pin.encode(),
        account: Some(Account { listed: 3, stored: 3, ..Default::default() }),
        failed: vec![],
    };
    let ticket = world.worker().prepare_commit(request).await.unwrap().into_inner().ticket.unwrap();
    assert_eq!(world.verifier.ticket(&ticket).unwrap().pin_hash, pin.hash());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_worker_vanished_is_finished() {
    let mut world = World::start(|_| ()).await;
    world.connect().await;
    world.start_backup("user:ann@contoso.test").await;
    let lease = world.claim_next().await;
    let made = MadeSnapshot::of(&lease, 0).await;
    prepared(&world, &lease, &made.pin).await;
    eventually("the job is done", async || world.job(&lease.job).await.state == "done").await;
    assert!(world.nodes.iter().all(|node| node.state.lock().unwrap().pins[&1] == made.pin.encode()));
    assert_eq!(world.job(&lease.job).await.snapshot, made.pin.snapshot.to_string());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_that_a_majority_holds_is_recorded_even_if_no_answer_came() {
    let mut world = World::start(|_| ()).await;
    world.connect().await;
    world.start_backup("user:ann@contoso.test").await;
    let lease = world.claim_next().await;
    let made = MadeSnapshot::of(&lease, 0).await;
    for node in &world.nodes {
        let mut state = node.state.lock().unwrap();
        state.pins.insert(1, made.pin.encode());
        state.refuses_pins = true;
    }
    prepared(&world, &lease, &made.pin).await;
    eventually("the job is done", async || world.job(&lease.job).await.state == "done").await;
    let raised = world.nodes[0].state.lock().unwrap().highest;
    assert!(raised > made.pin.fence, "a higher fence went first");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_no_majority_holds_is_void_and_tried_again_behind_a_higher_fence() {
    let mut world = World::start(|_| ()).await;
    world.connect().await;
    world.start_backup("user:ann@contoso.test").await;
    let lease = world.claim_next().await;
    for node in &world.nodes {
        node.state.lock().unwrap().refuses_pins = true;
    }
    let made = MadeSnapshot::of(&lease, 0).await;
    world.nodes[0].state.lock().unwrap().pins.insert(1, made.pin.encode());
    prepared(&world, &lease, &made.pin).await;
    let again = world.claim_next().await;
    assert_eq!(again.job, lease.job);
    let raised = world.nodes[0].state.lock().unwrap().highest;
    let (old, new) = (made.pin.fence, Fence::from(again.fence.unwrap()));
    assert!(old < raised && raised < new, "{old} < {raised} < {new}");
    for node in &world.nodes {
        node.state.lock().unwrap().refuses_pins = false;
    }
    let second = MadeSnapshot::of(&again, 1).await;
    assert_eq!(second.pin.sequence, Sequence(2), "the void pin blocks its sequence on the owner that has it");
    prepared(&world, &again, &second.pin).await;
    eventually("the job is done", async || world.job(&lease.job).await.state == "done").await;
    let record = RecordCommitRequest {
        job: lease.job,
        fence: lease.fence,
        pin_hash: made.pin.hash().0.to_vec().into(),
    };
    refused(world.worker().record_commit(record).await, ErrorCode::Fenced, "drop the job");
    world.stop().await;
}

/// Two snapshots of one mailbox, as round 0 and 1 of [`MadeSnapshot`].
async fn backed_up_twice(world: &mut World) -> Vec<String> {
    world.connect().await;
    let mut made = Vec::new();
    for round in 0..2 {
        world.start_backup("user:ann@contoso.test").await;
        let lease = world.claim_next().await;
        let snapshot = MadeSnapshot::of(&lease, round).await;
        snapshot.copy_to(&world.nodes);
        prepared(world, &lease, &snapshot.pin).await;
        eventually("the job is done", async || world.job(&lease.job).await.state == "done").await;
        made.push(snapshot.pin.snapshot.to_string());
    }
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_browsed_folder_by_folder_and_page_by_page() {
    let mut world = World::start(|_| ()).await;
    let made = backed_up_twice(&mut world).await;
    let mut operator = world.operator();
    let browse = |path: &str, token: &str| BrowseRequest {
        snapshot: made[0].clone(),
        path: path.to_owned(),
        limit: 2,
        page_token: token.to_owned(),
    };
    let names = |page: &BrowseResponse| page.entries.iter().map(|e| e.name.clone()).collect::<Vec<_>>();
    let root = operator.browse(browse("", "")).await.unwrap().into_inner();
    assert_eq!((names(&root), root.entries[0].kind.as_str()), (vec!["Inbox".to_owned()], "folder"));
    let first = operator.browse(browse("/inbox", "")).await.unwrap().into_inner();
    assert_eq!(names(&first), ["Projects", "subject 1"]);
    assert_eq!((first.entries[1].who.as_str(), first.entries[1].time_ms), ("from@x.test", 1_700_000_000_000));
    let rest = operator.browse(browse("/Inbox", &first.next_page_token)).await.unwrap().into_inner();
    assert_eq!((names(&rest), rest.next_page_token.as_str()), (vec!["subject 2".to_owned()], ""));
    refused(operator.browse(browse("/Nowhere", "")).await, ErrorCode::NotFound, "holdfast browse");
    let foreign = operator.browse(browse("/Inbox/Projects", &first.next_page_token)).await;
    refused(foreign, ErrorCode::BadRequest, "folder");
    let audit = operator.list_audit(ListAuditRequest { newest: 100 }).await.unwrap().into_inner();
    let browsed = audit.rows.iter().filter(|row| row.action == "snapshot.browse").count();
    assert_eq!((audit.chain_intact, browsed), (true, 5), "every use of the key is on record");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_snapshots_are_compared_and_their_copies_counted() {
    let mut world = World::start(|_| ()).await;
    let made = backed_up_twice(&mut world).await;
    let mut operator = world.operator();
    world.nodes[0].state.lock().unwrap().hides_pins = true;
    let request = ListSnapshotsRequest { tenant: "contoso".to_owned(), ..Default::default() };
    let listed = operator.list_snapshots(request).await.unwrap().into_inner().snapshots;
    let seen: Vec<_> = listed.iter().map(|s| (s.sequence, s.copies, s.items)).collect();
    assert_eq!(seen, [(2, 1, 3), (1, 1, 3)], "only what answers is counted");
    let request = DiffRequest { a: made[0].clone(), b: made[1].clone() };
    let changes: Vec<DiffResponse> =
        operator.diff(request).await.unwrap().into_inner().try_collect().await.unwrap();
    let row = |change: &DiffResponse| {
        let id = change.entry.as_ref().unwrap().id.clone();
        (change.change.clone(), id, change.path.clone())
    };
    let expected =
        [("moved", "m1", "/Inbox/Projects"), ("removed", "m2", "/Inbox"), ("added", "m9", "/Inbox")];
    let expected = expected.map(|(change, id, path)| (change.to_owned(), id.to_owned(), path.to_owned()));
    assert_eq!(changes.iter().map(row).collect::<Vec<_>>(), expected);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_is_planned_and_its_lease_only_reads_storage() {
    let mut world = World::start(|_| ()).await;
    let made = backed_up_twice(&mut world).await;
    let mut operator = world.operator();
    let restore = |plan: bool, to: &str, paths: &[&str]| StartRestoreRequest {
        snapshot: made[0].clone(),
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        to: to.to_owned(),
        into: String::new(),
        conflict: String::new(),
        plan,
    };
    let plan = operator.start_restore(restore(true, "", &[])).await.unwrap().into_inner().plan.unwrap();
    assert_eq!((plan.items, plan.bytes), (3, 303));
    let plan =
        operator.start_restore(restore(true, "", &["/Inbox/Projects", "m1"])).await.unwrap().into_inner();
    assert_eq!((plan.plan.unwrap().items, plan.jobs.len()), (2, 0));
    refused(
        operator.start_restore(restore(true, "", &["/No"])).await,
        ErrorCode::NotFound,
        "holdfast browse",
    );
    refused(
        operator.start_restore(restore(false, "user:nobody", &[])).await,
        ErrorCode::NotFound,
        "resources contoso",
    );
    let started =
        operator.start_restore(restore(false, "user:ben@contoso.test", &[])).await.unwrap().into_inner();
    let lease = world.claim_next().await;
    assert_eq!(hex::encode(&lease.job), started.jobs[0]);
    assert_eq!(lease.graph.unwrap().user_id, "id-ben");
    let claims = world.verifier.token(&lease.session_token.unwrap(), 0).unwrap();
    assert_eq!(claims.verbs, [Verb::Read], "a restore cannot write to storage");
    let account = Some(Account { listed: 3, stored: 3, ..Default::default() });
    let finish =
        FinishJobRequest { job: lease.job.clone(), fence: lease.fence, account, ..Default::default() };
    world.worker().finish_job(finish).await.unwrap();
    let run = operator.get_run(GetRunRequest { run: started.run }).await.unwrap().into_inner();
    assert_eq!(
        (run.jobs[0].state.as_str(), run.jobs[0].resource.as_str()),
        ("done", "user:ann@contoso.test")
    );
    let verify = StartVerifyRequest { snapshot: String::new(), sample_percent: 0 };
    assert_eq!(operator.start_verify(verify).await.unwrap().into_inner().jobs.len(), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_coordinator_goes_on_where_the_leader_stopped() {
    let mut world = World::start(|_| ()).await;
    world.connect().await;
    world.start_backup("user:ann@contoso.test").await;
    let lease = world.claim_next().await;
    world.add_coordinator("c2").await;
    let status = world.operator().get_status(GetStatusRequest::default()).await.unwrap().into_inner();
    assert!(status.leader.starts_with("c1#"), "the second one serves and does not decide");
    world.stop_first_coordinator().await;
    let beat = HeartbeatRequest { job: lease.job.clone(), fence: lease.fence, ..Default::default() };
    let answer = world.worker().heartbeat(beat).await.unwrap().into_inner();
    assert!(!answer.stop);
    assert!(answer.token.is_some() && answer.session_token.is_some(), "it cannot know what the worker has");
    let leads = async || {
        let status = world.operator().get_status(GetStatusRequest::default()).await.unwrap().into_inner();
        status.leader.starts_with("c2#")
    };
    eventually("the second coordinator leads", leads).await;
    let made = MadeSnapshot::of(&lease, 0).await;
    prepared(&world, &lease, &made.pin).await;
    eventually("the job is done", async || world.job(&lease.job).await.state == "done").await;
    world.start_backup("user:ben@contoso.test").await;
    assert_eq!(world.claim_next().await.graph.unwrap().user_id, "id-ben", "and jobs go out");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_lease_cannot_be_made_says_why() {
    let mut world = World::start(|_| ()).await;
    world.connect().await;
    let catalog = world.catalog().await;
    let tenant = catalog.tenant_by_name("contoso").await.unwrap();
    // A credential that another key file sealed.
    let broken =
        holdfast_coordinator::catalog::tenant::TenantRow { backup_secret: vec![9; 60], ..tenant.clone() };
    let actor = holdfast_coordinator::catalog::audit::Actor("test".to_owned());
    catalog.put_tenant(&actor, &broken).await.unwrap();
    let started = world.start_backup("user:ann@contoso.test").await;
    let job = hex::decode(&started.jobs[0]).unwrap();
    let parked = async || {
        let claim = tokio::time::timeout(Duration::from_millis(300), world.claim_next()).await;
        assert!(claim.is_err(), "no lease without a token");
        world.job(&job).await.state == "parked"
    };
    eventually("the job is parked", parked).await;
    let row = world.job(&job).await;
    assert_eq!(row.code, "LeaseRefused");
    assert!(row.message.contains("key"), "{}", row.message);
    world.stop().await;
}
