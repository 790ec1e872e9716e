//! For the tests of what keeps cache and database in step.

mod convergence;
mod gate;
mod lent;
mod syncing;
mod world;

pub use self::convergence::{Faults, Protocol, Round, Size, round};
pub use self::gate::Gate;
pub use self::lent::LentPostgres;
pub use self::syncing::{Syncing, after, at_each};
pub use self::world::{
    Entry, Foreign, LIMIT, Table, World, json, module, numbered, patient, writer,
};

use std::sync::atomic::{AtomicBool, Ordering};

/// Tells others to stop when it is dropped, be it because its owner panics.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
