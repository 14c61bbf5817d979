//! The damage matrix: every kind of damage at every structural place of a node's files, while it runs and while it is
//! stopped. Each ends in all records and pins served right again by both owners, or in a refusal to start that names the
//! file.

use std::path::Path;

use super::*;
use crate::{
    pin::PinOutcome,
    testing::{pin, put_pin},
};

const N_RECORDS: u32 = 12;
const RECORD_BYTES: usize = 10_000;
const FIRST: usize = 4_096;
const N_PINS: u64 = 3;

/// Where and how a file is damaged.
#[derive(Debug, Clone, Copy)]
enum Damage {
    /// One bit, so far from the start, or from the end when negative.
    Flip(isize),
    /// So many bytes are overwritten.
    Smear(isize, usize),
    /// Everything from there on is cut off.
    Truncate(isize),
    /// Garbage follows the end.
    Append,
    /// One record also stands in the place of another.
    Duplicate(usize, usize),
    /// Two records stand in each other's place.
    Swap(usize, usize),
    /// The file is gone.
    Delete,
}

/// Which file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Sealed,
    Open,
    Mark,
    Index,
    Queue,
    Touches,
    Pins,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Running,
    Stopped,
}

fn file_of(pool: &Pool, target: Target) -> Option<PathBuf> {
    let data = &pool.rigs[0].options.data;
    let newest = |dir: &str, suffix: &str| {
        let files = fs::read_dir(data.join(dir)).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.to_str().unwrap().ends_with(suffix)).max()
    };
    // The open segment is the one with a mark.
    let is_open = |path: &Path| {
        let name = path.file_stem().unwrap().to_str().unwrap().split_once('-').unwrap().1.to_owned();
        path.with_file_name(format!("{name}.mark")).exists()
    };
    match target {
        Target::Sealed => pool.segments(1, "data").into_iter().find(|path| !is_open(path)),
        Target::Open => pool.segments(1, "data").into_iter().find(|path| is_open(path)),
        Target::Mark => newest("segments", ".mark"),
        Target::Index => Some(data.join("index.redb")),
        Target::Queue => Some(data.join("repair.redb")),
        Target::Touches => newest("touches", ".touch"),
        Target::Pins => pool.segments(1, "pin").pop(),
    }
}

fn apply(damage: Damage, path: &Path) {
    if matches!(damage, Damage::Delete) {
        fs::remove_file(path).unwrap();
        return;
    }
    let mut permissions = fs::metadata(path).unwrap().permissions();
    #[allow(clippy::permissions_set_readonly_false)]
    permissions.set_readonly(false);
    fs::set_permissions(path, permissions).unwrap();
    let mut bytes = fs::read(path).unwrap();
    let at = |from: isize, len: usize| from.rem_euclid(isize::try_from(len).unwrap().max(1)).unsigned_abs();
    let len_of_one = record(0, RECORD_BYTES).encoded_len();
    let place = |n: usize| FIRST + n * len_of_one..FIRST + (n + 1) * len_of_one;
    let len = bytes.len();
    match damage {
        Damage::Flip(from) => bytes[at(from, len)] ^= 0x04,
        Damage::Smear(from, n) => {
            let start = at(from, len);
            bytes[start..len.min(start + n)].iter_mut().for_each(|byte| *byte ^= 0xa5);
        }
        Damage::Truncate(from) => bytes.truncate(at(from, len)),
        Damage::Append => bytes.extend_from_slice(&[0x5a; 5_000]),
        Damage::Duplicate(from, to) => bytes.copy_within(place(from), place(to).start),
        Damage::Swap(a, b) => {
            let first = bytes[place(a)].to_vec();
            bytes.copy_within(place(b), place(a).start);
            bytes[place(b)].copy_from_slice(&first);
        }
        Damage::Delete => {}
    }
    // In place: whoever has the file open sees it.
    fs::write(path, bytes).unwrap();
}

