use super::*;
use crate::{
    Weight,
    quota::conformance::{self, GRANTED, key, limits},
    testing::TestClock,
};

#[tokio::test(start_paused = true)]
async fn the_local_ledger_passes_the_suite() {
    let clock = TestClock::shared();
    let make = async |limits| Arc::new(LocalLedger::new(limits, clock.clone())) as Arc<dyn QuotaLedger>;
    conformance::suite(clock.clone(), &make).await;
}

/// Bursts and pauses of many shapes: the times of the grants never break the limit.
#[tokio::test(start_paused = true)]
async fn no_pattern_of_asking_gets_more_than_the_window_holds() {
    for seed in 1..30u64 {
        let clock = TestClock::shared();
        let ledger = LocalLedger::new(limits(), clock.clone());
        let (mut times, mut state) = (Vec::new(), seed);
        for _ in 0..400 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let cost = u32::try_from(1 + (state >> 33) % 5).unwrap();
            match ledger
                .acquire(&key("m"), Cost { weight: Weight::Plain(cost), ..Cost::ONE }, JobClass::Late)
                .await
            {
                Ok(_) => times.extend((0..cost).map(|_| clock.monotonic())),
                Err(LedgerError::WouldWait { wait, .. }) if state >> 62 == 0 => {
                    tokio::time::sleep(wait).await
                }
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis((state >> 40) % 40)).await;
        }
        assert!(
            times.windows(GRANTED + 1).all(|w| w[GRANTED] - w[0] >= Duration::from_secs(1)),
            "seed {seed}"
        );
        assert!(times.len() > GRANTED * 3);
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_all_the_time_gets_95_percent_of_the_limit() {
    // (pause after a grant): a burst in each window, and an even flow.
    for pause in [Duration::ZERO, Duration::from_millis(49)] {
        let clock = TestClock::shared();
        let ledger = LocalLedger::new(QuotaLimits::default(), clock.clone());
        let key = QuotaKey { scope: Scope::SharePoint, ..key("m") };
        let (started, mut granted) = (clock.monotonic(), 0);
        while clock.monotonic() - started < Duration::from_mins(10) {
            match ledger.acquire(&key, Cost::ONE, JobClass::Late).await {
                Ok(_) => {
                    granted += 1;
                    tokio::time::sleep(pause).await;
                }
                Err(LedgerError::WouldWait { wait, .. }) => tokio::time::sleep(wait).await,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(granted >= 12_500 * 95 / 100, "{granted} with {pause:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_wait_that_is_named_is_long_enough_and_hardly_too_long() {
    let clock = TestClock::shared();
    let ledger = LocalLedger::new(limits(), clock.clone());
    tokio::time::sleep(Duration::from_millis(123)).await;
    let all = Cost { weight: Weight::Plain(48), ..Cost::ONE };
    drop(ledger.acquire(&key("m"), all, JobClass::Late).await.unwrap());
    let Err(LedgerError::WouldWait { wait, shortage }) = ledger.acquire(&key("m"), all, JobClass::Late).await
    else {
        panic!("granted twice");
    };
    assert_eq!(shortage, Shortage::Requests);
    assert!(wait >= Duration::from_secs(1) && wait < Duration::from_millis(1040), "{wait:?}");
    tokio::time::sleep(wait).await;
    assert!(ledger.acquire(&key("m"), all, JobClass::Late).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn alone_a_new_holder_gets_the_reserve_until_it_has_counted_a_whole_window() {
    let clock = TestClock::shared();
    let ledger = LocalLedger::new(limits(), clock.clone());
    let mut granted = 0;
    while ledger.grant_alone(&key("m"), Cost::ONE, JobClass::Late, 7).is_ok() {
        granted += 1;
    }
    assert_eq!(granted, 2);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    while ledger.grant_alone(&key("m"), Cost::ONE, JobClass::Late, 7).is_ok() {
        granted += 1;
    }
    assert_eq!(granted, 2 + GRANTED);
    // After a gap the mailbox may have been somebody else's.
    tokio::time::sleep(Duration::from_mins(2)).await;
    let again =
        (0..GRANTED).filter(|_| ledger.grant_alone(&key("m"), Cost::ONE, JobClass::Late, 7).is_ok()).count();
    assert_eq!(again, 2);
}

#[tokio::test(start_paused = true)]
async fn alone_what_is_shared_gets_this_workers_part_of_the_reserve() {
    let ledger = LocalLedger::new(QuotaLimits { directory_requests: 1000, ..limits() }, TestClock::shared());
    let key = QuotaKey { scope: Scope::Directory, ..key("m") };
    let granted = (0..100).filter(|_| ledger.grant_alone(&key, Cost::ONE, JobClass::Late, 4).is_ok()).count();
    assert_eq!(granted, 10);
    let refused = ledger.grant_alone(&key, Cost::ONE, JobClass::Late, 1000).err();
    assert!(matches!(refused, Some(LedgerError::WouldWait { .. })));
}

#[tokio::test(start_paused = true)]
async fn idle_keys_are_forgotten() {
    let ledger = LocalLedger::new(limits(), TestClock::shared());
    for number in 0..MAX_IDLE_KEYS * 2 {
        drop(ledger.acquire(&key(&format!("m{number}")), Cost::ONE, JobClass::Late).await.unwrap());
        if number == MAX_IDLE_KEYS - 1 {
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
    }
    assert!(ledger.shared.lock().states.len() <= MAX_IDLE_KEYS);
}
