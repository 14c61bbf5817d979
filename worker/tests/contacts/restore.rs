use crate::harness::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wiped_contacts_come_back_property_by_property_and_once() {
    World::new(40).await.assert_comes_back_once(|_, _| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contacts_come_back_through_faults_of_every_kind() {
    World::new(30).await.assert_comes_back_through_faults(|_, _| {}).await;
}
