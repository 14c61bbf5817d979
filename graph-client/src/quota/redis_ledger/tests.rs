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
        self.answers().await;
        self.ledger_at_once(limits, worker, clock).await
    }

    /// Whether Redis is there or not.
    async fn ledger_at_once(&self, limits: QuotaLimits, worker: &str, clock: &Arc<TestClock>) -> RedisLedger {
        // Each worker draws other ids.
        let random = Arc::new(TestRandom::default());
        for _ in 0..worker.bytes().map(usize::from).sum() {
            random.next_u64();
        }
        RedisLedger::connect(&self.url, limits, worker, clock.clone(), random).await.unwrap()
    }

    async fn answers(&self) {
        let client = Client::open(self.url.as_str()).unwrap();
        eventually("redis answers", async || {
            let Ok(mut connection) = client.get_multiplexed_async_connection().await else { return false };
            redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok()
        })
        .await;
    }

    async fn empty(&self) {
        let mut connection =
            Client::open(self.url.as_str()).unwrap().get_multiplexed_async_connection().await.unwrap();
        let () = redis::cmd("FLUSHALL").query_async(&mut connection).await.unwrap();
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

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..400 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("never: {what}");
}

async fn is_paused(ledger: &RedisLedger, key: &QuotaKey) -> bool {
    let refused = ledger.acquire(key, Cost::ONE, JobClass::Late).await;
    matches!(refused, Err(LedgerError::WouldWait { shortage: Shortage::Paused, .. }))
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
    redis.answers().await;
    let newcomer = redis.ledger(limits, "new", &clock).await;
    assert_eq!(take_all(&ledger, &key("m")).await, 0, "the holder knows that it has used all");
    let emptied_at = clock.monotonic();
    assert_eq!(take_all(&newcomer, &key("m")).await, 2, "a newcomer gets the reserve");
    let window = Duration::from_millis(4300);
    tokio::time::sleep(window.saturating_sub(clock.monotonic() - emptied_at)).await;
    assert!(take_all(&newcomer, &key("m")).await >= GRANTED - 2);
}

#[tokio::test]
async fn it_starts_without_redis_on_its_share_and_moves_to_redis_when_that_is_there() {
    let Some(mut redis) = TestRedis::own() else { return };
    redis.answers().await;
    redis.kill();
    let clock = TestClock::shared();
    let limits = QuotaLimits {
        mailbox_window_s: 4,
        upload_window_s: 4,
        directory_requests: 3_200,
        directory_window_s: 4,
        ..limits()
    };
    let one = redis.ledger_at_once(limits.clone(), "one", &clock).await;
    assert_eq!(take_all(&one, &key("m")).await, 2, "the reserve of a mailbox");
    let directory = QuotaKey { scope: Scope::Directory, ..key("m") };
    let reserve = 3_200 * 4 / 100;
    assert_eq!(take_all(&one, &directory).await, reserve / 32, "nobody knows how many share it");
    assert!(one.declare_fresh().await.is_err());
    redis.start_again();
    redis.answers().await;
    // Redis is asked again, and does not believe itself before a window has passed; then all of it is granted.
    eventually("the ledger is in redis", async || {
        let _permit = one.acquire(&key("other"), Cost::ONE, JobClass::Late).await;
        !one.inner.was_lost.load(Ordering::Relaxed)
    })
    .await;
    let two = redis.ledger(limits, "two", &clock).await;
    two.pause(&key("paused"), clock.now_ms() + 60_000).await;
    assert!(is_paused(&one, &key("paused")).await, "they share one ledger");
    clock.push(Duration::from_secs(5));
    eventually("all of it is granted", async || take_all(&one, &key("m")).await > GRANTED / 2).await;
    one.close().await;
    two.close().await;
}

#[tokio::test]
async fn a_redis_that_refuses_the_password_is_a_mistake_of_the_configuration() {
    let Some(redis) = TestRedis::own() else { return };
    redis.answers().await;
    let url = redis.url.replace("redis://", "redis://nobody:wrong@");
    let (clock, random) = (TestClock::shared(), Arc::new(TestRandom::default()));
    let error = RedisLedger::connect(&url, limits(), "one", clock, random).await.err().unwrap();
    assert!(matches!(error, GraphError::Config { setting: "redis-url", .. }), "{error}");
    assert!(!error.to_string().contains("wrong@"));
}

