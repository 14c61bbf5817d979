use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::SystemRandom;

fn background() -> Background {
    Background::new(Shutdown::new(), Arc::new(SystemRandom))
}

fn only(background: &Background) -> LoopStatus {
    background.report().pop().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_loop_works_off_what_there_is_and_then_waits_its_period() {
    let background = background();
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    background.spawn_loop("scan", Duration::from_secs(100), move || {
        let n = counted.fetch_add(1, Ordering::SeqCst);
        async move { Ok::<_, String>(if n < 4 { Step::More } else { Step::Idle }) }
    });
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(count.load(Ordering::SeqCst), 5);
    assert_eq!((only(&background).state, only(&background).steps), (LoopState::Idle, 5));
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(count.load(Ordering::SeqCst), 6);
    background.clone().join(Duration::from_secs(1)).await;
    assert_eq!(only(&background).state, LoopState::Stopped);
}

#[tokio::test(start_paused = true)]
async fn errors_are_counted_backed_off_and_survived() {
    let background = background();
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    background.spawn_loop("flaky", Duration::from_secs(1), move || {
        let n = counted.fetch_add(1, Ordering::SeqCst);
        async move { if n < 3 { Err("no answer") } else { Ok(Step::Idle) } }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(count.load(Ordering::SeqCst), 1, "no second try before the back-off is over");
    assert_eq!(only(&background).state, LoopState::BackingOff);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let status = only(&background);
    assert_eq!((status.errors, status.last_error.as_deref()), (3, Some("no answer")));
    assert!(status.steps > 1 && status.state == LoopState::Idle, "{status:?}");
    background.join(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_loop_can_be_woken() {
    let background = background();
    let (count, wake) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let counted = count.clone();
    background.spawn_loop_woken("dispatch", Duration::from_secs(3600), wake.clone(), move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, String>(Step::Idle) }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    wake.notify_one();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(count.load(Ordering::SeqCst), 2);
    background.join(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_lets_a_step_finish_and_aborts_only_after_the_grace_period() {
    let background = background();
    let finished = Arc::new(AtomicU64::new(0));
    let counted = finished.clone();
    background.spawn_loop("slow", Duration::from_secs(1), move || {
        let counted = counted.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            counted.fetch_add(1, Ordering::SeqCst);
            Ok::<_, String>(Step::More)
        }
    });
    background.spawn("stuck", std::future::pending());
    tokio::time::sleep(Duration::from_millis(10)).await;
    let started = tokio::time::Instant::now();
    background.clone().join(Duration::from_secs(20)).await;
    assert_eq!(finished.load(Ordering::SeqCst), 1);
    assert!(started.elapsed() >= Duration::from_secs(20) && started.elapsed() < Duration::from_secs(22));
    assert!(background.report().iter().all(|status| status.state == LoopState::Stopped));
}

#[tokio::test]
async fn a_panic_is_visible_and_does_not_spread() {
    let background = background();
    background.spawn_loop("buggy", Duration::from_secs(1), || async {
        if true {
            panic!("index out of range");
        }
        Ok::<_, String>(Step::Idle)
    });
    for _ in 0..1_000 {
        if background.panicked() == ["buggy"] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    background.clone().join(Duration::from_secs(5)).await;
    let status = only(&background);
    assert_eq!(status.state, LoopState::Panicked);
    assert!(status.last_error.is_some_and(|error| error.contains("index out of range")));
}
