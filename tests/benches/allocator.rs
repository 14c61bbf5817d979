//! The allocator that the `holdfast` binary has: a bench that plays the worker must not pay for another one's page faults.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
