//! A guard's run, from its beginning to its end.

use std::sync::atomic::Ordering::SeqCst;
use std::time::SystemTime;

use super::core::{Core, GuardIo};
use super::patrol::Patrol;
use crate::error::Error;
use crate::near::cache::SpawnListener;

/// Guards until it is stopped.
pub(crate) async fn run<T: SpawnListener, Io: GuardIo>(
    core: &Core<T>,
    io: &Io,
) -> Result<(), Error> {
    if core.runs.swap(true, SeqCst) {
        return Err(Error::invalid_config(
            "this guard runs already: make another one",
        ));
    }
    // Dropped with the future that was given up, too.
    let _runs = Running(core);
    core.record.begin();
    let mut patrol = Patrol::start(core, io)?;
    while !core.inbox.is_stopped() {
        core.record.lock().active = Some(SystemTime::now());
        if let Err(error) = patrol.step().await {
            patrol.failed(error)?;
        }
        let sleep = patrol.sleep();
        let news = core.inbox.news();
        core.client.transport.within(sleep, news).await;
    }
    patrol.farewell().await;
    Ok(())
}

/// A guard that runs, until this is dropped.
struct Running<'a, T>(&'a Core<T>);

impl<T> Drop for Running<'_, T> {
    fn drop(&mut self) {
        let mut record = self.0.record.lock();
        (record.running, record.since) = (false, None);
        (record.redis_up, record.database_up) = (false, false);
        drop(record);
        self.0.inbox.clear();
        self.0.runs.store(false, SeqCst);
    }
}
