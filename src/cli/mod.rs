//! The command line: one file per verb or family, parse → meaning → do. `output` is the only file that prints.

mod args;
mod check;
mod completions;
mod demo;
mod exit;
mod inbox;
mod journal;
mod list;
mod orders;
mod output;
mod publish;
mod reach;
mod reload;
mod run;
mod show;
mod status;
mod survey;
mod test;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use args::Shared;
use exit::{Exit, Outcome};

/// Sagas over RabbitMQ: moves processes forward, and takes everything back when a step fails.
#[derive(Debug, Parser)]
#[command(name = "sagad", version, max_term_width = 100, propagate_version = true, subcommand_required = true)]
#[command(arg_required_else_help = true, after_help = OVERVIEW)]
struct Cli {
    #[command(flatten)]
    shared: Shared,
    #[command(subcommand)]
    verb: Verb,
}

const OVERVIEW: &str = "\
Examples:
  sagad demo                               the whole thing in one process, no broker
  sagad check sagas/                       is every definition right?
  sagad run --sagas sagas --db sagad.db    the daemon
  sagad list --stuck                       what needs a person
  sagad show join-group/r1                 one instance on one screen

Exit codes: 0 ok, 1 failed, 2 usage, 3 no such instance, 4 conflict, 6 no daemon and no usable database,
7 not allowed, 9 check or test found something, 10 stuck. Of the daemon: 70 bug, 74 database, 78 configuration.";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the daemon
    Run(run::Args),
    /// Load the definitions again, as SIGHUP does
    Reload(reload::Args),
    /// Show everything at work in one process, without a broker
    Demo(demo::Args),
    /// Check definitions and configuration
    Check(check::Args),
    /// Run the scenarios of definitions
    Test(test::Args),
    /// Daemon, broker, backlog, counts
    Status(status::Args),
    /// Instances, the newest first
    List(list::Args),
    /// One instance on one screen
    Show(show::Args),
    /// Why an instance is where it is
    Why(show::WhyArgs),
    /// The turns of an instance
    Journal(journal::Args),
    /// How many instances there are, by saga, status, state or incident
    Count(survey::CountArgs),
    /// Messages that were set aside
    Inbox(inbox::Args),
    /// What the broker does not have yet
    Outbox(survey::OutboxArgs),
    /// Versions of definitions and how many instances live in each
    Definitions(survey::DefinitionsArgs),
    /// Resolve an incident by trying again
    Retry(orders::RetryArgs),
    /// Stop and take everything back
    Compensate(orders::CompensateArgs),
    /// Settle a step that is in doubt with what a person found out
    Resolve(orders::ResolveArgs),
    /// Put an event on the bus
    Publish(publish::Args),
    /// Print completions for a shell
    Completions(completions::Args),
    /// Print the manual page, or write all of them
    Man(completions::ManArgs),
}

/// Parses, does, and says how it went.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are data, everything else is talk; clap knows which.
            drop(error.print());
            return if error.use_stderr() { Exit::Usage.code() } else { Exit::Done.code() };
        }
    };
    match dispatch(&cli) {
        Ok(exit) => exit.code(),
        Err(failure) => {
            output::say_failure(&failure);
            failure.exit.code()
        }
    }
}

fn dispatch(cli: &Cli) -> Outcome {
    let shared = &cli.shared;
    match &cli.verb {
        Verb::Run(args) => run::run(shared, args),
        Verb::Demo(args) => demo::demo(shared, args),
        Verb::Reload(args) => reload::reload(shared, args),
        Verb::Check(args) => check::check(shared, args),
        Verb::Test(args) => test::test(shared, args),
        Verb::Status(args) => status::status(shared, args),
        Verb::List(args) => list::list(shared, args),
        Verb::Show(args) => show::show(shared, args),
        Verb::Why(args) => show::why(shared, args),
        Verb::Journal(args) => journal::journal(shared, args),
        Verb::Count(args) => survey::count(shared, args),
        Verb::Inbox(args) => inbox::inbox(shared, args),
        Verb::Outbox(args) => survey::outbox(shared, args),
        Verb::Definitions(args) => survey::definitions(shared, args),
        Verb::Retry(args) => orders::retry(shared, args),
        Verb::Compensate(args) => orders::compensate(shared, args),
        Verb::Resolve(args) => orders::resolve(shared, args),
        Verb::Publish(args) => publish::publish(shared, args),
        Verb::Completions(args) => completions::completions(shared, args),
        Verb::Man(args) => completions::man(shared, args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_of_every_verb_fit_together() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_shows_an_example() {
        use clap::CommandFactory;
        for verb in Cli::command().get_subcommands() {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("sagad {}", verb.get_name())), "{} has no example", verb.get_name());
        }
    }
}
