//! `completions` and `man`: what the binary knows of itself, for shells and for `man`.

use std::path::PathBuf;

use clap::CommandFactory;

use super::Cli;
use super::args::Shared;
use super::exit::{Exit, Failure, Outcome};

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sagad completions bash > /etc/bash_completion.d/sagad
  sagad completions zsh > ~/.zfunc/_sagad")]
pub struct Args {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: clap_complete::Shell,
}

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sagad man | man -l -
  sagad man --dir /usr/local/share/man/man1")]
pub struct ManArgs {
    /// Write a page for each verb into this folder
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub fn completions(shared: &Shared, args: &Args) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sagad", &mut text);
    shared.output().data(&String::from_utf8_lossy(&text))?;
    Ok(Exit::Done)
}

pub fn man(shared: &Shared, args: &ManArgs) -> Outcome {
    if let Some(dir) = &args.dir {
        clap_mangen::generate_to(Cli::command(), dir)
            .map_err(|error| Failure::new(Exit::Failed, format!("cannot write to {}: {error}", dir.display())))?;
    } else {
        let mut text = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut text)?;
        shared.output().data(&String::from_utf8_lossy(&text))?;
    }
    Ok(Exit::Done)
}
