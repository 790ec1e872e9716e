//! What is allocated, and how much memory a process takes at its peak: such a process is a child.
//!
//! The allocator counts for the whole process: no other tests belong here.

#[cfg(feature = "near-cache")]
mod allocations;
#[cfg(feature = "near-cache")]
mod near;
#[path = "../support/mod.rs"]
mod support;
#[cfg(feature = "postgres")]
mod sync;
