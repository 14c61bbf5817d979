//! What stands around records, and what nothing has read back yet.

use std::path::Path;

use super::*;

const DAY_MS: u64 = 24 * 3_600_000;

/// Changes bytes of a file that may be read-only.
fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut permissions = fs::metadata(path).unwrap().permissions();
    #[allow(clippy::permissions_set_readonly_false)]
    permissions.set_readonly(false);
    fs::set_permissions(path, permissions).unwrap();
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

type Damage<'a> = dyn Fn(&mut Vec<u8>) + 'a;

/// A sealed segment of node 1 and its bytes.
async fn sealed(pool: &Pool, n: u32) -> (PathBuf, Vec<u8>) {
    for record in (0..n).map(|n| record(n, 9_000)) {
        put(&pool.node(1), &[record]).await;
    }
    let is_sealed = |path: &PathBuf| fs::metadata(path).unwrap().permissions().readonly();
    let path = pool.segments(1, "data").into_iter().find(is_sealed).expect("a sealed segment");
    let bytes = fs::read(&path).unwrap();
    (path, bytes)
}

fn aside(pool: &Pool) -> Vec<PathBuf> {
    let dir = pool.rigs[0].options.data.join("quarantine");
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn a_damaged_frame_is_made_anew_from_good_records() {
    let footer = |bytes: &mut Vec<u8>| {
        let len = bytes.len();
        bytes[len - 200] ^= 1;
    };
    let trailer = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1;
    let superblock = |bytes: &mut Vec<u8>| bytes[60] ^= 1;
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 100);
    let longer = |bytes: &mut Vec<u8>| bytes.extend_from_slice(&[0x5a; 999]);
    let all = |bytes: &mut Vec<u8>| {
        superblock(bytes);
        footer(bytes);
        trailer(bytes);
    };
    let damages: [&Damage<'_>; 6] = [&footer, &trailer, &superblock, &cut, &longer, &all];
    for (n_damage, damage) in damages.into_iter().enumerate() {
        for is_stopped in [false, true] {
            let mut pool = Pool::with_segments(2, 2, ByteSize::kib(64));
            let (path, whole) = sealed(&pool, 20).await;
            if is_stopped {
                pool.stop(1).await;
            }
            change(&path, damage);
            if is_stopped {
                pool.open(1);
            }
            pool.scrub(1).await;
            // A start that did not write the segment may be of a later generation than the one that did.
            let from = if is_stopped { 4_096 } else { 0 };
            let anew = fs::read(&path).unwrap();
            let records = from..whole.len() - 1_500;
            assert!(
                anew[records.clone()] == whole[records],
                "damage {n_damage}, {is_stopped}: not made anew"
            );
            assert!(is_stopped || anew == whole, "damage {n_damage}: not made anew");
            assert_eq!(anew.len(), whole.len());
            pool.scrub(1).await;
            assert!(fs::read(&path).unwrap() == anew, "made anew twice");
            assert!(fs::metadata(&path).unwrap().permissions().readonly());
            assert!(pool.node(1).status().unwrap().quarantined_records > 0, "not reported");
            assert!(!aside(&pool).is_empty(), "the damaged bytes are gone");
            let told = pool.node(1).status().unwrap().quarantined_records;
            // Only its footer tells a start what is in it, and that is enough.
            pool.stop(1).await;
            fs::remove_file(pool.rigs[0].options.data.join("index.redb")).unwrap();
            let node = pool.open(1);
            assert_eq!((node.store.n_records().unwrap(), node.store.n_damaged()), (20, told));
            for n in 0..20 {
                assert!(serves(&node, &record(n, 9_000)).await);
            }
            assert_eq!(backlog(&node), Backlog::default());
        }
    }
}

#[tokio::test]
async fn a_frame_around_a_damaged_record_is_left_as_it_is_and_reported() {
    let pool = Pool::with_segments(2, 2, ByteSize::kib(64));
    let (path, _) = sealed(&pool, 20).await;
    change(&path, |bytes| {
        let len = bytes.len();
        (bytes[len - 200], bytes[5_000]) = (!bytes[len - 200], !bytes[5_000]);
    });
    let damaged = fs::read(&path).unwrap();
    pool.scrub(1).await;
    assert!(fs::read(&path).unwrap() == damaged);
    assert!(pool.node(1).store.n_damaged() >= 2);
    pool.resync(1).await;
    for n in 0..20 {
        assert!(serves(&pool.node(1), &record(n, 9_000)).await);
    }
}

#[tokio::test]
async fn an_interrupted_rewrite_leaves_the_old_segment_and_nothing_else() {
    let mut pool = Pool::with_segments(2, 2, ByteSize::kib(64));
    let (path, whole) = sealed(&pool, 20).await;
    pool.stop(1).await;
    let half = path.with_extension("seg.new");
    fs::write(&half, &whole[..10_000]).unwrap();
    let node = pool.open(1);
    assert!(!half.exists());
    assert_eq!((node.store.n_records().unwrap(), node.store.n_damaged()), (20, 0));
}

#[tokio::test]
async fn what_is_new_is_read_back_within_a_day_and_only_once() {
    let mut pool = Pool::with_segments(2, 2, ByteSize::kib(64));
    let (path, _) = sealed(&pool, 20).await;
    pool.scrub(1).await;
    pool.now_ms += 3_600_000;
    pool.scrub_scheduled(1).await;
    // Nothing is new, and the next scrub is thirty days away: what rots in it now is not found for long.
    change(&path, |bytes| bytes[9_000] ^= 1);
    pool.now_ms += DAY_MS;
    assert_eq!(pool.scrub_scheduled(1).await, 0, "what was read back is read again");
    assert_eq!(pool.node(1).store.n_damaged(), 0);
    // New records, of which one in a sealed and one in the open segment rot at once.
    let news: Vec<_> = (100..125).map(|n| record(n, 9_000)).collect();
    for one in &news {
        put(&pool.node(1), std::slice::from_ref(one)).await;
    }
    // Both before the first step: which segment that reads is chance.
    pool.rot(1, &news[8], 0.5);
    pool.rot(1, &news[24], 0.5);
    pool.now_ms += 3_600_000;
    // A restart between two steps goes on.
    assert_eq!(pool.node(1).scrub_step(pool.now_ms, Pace::Scheduled).await.unwrap(), Step::More);
    pool.restart(1).await;
    assert!(pool.scrub_scheduled(1).await > 0);
    assert_eq!(pool.node(1).store.n_damaged(), 2);
    // What was queued just before the restart may be found again by a comparison only.
    pool.round().await;
    for one in &news {
        assert!(serves(&pool.node(1), one).await);
    }
}

impl Pool {
    /// Steps of one node until nothing is to be checked now; says how many did something.
    async fn scrub_scheduled(&self, id: u64) -> usize {
        for n in 0..2_000 {
            if self.node(id).scrub_step(self.now_ms, Pace::Scheduled).await.unwrap() == Step::Idle {
                return n;
            }
        }
        panic!("the scrub does not end");
    }
}
