//! The suite that both ledgers pass. It sleeps on tokio's clock: paused for the one, real for the other.

use std::{sync::Arc, time::Duration};

use holdfast_model::{Clock as _, JobClass};

use super::*;
use crate::testing::TestClock;

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
    let cost = |upload_bytes| Cost { requests: 1, upload_bytes };
    let class = JobClass::Restore;
    assert_eq!(ledger.acquire(&key, cost(961), class).await.unwrap_err(), LedgerError::NeverFits);
    assert!(ledger.acquire(&key, cost(960), class).await.is_ok());
    let (shortage, wait) = shortage(ledger.acquire(&key, cost(1), class).await).unwrap();
    assert_eq!(shortage, Shortage::Upload);
    tokio::time::sleep(wait + Duration::from_millis(5)).await;
    assert!(ledger.acquire(&key, cost(960), class).await.is_ok());
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
}
