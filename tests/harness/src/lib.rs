//! What the scenarios stand on: real services on private ports with private folders, the real binary in real processes, a
//! simulated tenant, and comparison against the truth.
//!
//! Everything a test starts it also ends, when the value is dropped. Set `HOLDFAST_TEST_KEEP=1` to keep the folders.
#![allow(clippy::print_stderr, clippy::print_stdout, clippy::disallowed_methods, missing_docs)]

pub mod cluster;
pub mod damage;
pub mod eventually;
pub mod lone_node;
pub mod process;
pub mod protected;
pub mod records;
pub mod services;
pub mod sim;
pub mod single_node;
pub mod small_disk;
pub mod storage_pool;

pub use cluster::{Cluster, ClusterOptions};
pub use eventually::eventually;
pub use storage_pool::{PoolOptions, StoragePool};
