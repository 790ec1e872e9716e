//! `completions`: prints a shell's completions of this tool.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Cli;
use crate::failure::{Exit, Failure};
use crate::output::Output;

pub fn completions(shell: Shell, output: &mut Output) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "bifrost-modules", &mut script);
    output.bytes(&script)?;
    Ok(Exit::Fine)
}
