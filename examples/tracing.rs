//! Each call as an event of the crate `tracing`: `REDIS_URL=redis://localhost cargo run --example
//! tracing`.
//!
//! It writes to a namespace of its own and cleans up.

use std::error::Error;
use std::sync::Arc;

use bifrost_module_cache::blocking::ModuleWriter;
use bifrost_module_cache::{CachedModule, CallEnded, Config, Observe};
use tracing::{Level, debug, info_span, warn};

struct ToTracing;

impl Observe for ToTracing {
    /// It runs where the call was made, so the event belongs to the span around that.
    fn call_ended(&self, call: &CallEnded) {
        let (operation, outcome) = (call.operation, call.outcome.as_str());
        let (elapsed, retries, bytes) = (call.elapsed, call.retries, call.bytes);
        if call.outcome.is_failure() {
            warn!(
                operation,
                outcome,
                ?elapsed,
                retries,
                bytes,
                "call to Redis"
            );
        } else {
            debug!(
                operation,
                outcome,
                ?elapsed,
                retries,
                bytes,
                "call to Redis"
            );
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_max_level(Level::DEBUG)
        .init();

    let config = Config::from_env()?.with_namespace("example:");
    let writer = ModuleWriter::new(config.with_observer(Arc::new(ToTracing)))?;
    let module = CachedModule::new("shared/halopsa.py", "x = 1\n")?;
    writer.set(&module)?;
    let execution = info_span!("execution", id = 7);
    execution.in_scope(|| {
        let reader = writer.reader();
        reader.get("shared/halopsa.py")?;
        reader.get("shared/other.py")?;
        reader.resolve("shared.halopsa")
    })?;
    writer.invalidate("shared/halopsa.py")?;
    Ok(())
}
