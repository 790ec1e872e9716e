//! What the tool can do, a module per concern.

mod change;
mod complete;
mod diagnose;
mod diff;
mod explain;
mod explain_name;
mod finding;
mod get;
mod ls;
mod publish;
mod resolve;
mod status;
mod sync;
mod text;
mod watch;

use crate::args::{Cli, Command};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::screen::Screen;
use crate::servers::Servers;

pub fn run(cli: &Cli, screen: &Screen, output: &mut Output) -> Result<Exit, Failure> {
    let servers = || Servers::new(&cli.servers);
    match &cli.command {
        Command::Warm { wait, removals } => {
            sync::warm(&servers()?, screen, output, *wait, *removals)
        }
        Command::Status => status::status(&servers()?, output),
        Command::Verify => sync::verify(&servers()?, screen, output),
        Command::Repair { removals } => sync::repair(&servers()?, screen, output, *removals),
        Command::Ls { prefix } => ls::ls(&servers()?, output, prefix),
        Command::Get { path } => get::get(&servers()?, output, path),
        Command::Resolve { names } => resolve::resolve(&servers()?, output, names),
        Command::Explain { subject } => explain::explain(&servers()?, output, subject),
        Command::Diff { path } => diff::diff(&servers()?, output, path),
        Command::Publish {
            dir,
            exact,
            removals,
        } => publish::publish(&servers()?, screen, output, dir, *exact, *removals),
        Command::Refresh { paths } => change::refresh(&servers()?, screen, output, paths),
        Command::Rm { paths } => change::rm(&servers()?, output, paths),
        Command::Mv { old, new } => change::mv(&servers()?, output, old, new),
        Command::Clear { .. } => change::clear(&servers()?, output),
        Command::Watch { prefix } => watch::watch(&servers()?, output, prefix),
        Command::Completions { shell } => complete::completions(*shell, output),
        Command::Man { command } => complete::man(command.as_deref(), output),
    }
}
