//! Each call as metrics of the crate `metrics`: `REDIS_URL=redis://localhost cargo run --example
//! metrics`.
//!
//! It writes to a namespace of its own and cleans up. A service installs an exporter instead of the
//! recorder that is printed here.

use std::error::Error;
use std::sync::Arc;

use bifrost_module_cache::blocking::ModuleWriter;
use bifrost_module_cache::{CachedModule, CallEnded, Config, Observe};
use metrics_util::debugging::DebuggingRecorder;

struct ToMetrics;

impl Observe for ToMetrics {
    fn call_ended(&self, call: &CallEnded) {
        let labels = [
            ("operation", call.operation),
            ("outcome", call.outcome.as_str()),
        ];
        metrics::histogram!("module_cache_call_seconds", &labels).record(call.elapsed);
        metrics::counter!("module_cache_call_bytes_total", &labels).increment(call.bytes);
        metrics::counter!("module_cache_retries_total", &labels).increment(call.retries.into());
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let recorder = DebuggingRecorder::new();
    let measured = recorder.snapshotter();
    recorder.install()?;

    let config = Config::from_env()?.with_namespace("example:");
    let writer = ModuleWriter::new(config.with_observer(Arc::new(ToMetrics)))?;
    let module = CachedModule::new("shared/halopsa.py", "x = 1\n")?;
    writer.set(&module)?;
    let reader = writer.reader();
    for path in ["shared/halopsa.py", "shared/halopsa.py", "shared/other.py"] {
        reader.get(path)?;
    }
    reader.resolve("shared.halopsa")?;
    writer.invalidate("shared/halopsa.py")?;

    for (key, _, _, value) in measured.snapshot().into_vec() {
        println!("{} = {value:?}", key.key());
    }
    // What a reader or writer has counted itself, for a page that Prometheus scrapes.
    let mut page = String::new();
    writer
        .stats()
        .write_prometheus(&mut page, &[("service", "example")])?;
    println!("\n{page}");
    Ok(())
}
