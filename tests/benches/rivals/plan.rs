//! What of the comparison is run: all of it, or single steps while one looks for what takes the time.

use super::Phase;

/// The contestants, Holdfast first.
pub const NAMES: [&str; 5] = ["holdfast", "restic", "rustic", "borg", "borg-zstd3"];
const DEFAULT_MIB: u64 = 1_024;
const DEFAULT_ROUNDS: usize = 3;

/// Read from words such as `256 only=holdfast,restic phases=first,restore,restore rounds=1`.
pub struct Plan {
    pub mib: u64,
    pub names: Vec<&'static str>,
    /// In this order; a phase may come several times.
    pub phases: Vec<Phase>,
    pub rounds: usize,
}

impl Plan {
    /// Whatever starts with a dash is cargo's.
    pub fn read(words: impl Iterator<Item = String>) -> Self {
        let mut plan = Self {
            mib: DEFAULT_MIB,
            names: NAMES.to_vec(),
            phases: Phase::ALL.to_vec(),
            rounds: DEFAULT_ROUNDS,
        };
        for word in words.filter(|word| !word.starts_with('-')) {
            match word.split_once('=') {
                None => plan.mib = word.parse().expect("a number of MiB"),
                Some(("rounds", number)) => plan.rounds = number.parse().expect("a number of rounds"),
                Some(("only", names)) => plan.names = list(names, |name| name, &NAMES),
                Some(("phases", phases)) => plan.phases = list(phases, |phase| phase.word(), &Phase::ALL),
                Some(_) => panic!("{word}: only, phases and rounds can be set"),
            }
        }
        assert_eq!(plan.names.first(), Some(&NAMES[0]), "holdfast is what the others are compared with");
        plan
    }
}

fn list<T: Copy>(words: &str, word_of: impl Fn(T) -> &'static str, all: &[T]) -> Vec<T> {
    let one = |word: &str| all.iter().copied().find(|one| word_of(*one) == word);
    words.split(',').map(|word| one(word).unwrap_or_else(|| panic!("{word} is not known"))).collect()
}
