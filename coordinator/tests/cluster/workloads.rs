//! A person has several workloads, and a worker speaks for its own jobs only.

use holdfast_model::Workload;
use holdfast_proto::{coordinator::*, status::ErrorCode};

use crate::{
    refused,
    snapshot::MadeSnapshot,
    world::{World, eventually},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_of_every_workload_of_a_person_and_the_status_counts_each() {
    let world = World::start(|_| ()).await;
    world.connect().await;
    let mut operator = world.operator();
    let everything = StartBackupRequest { tenant: "contoso".to_owned(), ..Default::default() };
    let started = operator.start_backup(everything).await.unwrap().into_inner();
    assert_eq!(started.jobs.len(), 2 * Workload::OF_A_USER.len());
    let jobs = operator.get_run(GetRunRequest { run: started.run }).await.unwrap().into_inner().jobs;
    for workload in Workload::OF_A_USER {
        assert_eq!(jobs.iter().filter(|job| job.workload == workload.as_str()).count(), 2, "{workload}");
    }
    let unknown = StartBackupRequest {
        tenant: "contoso".to_owned(),
        workloads: vec!["teams".to_owned()],
        ..Default::default()
    };
    refused(operator.start_backup(unknown).await, ErrorCode::BadRequest, "this version backs up mail, ");
    let status = operator.get_status(GetStatusRequest::default()).await.unwrap().into_inner();
    let tenant = &status.tenants[0];
    assert_eq!((tenant.resources, tenant.protected, tenant.never_backed_up), (2, 0, 2));
    let seen: Vec<_> = tenant.workloads.iter().map(|w| (w.workload.as_str(), w.never_backed_up)).collect();
    let expected: Vec<_> = Workload::OF_A_USER.iter().map(|workload| (workload.as_str(), 2)).collect();
    assert_eq!(seen, expected);
    assert_eq!(status.fresh_hours, 48);
    let [directory] = status.quota.as_slice() else { panic!("{:?}", status.quota) };
    let seen = (directory.app.as_str(), directory.scope.as_str(), directory.window.as_str());
    assert_eq!(seen, ("backup", "directory", "requests"), "what discovery asked");
    assert!(directory.used > 0 && directory.granted == 3_360, "{directory:?}");
    let resources = ListResourcesRequest { tenant: "contoso".to_owned(), ..Default::default() };
    let resources = operator.list_resources(resources).await.unwrap().into_inner().resources;
    assert_eq!(resources.len(), 2 * Workload::OF_A_USER.len());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contacts_are_browsed_planned_and_restored_like_mail() {
    let mut world = World::start(|_| ()).await;
    world.connect().await;
    let mut operator = world.operator();
    let backup = StartBackupRequest {
        tenant: "contoso".to_owned(),
        resources: vec!["user:ann@contoso.test".to_owned()],
        workloads: vec!["contacts".to_owned()],
    };
    operator.start_backup(backup).await.unwrap();
    let lease = world.claim_next().await;
    assert_eq!(lease.workload, "contacts");
    let made = MadeSnapshot::of(&lease, 0).await;
    made.copy_to(&world.nodes);
    crate::prepared(&world, &lease, &made.pin).await;
    eventually("the job is done", async || world.job(&lease.job).await.state == "done").await;
    let snapshot = made.pin.snapshot.to_string();

    let browse = |path: &str| BrowseRequest {
        snapshot: snapshot.clone(),
        path: path.to_owned(),
        ..Default::default()
    };
    let top = operator.browse(browse("")).await.unwrap().into_inner().entries;
    assert_eq!(top.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["Contacts"]);
    let book = operator.browse(browse("/contacts")).await.unwrap().into_inner().entries;
    let seen: Vec<_> = book.iter().map(|e| (e.kind.as_str(), e.name.as_str(), e.who.as_str())).collect();
    assert_eq!(seen, [("folder", "Friends", ""), ("contact", "Contact c1", "c1@x.test")]);
    assert_eq!(operator.browse(browse("c2")).await.unwrap().into_inner().entries[0].name, "Contact c2");

    let plan = async |paths: &[&str]| {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let request =
            StartRestoreRequest { snapshot: snapshot.clone(), paths, plan: true, ..Default::default() };
        let plan = world.operator().start_restore(request).await.unwrap().into_inner().plan.unwrap();
        (plan.items, plan.folders, plan.bytes)
    };
    assert_eq!(plan(&[]).await, (2, 3, 20));
    assert_eq!(plan(&["/Contacts"]).await, (2, 2, 20));
    assert_eq!(plan(&["/Contacts/Friends", "c2", "c1"]).await, (2, 1, 20), "nothing counts twice");
    assert_eq!(plan(&["friends"]).await, (1, 1, 10), "a folder by its id");
    let export = StartExportRequest {
        snapshot: snapshot.clone(),
        format: "mbox".to_owned(),
        out: "/srv/x".to_owned(),
        ..Default::default()
    };
    refused(
        operator.start_export(export).await,
        ErrorCode::BadRequest,
        "format 'mbox' cannot be used: contacts",
    );
    let listed = ListSnapshotsRequest { tenant: "contoso".to_owned(), ..Default::default() };
    let of = async |workload: &str| {
        let request = ListSnapshotsRequest { workload: workload.to_owned(), ..listed.clone() };
        world.operator().list_snapshots(request).await.unwrap().into_inner().snapshots.len()
    };
    assert_eq!((of("").await, of("contacts").await, of("mail").await), (1, 1, 0));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_certificate_that_claimed_a_job_speaks_for_it() {
    let mut world = World::start(|_| ()).await;
    world.connect().await;
    world.start_backup("user:ann@contoso.test").await;
    let lease = world.claim_next().await;
    let made = MadeSnapshot::of(&lease, 0).await;
    let (job, fence) = (lease.job.clone(), lease.fence);
    let mut stranger = world.other_worker();
    let beat = HeartbeatRequest { job: job.clone(), fence, ..Default::default() };
    refused(stranger.heartbeat(beat.clone()).await, ErrorCode::Forbidden, "another worker claimed job");
    let prepare = PrepareCommitRequest {
        job: job.clone(),
        fence,
        pin: made.pin.encode(),
        account: Some(Account::default()),
        failed: vec![],
    };
    refused(stranger.prepare_commit(prepare).await, ErrorCode::Forbidden, "another worker claimed job");
    let release = ReleaseJobRequest { job: job.clone(), fence, ..Default::default() };
    refused(stranger.release_job(release).await, ErrorCode::Forbidden, "another worker claimed job");
    let account = Some(Account::default());
    let finish = FinishJobRequest { job: job.clone(), fence, account, ..Default::default() };
    refused(stranger.finish_job(finish).await, ErrorCode::Forbidden, "another worker claimed job");
    assert!(!world.worker().heartbeat(beat).await.unwrap().into_inner().stop, "its own worker goes on");
    let pin_hash = made.pin.hash().0.to_vec().into();
    crate::prepared(&world, &lease, &made.pin).await;
    let record = RecordCommitRequest { job, fence, pin_hash };
    refused(stranger.record_commit(record).await, ErrorCode::Forbidden, "another worker claimed job");
    world.stop().await;
}
