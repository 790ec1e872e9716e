//! What the tool can do, a file per command.

mod clear;
mod completions;
mod diff;
mod explain;
mod get;
mod guard;
mod ls;
mod man;
mod mv;
mod publish;
mod refresh;
mod repair;
mod resolve;
mod rm;
mod status;
mod verify;
mod warm;
mod watch;

use crate::args::{Cli, Command};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::servers::Servers;
use crate::stderr::Stderr;

pub fn run(cli: &Cli, stderr: &Stderr, output: &mut Output) -> Result<Exit, Failure> {
    let servers = || Servers::new(&cli.servers);
    match &cli.command {
        Command::Warm { wait, removals } => {
            warm::warm(&servers()?, stderr, output, *wait, *removals)
        }
        Command::Status => status::status(&servers()?, output),
        Command::Verify => verify::verify(&servers()?, stderr, output),
        Command::Repair { removals } => repair::repair(&servers()?, stderr, output, *removals),
        Command::Ls { prefix } => ls::ls(&servers()?, output, prefix),
        Command::Get { path } => get::get(&servers()?, output, path),
        Command::Resolve { names } => resolve::resolve(&servers()?, output, names),
        Command::Explain { subject } => explain::explain(&servers()?, output, subject),
        Command::Diff { path } => diff::diff(&servers()?, output, path),
        Command::Publish {
            dir,
            exact,
            removals,
        } => publish::publish(&servers()?, stderr, output, dir, *exact, *removals),
        Command::Refresh { paths } => refresh::refresh(&servers()?, stderr, output, paths),
        Command::Rm { paths } => rm::rm(&servers()?, output, paths),
        Command::Mv { old, new } => mv::mv(&servers()?, output, old, new),
        Command::Clear { .. } => clear::clear(&servers()?, output),
        Command::Watch { prefix } => watch::watch(&servers()?, output, prefix),
        Command::Guard { guard, limits } => {
            guard::guard(&servers()?, stderr, output, guard, *limits)
        }
        Command::Completions { shell } => completions::completions(*shell, output),
        Command::Man { command } => man::man(command.as_deref(), output),
    }
}
