//! `bifrost-modules`: the module cache from a shell, a script or an init container.
//!
//! It uses the crate's public API only. For its users: docs/tool.md.
//!
//! Answers go to standard output (`output`), all else to standard error (`stderr`), so that a pipe
//! gets nothing but what was asked for. A command returns an `Exit` or a `Failure`.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod drift;
mod failure;
mod format;
mod http;
mod output;
mod redact;
mod retry;
mod secrets;
mod servers;
mod signals;
mod stderr;
mod watchdog;

use std::process::ExitCode;

use clap::Parser as _;

use self::args::Cli;
use self::failure::Failure;
use self::output::Output;
use self::stderr::Stderr;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return secrets::print_usage(&error),
    };
    let stderr = Stderr::new(cli.output.quiet);
    let outcome = signals::listen(&stderr, &cli.command).and_then(|()| {
        stderr.take_warnings(cli.output.quiet, &cli.command);
        let mut output = Output::new(&cli.output, &stderr);
        let outcome = commands::run(&cli, &stderr, &mut output);
        // Flushed even where the command failed: a list that ends early is still worth reading. Its
        // own failure comes first, because without it the exit code would claim that all was
        // printed.
        output.flush().and(outcome)
    });
    stderr.clear();
    match outcome {
        Ok(exit) => exit.into(),
        Err(Failure { exit, message }) => {
            stderr.error(&message);
            exit.into()
        }
    }
}
