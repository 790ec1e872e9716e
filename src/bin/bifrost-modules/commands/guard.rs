//! `guard`: keeps the cache equal to the database until it is stopped.

use bifrost_module_cache::blocking::Guard;
use bifrost_module_cache::guard::GuardOptions;

use crate::args::{GuardArgs, Limits};
use crate::failure::{Exit, Failure};
use crate::http;
use crate::output::Output;
use crate::servers::Servers;
use crate::signals;
use crate::stderr::Stderr;

pub fn guard(
    servers: &Servers<'_>,
    stderr: &Stderr,
    output: &mut Output,
    args: &GuardArgs,
    limits: Limits,
) -> Result<Exit, Failure> {
    if args.print_trigger {
        output.bytes(servers.trigger_sql()?.as_bytes())?;
        return Ok(Exit::Fine);
    }
    let database = servers.needed_database()?;
    let writer = servers.writer()?;
    let mut options = GuardOptions::default()
        .with_poll(args.poll)
        .with_listen(args.listen)
        .with_grace(args.grace)
        .with_sweep(args.sweep)
        .with_standby(args.standby)
        .with_answer_timeout(servers.timeout())
        .with_allow_empty(limits.allow_empty);
    if let Some(share) = limits.max_prune {
        options = options.with_max_prune(share);
    }
    let guard = Guard::new(writer.clone(), options)?;
    if let Some(address) = args.metrics {
        let bound = http::serve(address, guard.clone(), writer)?;
        if output.reports() {
            stderr.info(&format!("Metrics and probes are on http://{bound}"));
        }
    }
    let stop = guard.clone();
    signals::end_with(move || stop.stop())?;
    let run = guard.run(database.connector());
    run.map_err(|error| database.failure(error))?;
    Ok(Exit::Fine)
}