async fn ends_well(target: Target, damage: Damage, when: When) {
    let case = format!("{damage:?} of {target:?} while {when:?}");
    let mut pool = Pool::with_segments(2, 2, ByteSize::kib(64));
    let all: Vec<_> = (0..N_RECORDS).map(|n| record(n, RECORD_BYTES)).collect();
    for one in &all {
        put(&pool.node(1), std::slice::from_ref(one)).await;
    }
    // Some were touched since.
    for id in [1, 2] {
        pool.node(id).apply(authority(1, 6, None)).unwrap();
    }
    pool.node(1).have_local(&caller(1), all[..6].iter().map(|one| one.header.id).collect()).await.unwrap();
    let before: Vec<_> = all.iter().map(|one| protection(&pool.node(1), one).unwrap()).collect();
    put_pins(&pool.node(1), 1..=N_PINS);
    if when == When::Stopped {
        pool.stop(1).await;
    }
    apply(damage, &file_of(&pool, target).unwrap_or_else(|| panic!("{case}: no such file")));
    if when == When::Stopped {
        pool.open(1);
    }
    assert_eq!(pins_of(&pool.node(1)), expected_pins(), "{case}");
    // Never a wrong byte, before anything is healed: `serves` asserts that.
    for one in &all {
        serves(&pool.node(1), one).await;
    }
    pool.scrub(1).await;
    pool.round().await;
    if when == When::Running {
        pool.restart(1).await;
        pool.scrub(1).await;
        pool.round().await;
    }
    pool.round().await;
    for (one, before) in all.iter().zip(before) {
        for id in [1, 2] {
            assert!(serves(&pool.node(id), one).await, "{case}: a record is missing on node {id}");
        }
        let after = protection(&pool.node(1), one).unwrap();
        assert_eq!(after, Protection::higher(after, before), "{case}: protection was lowered");
    }
    // It was told too. What is appended to an open segment is only a torn tail; what stands beside segments holds no records.
    let is_told = match target {
        Target::Sealed => true,
        Target::Open => !matches!(damage, Damage::Append),
        // A last pin that is torn off was acknowledged to nobody.
        Target::Pins => matches!(damage, Damage::Flip(_) | Damage::Smear(..)),
        Target::Mark | Target::Index | Target::Queue | Target::Touches => false,
    };
    assert!(!is_told || pool.node(1).status().unwrap().quarantined_records > 0, "{case}: not reported");
    for id in [1, 2] {
        assert_eq!(backlog(&pool.node(id)), Backlog::default(), "{case}: node {id}");
    }
    assert_eq!(pool.node(1).store.n_records().unwrap(), u64::from(N_RECORDS), "{case}");
    if target == Target::Pins {
        // The pin segments alone tell every pin.
        pool.stop(1).await;
        pool.rigs[0].lose_state();
        pool.open(1);
    }
    assert_eq!(pins_of(&pool.node(1)), expected_pins(), "{case}");
}

fn put_pins(node: &Node, sequences: std::ops::RangeInclusive<u64>) {
    for n in sequences {
        assert_eq!(put_pin(node, n, n).unwrap().0, PinOutcome::Stored);
    }
}

fn pins_of(node: &Node) -> Vec<Bytes> {
    node.read_pins(&caller(9), 0).unwrap().pins
}

fn expected_pins() -> Vec<Bytes> {
    (1..=N_PINS).map(|n| pin(n, n, 5, 9_000_000_000).encode()).collect()
}

async fn all_end_well(target: Target, damages: &[Damage]) {
    for damage in damages {
        for when in [When::Running, When::Stopped] {
            ends_well(target, *damage, when).await;
        }
    }
}

/// Superblock, record headers (magic, lengths, id, hash of the ciphertext, checksum), ciphertexts, padding.
const IN_RECORDS: &[Damage] = {
    use Damage::{Duplicate, Flip, Smear, Swap};
    const SECOND: isize = 4_096 + 10_192;
    &[
        Flip(100),
        Flip(4_096),
        Flip(4_096 + 13),
        Flip(SECOND + 40),
        Flip(SECOND + 110),
        Flip(SECOND + 186),
        Flip(SECOND + 5_000),
        Flip(SECOND + 10_191),
        Smear(4_000, 300),
        Smear(SECOND - 100, 300),
        Smear(4_096, 25_000),
        Duplicate(0, 1),
        Swap(0, 2),
    ]
};

