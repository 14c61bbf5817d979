//! The suite that both ledgers pass. It sleeps on tokio's clock: paused for the one, real for the other.

use std::{sync::Arc, time::Duration};

use holdfast_model::{Clock as _, JobClass};

use super::*;
use crate::{Left, testing::TestClock};

/// A key that no other test uses.
pub(super) fn key(name: &str) -> QuotaKey {
    QuotaKey {
        cloud: Cloud::Global,
        microsoft_tenant: "tenant".into(),
        client_id: "app".into(),
        scope: Scope::Mailbox(name.into()),
    }
}

/// Windows of a second, so that real time does not matter much. 96 of 100 requests are granted.
pub(super) fn limits() -> QuotaLimits {
    QuotaLimits {
        mailbox_in_flight: 100,
        mailbox_requests: 50,
        mailbox_window_s: 1,
        upload_bytes: 1000,
        upload_window_s: 1,
        slot_ttl_s: 60,
        ..QuotaLimits::default()
    }
}

pub(super) const GRANTED: usize = 48;

fn shortage(result: Result<Permit, LedgerError>) -> Option<(Shortage, Duration)> {
    match result {
        Err(LedgerError::WouldWait { wait, shortage }) => Some((shortage, wait)),
        Ok(_) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Tries until it is granted.
async fn eventually(ledger: &dyn QuotaLedger, key: &QuotaKey, class: JobClass) -> Permit {
    for _ in 0..200 {
        match ledger.acquire(key, Cost::ONE, class).await {
            Ok(permit) => return permit,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    panic!("never granted");
}

/// No window, wherever it starts, holds more than is granted; and nothing of it is wasted.
pub(super) async fn never_exceeds_any_window(ledger: &dyn QuotaLedger, clock: &TestClock) {
    let key = key("window");
    let mut granted = Vec::new();
    let started = clock.monotonic();
    while clock.monotonic() - started < Duration::from_millis(3200) {
        let asked = clock.monotonic();
        match ledger.acquire(&key, Cost::ONE, JobClass::Incremental).await {
            Ok(_) => {
                granted.push((asked, clock.monotonic()));
                tokio::time::sleep(Duration::from_millis(7)).await;
            }
            Err(LedgerError::WouldWait { wait, .. }) => tokio::time::sleep(wait).await,
            Err(error) => panic!("{error}"),
        }
    }
    for pair in granted.windows(GRANTED + 1) {
        assert!(pair[GRANTED].1 - pair[0].0 >= Duration::from_secs(1), "more than {GRANTED} within a second");
    }
    assert!(granted.len() >= GRANTED * 2, "only {} granted in three windows", granted.len());
}

/// Slots end with their permit, or when nobody renews them.
pub(super) async fn slots_are_few_and_come_back(make: impl AsyncFn(QuotaLimits) -> Arc<dyn QuotaLedger>) {
    let ledger =
        make(QuotaLimits { mailbox_in_flight: 2, slot_ttl_s: 1, mailbox_requests: 10_000, ..limits() }).await;
    let key = key("slots");
    let first = ledger.acquire(&key, Cost::ONE, JobClass::Late).await.unwrap();
    let second = ledger.acquire(&key, Cost::ONE, JobClass::Late).await.unwrap();
    assert_eq!(shortage(ledger.acquire(&key, Cost::ONE, JobClass::Late).await).unwrap().0, Shortage::Slots);
    assert!(ledger.acquire(&self::key("other"), Cost::ONE, JobClass::Late).await.is_ok());
    drop(first);
    let third = eventually(&*ledger, &key, JobClass::Late).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        second.renew();
        third.renew();
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(
        shortage(ledger.acquire(&key, Cost::ONE, JobClass::Late).await).is_some(),
        "a renewed slot was given away"
    );
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(ledger.acquire(&key, Cost::ONE, JobClass::Late).await.is_ok(), "a forgotten slot did not expire");
}

/// A pause holds, says how long, and ends.
pub(super) async fn a_pause_holds_and_ends(ledger: &dyn QuotaLedger, clock: &TestClock) {
    let key = key("pause");
    ledger.pause(&key, clock.now_ms() + 400).await;
    ledger.pause(&key, clock.now_ms() + 10).await;
    let (shortage, wait) = shortage(ledger.acquire(&key, Cost::ONE, JobClass::Restore).await).unwrap();
    assert_eq!(shortage, Shortage::Paused);
    assert!(wait > Duration::from_millis(200) && wait <= Duration::from_millis(401), "{wait:?}");
    assert!(ledger.acquire(&self::key("not-paused"), Cost::ONE, JobClass::Verify).await.is_ok());
    tokio::time::sleep(wait + Duration::from_millis(5)).await;
    assert!(ledger.acquire(&key, Cost::ONE, JobClass::Verify).await.is_ok());
}

/// Whoever is more urgent and has asked goes first.
pub(super) async fn the_urgent_class_goes_first(make: impl AsyncFn(QuotaLimits) -> Arc<dyn QuotaLedger>) {
    let ledger = make(QuotaLimits { mailbox_in_flight: 1, mailbox_requests: 10_000, ..limits() }).await;
    let key = key("class");
    let held = ledger.acquire(&key, Cost::ONE, JobClass::Verify).await.unwrap();
    assert!(shortage(ledger.acquire(&key, Cost::ONE, JobClass::Verify).await).is_some());
    assert!(shortage(ledger.acquire(&key, Cost::ONE, JobClass::Restore).await).is_some());
    drop(held);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(
        shortage(ledger.acquire(&key, Cost::ONE, JobClass::Verify).await).is_some(),
        "verify overtook restore"
    );
    drop(eventually(&*ledger, &key, JobClass::Restore).await);
    eventually(&*ledger, &key, JobClass::Verify).await;
}

/// Bytes count too, and what can never fit is said at once.
pub(super) async fn uploads_are_counted(ledger: &dyn QuotaLedger) {
    let key = key("upload");
    let cost = |upload_bytes| Cost { upload_bytes, ..Cost::ONE };
    let class = JobClass::Restore;
    assert_eq!(ledger.acquire(&key, cost(961), class).await.unwrap_err(), LedgerError::NeverFits);
    assert!(ledger.acquire(&key, cost(960), class).await.is_ok());
    let (shortage, wait) = shortage(ledger.acquire(&key, cost(1), class).await).unwrap();
    assert_eq!(shortage, Shortage::Upload);
    tokio::time::sleep(wait + Duration::from_millis(5)).await;
    assert!(ledger.acquire(&key, cost(960), class).await.is_ok());
}

/// SharePoint's key of a tenant that no other test uses.
fn sharepoint(tenant: &str) -> QuotaKey {
    QuotaKey { microsoft_tenant: tenant.into(), scope: Scope::SharePoint, ..key("unused") }
}

fn sharepoint_limits() -> QuotaLimits {
    QuotaLimits {
        sharepoint_requests: 100,
        sharepoint_daily_requests: 300,
        sharepoint_ingress_bytes: 1000,
        sharepoint_egress_bytes: 2000,
        ..QuotaLimits::default()
    }
}

fn weighing(weight: Weight) -> Cost {
    Cost { weight, ..Cost::ONE }
}

fn used(usage: &[WindowUse]) -> Vec<(&'static str, u64)> {
    usage.iter().map(|window| (window.name, window.used)).collect()
}

/// Each kind of request has its weight, each direction its bytes, and each of them is told apart.
pub(super) async fn sharepoint_counts_units_and_bytes(ledger: &dyn QuotaLedger) {
    let key = sharepoint("units");
    let class = JobClass::Late;
    for weight in [Weight::Single, Weight::Listing, Weight::Permissions] {
        drop(ledger.acquire(&key, weighing(weight), class).await.unwrap());
    }
    let bytes = Cost { upload_bytes: 600, download_bytes: 1500, weight: Weight::Listing };
    drop(ledger.acquire(&key, bytes, class).await.unwrap());
    let expected = [("requests", 10), ("daily", 10), ("ingress", 600), ("egress", 1500)];
    assert_eq!(used(&ledger.usage(&key).await), expected);
    assert_eq!(ledger.usage(&key).await[1].granted, 288);
    let up = Cost { upload_bytes: 600, ..weighing(Weight::Listing) };
    assert_eq!(shortage(ledger.acquire(&key, up, class).await).unwrap().0, Shortage::Upload);
    let down = Cost { download_bytes: 1500, ..weighing(Weight::Single) };
    assert_eq!(shortage(ledger.acquire(&key, down, class).await).unwrap().0, Shortage::Download);
    // What was refused was not charged.
    assert_eq!(used(&ledger.usage(&key).await), expected);
}

/// The minute lets go, the day does not.
pub(super) async fn a_day_outlasts_its_minutes(make: impl AsyncFn(QuotaLimits) -> Arc<dyn QuotaLedger>) {
    let ledger = make(QuotaLimits { sharepoint_window_s: 1, ..sharepoint_limits() }).await;
    let (key, class) = (sharepoint("day"), JobClass::Late);
    let all = weighing(Weight::Plain(96));
    for _ in 0..3 {
        loop {
            match shortage(ledger.acquire(&key, all, class).await) {
                None => break,
                Some((Shortage::Requests, wait)) => tokio::time::sleep(wait).await,
                Some((other, _)) => panic!("{other:?}"),
            }
        }
    }
    let (shortage, wait) = shortage(ledger.acquire(&key, all, class).await).unwrap();
    assert_eq!(shortage, Shortage::Daily);
    assert!(wait > Duration::from_hours(20), "{wait:?}");
}

/// Microsoft's word raises the count, never lowers it, and is forgotten when Microsoft counts anew.
pub(super) async fn microsofts_count_is_taken_over(ledger: &dyn QuotaLedger) {
    let (key, class) = (sharepoint("corrected"), JobClass::Late);
    drop(ledger.acquire(&key, weighing(Weight::Plain(50)), class).await.unwrap());
    let said = |units| RateLimit { left: Left::Units(units), reset: Duration::from_millis(600) };
    ledger.correct(&key, said(90)).await;
    assert_eq!(ledger.usage(&key).await[0].used, 50);
    ledger.correct(&key, said(20)).await;
    assert_eq!(ledger.usage(&key).await[0].used, 80);
    ledger.correct(&key, said(20)).await;
    assert_eq!(ledger.usage(&key).await[0].used, 80);
    assert_eq!(ledger.usage(&key).await[1].used, 50, "the day was not said anything about");
    let asked = ledger.acquire(&key, weighing(Weight::Plain(20)), class).await;
    let (shortage, wait) = shortage(asked).unwrap();
    assert!(shortage == Shortage::Requests && wait < Duration::from_millis(2_700), "{wait:?}");
    tokio::time::sleep(wait + Duration::from_millis(5)).await;
    assert!(ledger.acquire(&key, weighing(Weight::Plain(20)), class).await.is_ok());
}

/// A class leaves to the more urgent ones what is above its share.
pub(super) async fn a_class_leaves_room(make: impl AsyncFn(QuotaLimits) -> Arc<dyn QuotaLedger>) {
    let class_percent = ClassShares { first_full: 50, ..ClassShares::default() };
    let ledger = make(QuotaLimits { class_percent, ..sharepoint_limits() }).await;
    let key = sharepoint("shares");
    drop(ledger.acquire(&key, weighing(Weight::Plain(46)), JobClass::FirstFull).await.unwrap());
    let more = weighing(Weight::Plain(3));
    let refused = ledger.acquire(&key, more, JobClass::FirstFull).await;
    assert_eq!(shortage(refused).unwrap().0, Shortage::Requests);
    assert!(ledger.acquire(&key, weighing(Weight::Plain(49)), JobClass::Restore).await.is_ok());
}

/// Who waits keeps the less urgent back from what it waits for, and from nothing else.
pub(super) async fn waiting_holds_up_nobody_who_wants_something_else(
    make: impl AsyncFn(QuotaLimits) -> Arc<dyn QuotaLedger>,
) {
    let ledger = make(sharepoint_limits()).await;
    let key = sharepoint("claims");
    let up = Cost { upload_bytes: 900, ..weighing(Weight::Listing) };
    drop(ledger.acquire(&key, up, JobClass::Restore).await.unwrap());
    assert_eq!(shortage(ledger.acquire(&key, up, JobClass::Restore).await).unwrap().0, Shortage::Upload);
    let down = Cost { download_bytes: 10, ..weighing(Weight::Single) };
    assert!(ledger.acquire(&key, down, JobClass::FirstFull).await.is_ok(), "it sends nothing");
    let little = Cost { upload_bytes: 1, ..weighing(Weight::Single) };
    assert_eq!(shortage(ledger.acquire(&key, little, JobClass::FirstFull).await).unwrap().0, Shortage::Slots);
    let all = weighing(Weight::Plain(94));
    assert_eq!(shortage(ledger.acquire(&key, all, JobClass::Restore).await).unwrap().0, Shortage::Requests);
    assert_eq!(shortage(ledger.acquire(&key, down, JobClass::FirstFull).await).unwrap().0, Shortage::Slots);
    assert!(ledger.acquire(&key, weighing(Weight::Single), JobClass::Restore).await.is_ok());
    assert!(
        ledger.acquire(&key, down, JobClass::FirstFull).await.is_ok(),
        "nobody waits for requests any more"
    );
    assert_eq!(shortage(ledger.acquire(&key, little, JobClass::FirstFull).await).unwrap().0, Shortage::Slots);
}

/// The whole suite.
pub(super) async fn suite(
    clock: Arc<TestClock>,
    make: impl AsyncFn(QuotaLimits) -> Arc<dyn QuotaLedger> + Copy,
) {
    let ledger = make(limits()).await;
    never_exceeds_any_window(&*ledger, &clock).await;
    a_pause_holds_and_ends(&*ledger, &clock).await;
    uploads_are_counted(&*ledger).await;
    slots_are_few_and_come_back(make).await;
    the_urgent_class_goes_first(make).await;
    let ledger = make(sharepoint_limits()).await;
    sharepoint_counts_units_and_bytes(&*ledger).await;
    microsofts_count_is_taken_over(&*ledger).await;
    a_day_outlasts_its_minutes(make).await;
    a_class_leaves_room(make).await;
    waiting_holds_up_nobody_who_wants_something_else(make).await;
}
