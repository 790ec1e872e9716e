//! `bifrost-modules`: the module cache from a shell, a script or an init container.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod failure;
mod output;
mod patience;
mod redact;
mod screen;
mod secrets;
mod servers;
mod signals;
mod wait;

use std::process::ExitCode;

use clap::Parser as _;

use self::args::Cli;
use self::failure::Failure;
use self::output::Output;
use self::screen::Screen;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return secrets::print_usage(&error),
    };
    let screen = Screen::new(cli.output.quiet);
    let outcome = signals::listen(&screen, cli.command.writes()).and_then(|()| {
        screen.take_warnings(cli.output.quiet);
        let mut output = Output::new(&cli.output, &screen);
        let outcome = commands::run(&cli, &screen, &mut output);
        // What was found is said even where something failed.
        output.flush().and(outcome)
    });
    screen.clear();
    match outcome {
        Ok(exit) => exit.into(),
        Err(Failure { exit, message }) => {
            screen.error(&message);
            exit.into()
        }
    }
}