#[tokio::test(flavor = "multi_thread")]
async fn damage_of_records_in_a_sealed_segment_ends_well() {
    all_end_well(Target::Sealed, IN_RECORDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_of_records_in_the_open_segment_ends_well() {
    all_end_well(Target::Open, IN_RECORDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_of_the_end_of_a_sealed_segment_ends_well() {
    use Damage::{Append, Delete, Flip, Smear, Truncate};
    let footer_and_trailer = [Flip(-1), Flip(-20), Flip(-200), Smear(-300, 300)];
    let ends = [Truncate(-8), Truncate(-400), Truncate(-5_000), Truncate(4_096), Truncate(0), Append, Delete];
    all_end_well(Target::Sealed, &footer_and_trailer).await;
    all_end_well(Target::Sealed, &ends).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_of_the_end_of_the_open_segment_ends_well() {
    use Damage::{Append, Delete, Truncate};
    let ends = [Truncate(-8), Truncate(-5_000), Truncate(4_096), Truncate(0), Append, Delete];
    all_end_well(Target::Open, &ends).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_of_what_stands_beside_segments_ends_well() {
    use Damage::{Delete, Flip, Smear, Truncate};
    all_end_well(
        Target::Mark,
        &[Flip(20), Flip(4_096 + 20), Smear(0, 8_192), Truncate(100), Truncate(0), Delete],
    )
    .await;
    for damage in [Flip(0), Smear(0, 20_000), Truncate(5_000), Truncate(0), Delete] {
        // The queue is open and in memory while the node runs: what happens to its file then, the next start sees.
        ends_well(Target::Queue, damage, When::Stopped).await;
    }
    all_end_well(Target::Touches, &[Flip(0), Flip(-1), Truncate(10), Delete]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_of_the_index_ends_well() {
    use Damage::{Delete, Flip, Smear, Truncate};
    let whole = [Flip(0), Smear(0, 20_000), Smear(0, 4 << 20), Truncate(5_000), Truncate(0), Delete];
    all_end_well(Target::Index, &whole).await;
    // Anywhere in it, also where pages are: what a clean stop left is not believed without its checksums.
    let flips: Vec<_> = (1..12).map(|n| Flip(n * 8_192 + 77 * n)).collect();
    all_end_well(Target::Index, &flips).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_of_pin_segments_ends_well() {
    use Damage::{Append, Delete, Flip, Smear, Truncate};
    let len = isize::try_from(expected_pins()[0].len().next_multiple_of(8)).unwrap();
    let in_pins =
        [Flip(0), Flip(100), Flip(4_096), Flip(4_096 + 60), Flip(4_096 + len + 9), Smear(4_090, 30)];
    all_end_well(Target::Pins, &in_pins).await;
    let ends = [Truncate(4_096), Truncate(4_096 + len + 4), Truncate(50), Truncate(0), Append, Delete];
    all_end_well(Target::Pins, &ends).await;
}

/// A state is the one thing that nothing can tell again in full: what is damaged or gone is refused, by its name.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_state_is_refused_by_name_or_right() {
    use Damage::{Delete, Flip, Smear, Truncate};
    let len = isize::try_from(fs::metadata(state_of(&with_pins().await)).unwrap().len()).unwrap();
    let mut damages = vec![Smear(0, 4_096), Smear(0, 8 << 20), Truncate(5_000), Truncate(len / 2)];
    damages.extend([Truncate(0), Delete]);
    damages.extend((0..48).map(|n| Flip(n * len / 48 + 13 * n)));
    let mut n_refused = 0;
    for damage in damages {
        for when in [When::Running, When::Stopped] {
            let mut pool = with_pins().await;
            let case = format!("{damage:?} while {when:?}");
            if when == When::Stopped {
                pool.stop(1).await;
            }
            apply(damage, &state_of(&pool));
            if when == When::Running {
                pool.stop(1).await;
            }
            if let Err(refused) = pool.rigs[0].try_open() {
                assert!(refused.to_string().contains("state.redb"), "{case}: {refused}");
                n_refused += 1;
                // Again and again, until somebody decides.
                assert!(pool.rigs[0].try_open().is_err(), "{case}: refused only once");
                continue;
            }
            let node = pool.open(1);
            assert_eq!(pins_of(&node), expected_pins(), "{case}");
            assert_eq!(put_pin(&node, N_PINS + 1, N_PINS - 1).unwrap().0, PinOutcome::Fenced, "{case}");
            assert!(node.state.session(SESSION).is_some(), "{case}: a session is forgotten");
        }
    }
    assert!(n_refused > 8, "{n_refused}");
}

async fn with_pins() -> Pool {
    let mut pool = Pool::start(1, 1);
    pool.node(1).open_session(&caller(1), SESSION, None).unwrap();
    put_pins(&pool.node(1), 1..=N_PINS);
    pool.restart(1).await;
    pool
}

fn state_of(pool: &Pool) -> PathBuf {
    pool.rigs[0].options.data.join("state.redb")
}
