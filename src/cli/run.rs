//! `run`: the daemon.

use std::path::PathBuf;

use super::args::{Shared, environment, problem_line};
use super::exit::{Exit, Failure, Outcome};
use super::output;
use crate::config::{Config, Flags, Secret};
use crate::daemon::{self, Stopped};

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sagad run
  sagad run --sagas sagas --db /var/lib/sagad/sagad.db --amqp-url amqp://broker.internal:5672/prod
  SAGAD_BUS__URL=amqp://me:secret@broker/prod sagad run

Signals: SIGTERM and SIGINT stop in order, SIGHUP loads the definitions again.
Exit codes: 0 stopped in order, 70 bug, 74 database failed or owned by another daemon, 78 configuration or
definitions wrong.")]
pub struct Args {
    /// The folder of the definitions
    #[arg(long, value_name = "DIR")]
    sagas: Option<PathBuf>,
    /// The broker, without a password
    #[arg(long, value_name = "URL")]
    amqp_url: Option<String>,
}

pub fn run(shared: &Shared, args: &Args) -> Outcome {
    if let Some(url) = &args.amqp_url
        && Secret::new(url.as_str()).has_password()
    {
        return Err(Failure::usage("--amqp-url holds a password, which every user of this machine could read")
            .hint("put the URL into $SAGAD_BUS__URL, or into a file that bus.url_file names"));
    }
    let flags = Flags { sagas: args.sagas.clone(), amqp_url: args.amqp_url.clone(), ..shared.flags() };
    let config = Config::load(&flags, &environment()).map_err(|problems| {
        output::say(&problems.iter().map(problem_line).collect::<Vec<_>>().join("\n"));
        Failure::new(Exit::Configuration, "the configuration is wrong; nothing was started")
    })?;
    match daemon::run(config) {
        Stopped::InOrder => Ok(Exit::Done),
        Stopped::Definitions { diagnostics } => {
            output::say(&diagnostics);
            Err(Failure::new(Exit::Configuration, "the definitions are wrong; nothing was started"))
        }
        Stopped::Configuration { message, hint } => Err(Failure::new(Exit::Configuration, message).hint(hint)),
        Stopped::Database { message, hint } => {
            let failure = Failure::new(Exit::Database, message);
            Err(match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            })
        }
        Stopped::Bug { message } => Err(Failure::new(Exit::Bug, message)
            .hint("this is a defect of sagad's; the database is as its last commit left it, start it again")),
    }
}
