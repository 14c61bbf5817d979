//! What a restore of any workload must do.

use holdfast_graph_sim::differences_of;
use holdfast_model::{ConflictPolicy, Workload};
use holdfast_worker::restore::Restored;
use serde_json::{Value, json};

use super::{World, failures};

/// Takes out of two truths what a restore cannot keep, and says so elsewhere.
pub type Comparable = fn(&mut [Value], &mut [Value]);

impl World {
    /// What the simulator holds of a user.
    pub async fn truth_list(&self) -> Vec<Value> {
        self.sim.truth_of(self.sim_workload(), &self.user.id).await.unwrap()
    }

    async fn wipe(&self) {
        self.control("wipe", json!({"user": self.user.id, "workload": self.sim_workload()})).await;
        assert_eq!(self.truth_list().await, Vec::<Value>::new());
    }

    async fn assert_same_as(&self, before: &[Value], comparable: Comparable) {
        let (mut before, mut after) = (before.to_vec(), self.truth_list().await);
        comparable(&mut before, &mut after);
        assert_eq!(differences_of(&before, &after), Vec::<String>::new());
    }

    fn assert_harmless(&self) {
        let counters = self.counters();
        assert_eq!(counters.would_have_sent_mail, 0, "{:?}", counters.would_have_sent);
        assert!(counters.openapi_violations.is_empty(), "{:?}", counters.openapi_violations);
    }

    /// A wiped resource comes back property by property, once however often it is restored, also to somebody else.
    pub async fn assert_comes_back_once(&mut self, comparable: Comparable) {
        self.back_up().await;
        let before = self.truth_list().await;
        let n = before.iter().filter(|one| one["kind"] != "folder").count() as u64;
        self.wipe().await;
        let restored = self.restore("r1", "", ConflictPolicy::Skip).await;
        assert_stored(&restored, n);
        self.assert_same_as(&before, comparable).await;

        let again = self.restore("r1", "", ConflictPolicy::Rename).await;
        assert_eq!((again.account.stored, again.account.unchanged), (0, n));
        self.assert_same_as(&before, comparable).await;
        let other = self.restore("r2", "", ConflictPolicy::Skip).await;
        // A drive's file that is there with the same content is the restored one, whichever restore wrote it.
        let is_known_by_content = self.workload == Workload::OneDrive;
        let (skipped, unchanged) = if is_known_by_content { (0, n) } else { (n, 0) };
        assert_eq!(failures(&other.account), 0);
        assert_eq!((other.account.skipped, other.account.unchanged), (skipped, unchanged));
        let replaced = self.restore("r3", "", ConflictPolicy::Replace).await;
        assert_stored(&replaced, if is_known_by_content { 0 } else { n });
        self.assert_same_as(&before, comparable).await;

        self.user = self.sim.users().into_iter().nth(1).unwrap();
        self.wipe().await;
        let elsewhere = self.restore("r4", "", ConflictPolicy::Skip).await;
        assert_stored(&elsewhere, n);
        self.assert_same_as(&before, comparable).await;
        let below = self.restore("r5", "Restored", ConflictPolicy::Skip).await;
        assert_stored(&below, n);
        let after = self.truth_list().await;
        assert_eq!(after.iter().filter(|one| one["kind"] != "folder").count() as u64, 2 * n);
        self.assert_harmless();
    }

    /// The same while Microsoft fails at everything now and then; an attempt that failed is run again with the same key.
    pub async fn assert_comes_back_through_faults(&mut self, comparable: Comparable) {
        self.back_up().await;
        let before = self.truth_list().await;
        self.wipe().await;
        self.faults(
            json!({"seed": 3, "rate-429": 0.02, "rate-503": 0.03, "rate-reset": 0.05, "rate-truncate": 0.1}),
        )
        .await;
        let mut last = self.restore_paths(&[], ("r1", "", ConflictPolicy::Rename)).await;
        for _ in 0..20 {
            if last.as_ref().is_ok_and(|restored| failures(&restored.account) == 0) {
                break;
            }
            last = self.restore_paths(&[], ("r1", "", ConflictPolicy::Rename)).await;
        }
        let last = last.unwrap();
        assert_eq!(failures(&last.account), 0, "{:?}", last.failed);
        self.faults(json!({"rate-429": 0.0, "rate-503": 0.0, "rate-reset": 0.0, "rate-truncate": 0.0})).await;
        assert!(!self.counters().faults.is_empty());
        self.assert_same_as(&before, comparable).await;
        self.assert_harmless();
    }
}

fn assert_stored(restored: &Restored, n: u64) {
    assert_eq!(restored.failed, [], "{:?}", restored.account);
    assert_eq!((restored.account.stored, failures(&restored.account)), (n, 0));
}
