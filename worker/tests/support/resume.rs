//! What a backup of any workload must do that is killed, or that Microsoft fails.

use holdfast_worker::CheckpointEvery;
use serde_json::json;

use super::World;

/// What a world holds that is backed up by a job that is killed.
pub const N_KILLED: u32 = 120;
/// And that of an incremental one.
pub const N_KILLED_LATER: u32 = 100;

impl World {
    /// A first backup of [`N_KILLED`] items goes on from its checkpoint; `n_fetched` says how often something of an item was
    /// fetched.
    pub async fn assert_goes_on_from_its_checkpoint(&mut self, n_fetched: fn(&World) -> u64) {
        self.control("options", json!({"page-size-max": 10})).await;
        self.options.checkpoint_every = CheckpointEvery { items: 20, seconds: 1_000 };
        self.attempt_killed_at(2).await;
        assert!(n_fetched(self) >= 20);
        let finished = self.back_up().await;
        let n = u64::from(N_KILLED);
        assert_eq!((finished.account.listed, finished.account.accounted()), (n, n));
        assert_eq!(n_fetched(self), n, "nothing is fetched twice");
        self.check_snapshot().await;
    }

    /// An incremental backup that is killed forgets nothing of what changed among [`N_KILLED_LATER`] items, of which so many have
    /// their flags changed; `n_removed` is what eight deletions and eight moves are to the workload.
    pub async fn assert_killed_incremental_forgets_no_change(&mut self, n_flags: u64, n_removed: u64) {
        self.control("options", json!({"page-size-max": 5})).await;
        self.back_up().await;
        let changes = json!({"seed": 8, "new": 12, "edited": 8, "moved": 8, "deleted": 8, "flags": n_flags});
        self.evolve(changes).await;
        self.options.checkpoint_every = CheckpointEvery { items: 4, seconds: 1_000 };
        self.forget_checkpoints();
        self.attempt_killed_at(2).await;
        let finished = self.back_up().await;
        assert_eq!(finished.account.removed, n_removed);
        self.check_snapshot().await;
    }

    /// Backups while Microsoft fails at everything now and then, in small pages, lose nothing; `n_removed` is what six deletions and
    /// six moves are to the workload.
    pub async fn assert_faults_lose_nothing(&mut self, seed: u64, (n_flags, n_removed): (u64, u64)) {
        let faults = json!({"seed": seed, "rate-503": 0.03, "rate-504": 0.02, "rate-reset": 0.02,
            "rate-truncate": 0.02, "rate-duplicate-in-page": 0.3, "rate-phantom-removed": 0.3,
            "rate-empty-page": 0.2, "rate-expired-delta": 0.1});
        self.faults(faults).await;
        self.control("options", json!({"page-size-max": 7})).await;
        let first = self.back_up().await;
        assert!(first.failed.is_empty(), "{:?}", first.failed);
        self.check_snapshot().await;
        let changes =
            json!({"seed": seed, "new": 6, "edited": 6, "moved": 6, "deleted": 6, "flags": n_flags});
        self.evolve(changes).await;
        let second = self.back_up().await;
        assert_eq!(second.account.removed, n_removed);
        self.check_snapshot().await;
        assert!(!self.counters().faults.is_empty());
    }
}
