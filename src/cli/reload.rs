//! `reload`: the definitions again, as SIGHUP does.

use super::args::Shared;
use super::check;
use super::exit::{Exit, Outcome};
use super::reach::Reach;

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sagad reload                  if a definition is wrong, nothing changes (exit 9)
  sagad reload --json")]
pub struct Args {}

pub fn reload(shared: &Shared, _args: &Args) -> Outcome {
    let output = shared.output();
    let reloaded = Reach::open(shared.load()?)?.reload()?;
    let wrong = reloaded.diagnostics.iter().any(|diagnostic| diagnostic.severity == "error");
    if output.is_json() {
        output.document(&reloaded)?;
    } else {
        output.data(&check::text(&reloaded.diagnostics))?;
        if wrong {
            output.say("nothing was changed");
        } else {
            output.say(&format!("{} definitions loaded", reloaded.loaded));
        }
    }
    Ok(if wrong { Exit::Found } else { Exit::Done })
}
