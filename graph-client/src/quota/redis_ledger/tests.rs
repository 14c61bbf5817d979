use std::process::{Child, Command, Stdio};

use super::*;
use crate::{
    Scope,
    quota::conformance::{self, GRANTED, key, limits},
    testing::{TestClock, TestRandom},
};

/// A Redis of our own, or the one that the environment names.
struct TestRedis {
    url: String,
    child: Option<(Child, tempfile::TempDir, u16)>,
}

impl TestRedis {
    fn named_or_own() -> Option<Self> {
        match std::env::var("HOLDFAST_TEST_REDIS_URL") {
            Ok(url) => Some(Self { url, child: None }),
            Err(_) => Self::own(),
        }
    }

    fn own() -> Option<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let Some(child) = start(port, &dir) else {
            println!("skipped: redis-server is not installed");
            return None;
        };
        Some(Self { url: format!("redis://127.0.0.1:{port}/"), child: Some((child, dir, port)) })
    }

    async fn ledger(&self, limits: QuotaLimits, worker: &str, clock: &Arc<TestClock>) -> RedisLedger {
        for _ in 0..100 {
            // Each worker draws other ids.
            let random = Arc::new(TestRandom::default());
            for _ in 0..worker.bytes().map(usize::from).sum() {
                random.next_u64();
            }
            match RedisLedger::connect(&self.url, limits.clone(), worker, clock.clone(), random).await {
                Ok(ledger) => return ledger,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        panic!("redis does not start");
    }

    fn kill(&mut self) {
        if let Some((child, ..)) = &mut self.child {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn start_again(&mut self) {
        let (child, dir, port) = self.child.as_mut().unwrap();
        *child = start(*port, dir).unwrap();
    }
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        if let Some((child, ..)) = &mut self.child {
            let _already_gone = child.kill();
            let _already_gone = child.wait();
        }
    }
}

fn start(port: u16, dir: &tempfile::TempDir) -> Option<Child> {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(dir.path())
        .stdout(Stdio::null())
        .spawn()
        .ok()
}

async fn take_all(ledger: &RedisLedger, key: &QuotaKey) -> usize {
    let mut granted = 0;
    while ledger.acquire(key, Cost::ONE, JobClass::Late).await.is_ok() {
        granted += 1;
        assert!(granted < 1000, "no limit at all");
    }
    granted
}

#[tokio::test]
async fn the_redis_ledger_passes_the_suite() {
    let Some(redis) = TestRedis::named_or_own() else { return };
    let clock = TestClock::shared();
    let make = async |limits| {
        let ledger = redis.ledger(limits, "suite", &clock).await;
        ledger.declare_fresh().await.unwrap();
        Arc::new(ledger) as Arc<dyn QuotaLedger>
    };
    conformance::suite(clock.clone(), &make).await;
}

#[tokio::test]
async fn workers_share_requests_slots_and_pauses() {
    let Some(redis) = TestRedis::own() else { return };
    let clock = TestClock::shared();
    let slow = QuotaLimits { mailbox_window_s: 600, ..limits() };
    let (one, two) =
        (redis.ledger(slow.clone(), "one", &clock).await, redis.ledger(slow, "two", &clock).await);
    one.declare_fresh().await.unwrap();
    let shared = key("shared");
    for _ in 0..GRANTED / 2 {
        drop(one.acquire(&shared, Cost::ONE, JobClass::Late).await.unwrap());
        drop(two.acquire(&shared, Cost::ONE, JobClass::Late).await.unwrap());
    }
    for ledger in [&one, &two] {
        let refused = ledger.acquire(&shared, Cost::ONE, JobClass::Late).await.unwrap_err();
        assert!(matches!(refused, LedgerError::WouldWait { shortage: Shortage::Requests, .. }));
    }
    one.pause(&key("paused"), clock.now_ms() + 5_000).await;
    let refused = two.acquire(&key("paused"), Cost::ONE, JobClass::Late).await.unwrap_err();
    assert!(matches!(refused, LedgerError::WouldWait { shortage: Shortage::Paused, .. }));
    one.close().await;
    two.close().await;
}

#[tokio::test]
async fn a_released_slot_is_free_for_the_other_worker() {
    let Some(redis) = TestRedis::own() else { return };
    let clock = TestClock::shared();
    let narrow = QuotaLimits { mailbox_in_flight: 1, ..limits() };
    let (one, two) =
        (redis.ledger(narrow.clone(), "one", &clock).await, redis.ledger(narrow, "two", &clock).await);
    one.declare_fresh().await.unwrap();
    let held = one.acquire(&key("m"), Cost::ONE, JobClass::Late).await.unwrap();
    let refused = two.acquire(&key("m"), Cost::ONE, JobClass::Late).await.unwrap_err();
    assert!(matches!(refused, LedgerError::WouldWait { shortage: Shortage::Slots, .. }));
    drop(held);
    one.close().await;
    assert!(two.acquire(&key("m"), Cost::ONE, JobClass::Late).await.is_ok());
}

#[tokio::test]
async fn losing_redis_never_raises_what_is_granted() {
    let Some(mut redis) = TestRedis::own() else { return };
    let clock = TestClock::shared();
    let slow =
        QuotaLimits { mailbox_window_s: 600, upload_window_s: 600, directory_window_s: 600, ..limits() };
    let (one, two) =
        (redis.ledger(slow.clone(), "one", &clock).await, redis.ledger(slow, "two", &clock).await);
    one.declare_fresh().await.unwrap();
    // Two has used 30 of the mailbox before its lease went to one, who has used 10.
    for _ in 0..30 {
        drop(two.acquire(&key("m"), Cost::ONE, JobClass::Late).await.unwrap());
    }
    for _ in 0..10 {
        drop(one.acquire(&key("m"), Cost::ONE, JobClass::Late).await.unwrap());
    }
    redis.kill();
    // One knows what two has used; of a mailbox that it has never seen it takes the reserve only.
    assert_eq!(take_all(&one, &key("m")).await, GRANTED - 40);
    assert_eq!(take_all(&one, &key("new")).await, 2);
    let directory = QuotaKey { scope: Scope::Directory, ..key("m") };
    assert!(take_all(&one, &directory).await <= 140 / 2);
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_counts_as_full_until_a_window_has_passed() {
    let Some(mut redis) = TestRedis::own() else { return };
    let clock = TestClock::shared();
    let limits = QuotaLimits { mailbox_window_s: 4, upload_window_s: 4, ..limits() };
    let ledger = redis.ledger(limits.clone(), "one", &clock).await;
    ledger.declare_fresh().await.unwrap();
    assert_eq!(take_all(&ledger, &key("m")).await, GRANTED);
    redis.kill();
    redis.start_again();
    let newcomer = redis.ledger(limits, "new", &clock).await;
    assert_eq!(take_all(&ledger, &key("m")).await, 0, "the holder knows that it has used all");
    let emptied_at = clock.monotonic();
    assert_eq!(take_all(&newcomer, &key("m")).await, 2, "a newcomer gets the reserve");
    let window = Duration::from_millis(4300);
    tokio::time::sleep(window.saturating_sub(clock.monotonic() - emptied_at)).await;
    assert!(take_all(&newcomer, &key("m")).await >= GRANTED - 2);
}
