//! `man`: prints the man page.

use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::args::Cli;
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// The page of the tool, or of one of its commands, to which that refers.
pub fn man(command: Option<&str>, output: &mut Output) -> Result<Exit, Failure> {
    let mut tool = Cli::command();
    tool.build();
    let described = match command {
        None => Some(&tool),
        Some(name) => tool.find_subcommand(name),
    };
    let unknown = || Failure::usage("there is no such command: --help lists them");
    let mut page = Vec::new();
    let written = Man::new(described.ok_or_else(unknown)?.clone()).render(&mut page);
    written.map_err(|error| Failure::refused(format!("can't write the man page: {error}")))?;
    output.bytes(&page)?;
    Ok(Exit::Fine)
}