#[tokio::test]
async fn a_pause_that_redis_missed_or_forgot_is_told_again() {
    let Some(mut redis) = TestRedis::own() else { return };
    let clock = TestClock::shared();
    let one = redis.ledger(limits(), "one", &clock).await;
    one.declare_fresh().await.unwrap();
    let (missed, forgotten) = (key("missed"), key("forgotten"));
    one.pause(&forgotten, clock.now_ms() + 60_000).await;
    redis.empty().await;
    let two = redis.ledger(limits(), "two", &clock).await;
    eventually("redis hears of the forgotten pause", async || is_paused(&two, &forgotten).await).await;

    redis.kill();
    one.pause(&missed, clock.now_ms() + 60_000).await;
    assert!(is_paused(&one, &missed).await, "it holds here at once");
    redis.start_again();
    redis.answers().await;
    let three = redis.ledger(limits(), "three", &clock).await;
    eventually("redis hears of the missed pause", async || is_paused(&three, &missed).await).await;
    for ledger in [one, two, three] {
        ledger.close().await;
    }
}

/// A Redis in the middle that holds answers back.
async fn slow_redis(to: &str, delay: Duration) -> String {
    let to = to.trim_start_matches("redis://").trim_end_matches('/').to_owned();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (near, _) = listener.accept().await.unwrap();
            let far = tokio::net::TcpStream::connect(&to).await.unwrap();
            let ((mut near_in, mut near_out), (mut far_in, mut far_out)) =
                (near.into_split(), far.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut near_in, &mut far_out).await });
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = far_in.read(&mut buffer).await {
                    tokio::time::sleep(delay).await;
                    near_out.write_all(&buffer[..length]).await.unwrap();
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn a_grant_on_its_way_is_not_used_when_a_pause_comes_meanwhile() {
    let Some(redis) = TestRedis::own() else { return };
    let clock = TestClock::shared();
    let two = redis.ledger(limits(), "two", &clock).await;
    two.declare_fresh().await.unwrap();
    let slow = slow_redis(&redis.url, Duration::from_millis(220)).await;
    let random = Arc::new(TestRandom::default());
    let one = Arc::new(RedisLedger::connect(&slow, limits(), "one", clock.clone(), random).await.unwrap());
    // The script is loaded and the way is open.
    eventually("the slow one is granted", async || {
        one.acquire(&key("first"), Cost::ONE, JobClass::Late).await.is_ok()
            && !one.inner.was_lost.load(Ordering::Relaxed)
    })
    .await;
    for (number, pausing) in [&two, &*one].into_iter().enumerate() {
        let key = key(&format!("m{number}"));
        let asking = tokio::spawn({
            let (one, key) = (one.clone(), key.clone());
            async move { one.acquire(&key, Cost::ONE, JobClass::Late).await.map(drop) }
        });
        // Redis has granted as soon as it has charged; the answer is still on its way.
        let charged = redis_key(&key, "requests");
        let mut connection =
            Client::open(redis.url.as_str()).unwrap().get_multiplexed_async_connection().await.unwrap();
        eventually("it is charged", async || {
            redis::cmd("EXISTS").arg(&charged).query_async::<bool>(&mut connection).await.unwrap()
        })
        .await;
        pausing.pause(&key, clock.now_ms() + 60_000).await;
        let refused = asking.await.unwrap().unwrap_err();
        assert!(
            matches!(refused, LedgerError::WouldWait { shortage: Shortage::Paused, .. }),
            "{number}: {refused}"
        );
    }
}

#[tokio::test]
async fn of_the_day_an_empty_redis_believes_what_the_workers_know() {
    let Some(redis) = TestRedis::own() else { return };
    let clock = TestClock::shared();
    let limits = QuotaLimits { sharepoint_window_s: 1, ..QuotaLimits::default() };
    let key = QuotaKey { scope: Scope::SharePoint, ..key("m") };
    let ten = Cost { weight: crate::Weight::Plain(10), ..Cost::ONE };
    let (one, two) =
        (redis.ledger(limits.clone(), "one", &clock).await, redis.ledger(limits, "two", &clock).await);
    one.declare_fresh().await.unwrap();
    drop(two.acquire(&key, ten, JobClass::Late).await.unwrap());
    drop(one.acquire(&key, ten, JobClass::Late).await.unwrap());
    redis.empty().await;
    // One has heard of both. The minute is waited for, the day is not.
    let mut granted = 20;
    eventually("the day is known again", async || {
        granted += 10 * u64::from(one.acquire(&key, ten, JobClass::Late).await.is_ok());
        let usage = two.usage(&key).await;
        granted > 20 && usage[1].used == granted && usage[0].used < granted
    })
    .await;
    one.close().await;
    two.close().await;
}
