//! `check`: definitions and configuration, before anything runs.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::args::{Shared, environment};
use super::exit::{Exit, Failure, Outcome};
use super::output::{Cell, Form, Output, Tone};
use crate::api;
use crate::config::{Config, Explained, Flags, Origin, Problem};
use crate::desk::definitions::{self, Read};
use crate::desk::settings;
use crate::saga::diagnostic::{Diagnostic, Severity};
use crate::saga::machine::Place;
use crate::scenario;

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  sagad check                        the configured folder, and the configuration
  sagad check sagas/join-group.yaml --deny warnings
  sagad check --explain              each configuration value and where it comes from
  sagad check --json                 for editors and pipelines (exit 9 if anything is wrong)")]
pub struct Args {
    /// Files, or folders of *.yaml [default: the configured sagas folder]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The folder of the definitions
    #[arg(long, value_name = "DIR")]
    sagas: Option<PathBuf>,
    /// Let warnings fail too
    #[arg(long, value_name = "WHAT", value_parser = ["warnings"])]
    deny: Option<String>,
    /// Show each configuration value and where it comes from
    #[arg(long)]
    explain: bool,
    /// Connect to the broker and verify the topology too
    #[arg(long)]
    broker: bool,
}

pub fn check(shared: &Shared, args: &Args) -> Outcome {
    let output = shared.output();
    let flags = Flags { sagas: args.sagas.clone(), ..shared.flags() };
    let (config, mut found) = match Config::load(&flags, &environment()) {
        Ok(config) => {
            let mut read = read(args, &config)?;
            read.diagnostics.extend(settings::bus(&config).err().map(|error| wrong_url(&config, &error.to_string())));
            (Some(config), read)
        }
        Err(problems) => {
            // The configuration is wrong: what was named is looked at all the same.
            let mut read = if args.paths.is_empty() { Read::default() } else { definitions_at(&args.paths)? };
            read.diagnostics.extend(problems.iter().map(definitions::of_problem));
            (None, read)
        }
    };
    scenarios(&mut found)?;
    if args.broker
        && let Some(config) = &config
    {
        found.diagnostics.extend(crate::daemon::check_broker(config, &found.machines));
    }
    tell(&output, &found, config.as_ref().filter(|_| args.explain))?;
    let denied = args.deny.is_some() && !found.diagnostics.is_empty();
    Ok(if found.has_errors() || denied { Exit::Found } else { Exit::Done })
}

/// What only the bus can tell of its URL.
fn wrong_url(config: &Config, error: &str) -> Diagnostic {
    let origin = config.explained.iter().find(|line| line.key == "bus.url").map(|line| &line.origin);
    let (file, line) = match origin {
        Some(Origin::File { path, line }) => (path.clone(), *line),
        Some(other) => (other.to_string(), 1),
        None => (String::new(), 1),
    };
    definitions::of_problem(&Problem {
        file,
        place: Place { line, column: 1, end_line: line, end_column: 1 },
        message: format!("bus.url: {error}"),
        hint: "write amqp://user@host:5672/vhost, or amqps:// for TLS".to_owned(),
    })
}

/// The mistakes of scenario files, each beside the definitions of its folder.
fn scenarios(found: &mut Read) -> Result<(), Failure> {
    for file in std::mem::take(&mut found.scenarios) {
        let name = file.display().to_string();
        let text = match definitions::text_of(&file) {
            Ok(text) => text,
            Err(reason) => {
                found.diagnostics.push(definitions::unreadable(name, &reason));
                continue;
            }
        };
        let own = definitions::definition_of(&file);
        let folder = definitions_at(&[definitions::folder_of(&file).to_owned()])?;
        // A definition that is wrong is told with its own mistakes, not with those that follow in its scenarios.
        if folder.errors_of(&own).is_empty() {
            found.diagnostics.extend(scenario::check_file(&file, &text, &folder.machines));
            found.sources.insert(name, text);
        }
    }
    Ok(())
}

fn read(args: &Args, config: &Config) -> Result<Read, Failure> {
    if !args.paths.is_empty() {
        return definitions_at(&args.paths);
    }
    definitions::configured(config).map_err(|missing| {
        Failure::usage(missing.to_string()).hint("name the folder of the definitions: sagad check PATH, or --sagas DIR")
    })
}

fn definitions_at(paths: &[PathBuf]) -> Result<Read, Failure> {
    definitions::read(paths).map_err(|missing| Failure::usage(missing.to_string()).hint("name a file or a folder"))
}

fn tell(output: &Output, found: &Read, explain: Option<&Config>) -> Result<(), Failure> {
    let diagnostics: Vec<api::Diagnostic> = found.diagnostics.iter().map(definitions::view).collect();
    match output.form {
        Form::Json => {
            output.document(&api::Checked { format: api::Format, diagnostics, configuration: explain.map(values) })?;
        }
        Form::Jsonl => output.rows(&(), &diagnostics)?,
        Form::Table | Form::Wide | Form::Id => {
            if let Some(config) = explain {
                explained(output, config)?;
            }
            output.data(&found.text())?;
        }
    }
    let count = |severity| found.diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let counted = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    output.say(&format!(
        "{}, {}, {}",
        counted(found.machines.len(), "definition"),
        counted(errors, "error"),
        counted(warnings, "warning")
    ));
    Ok(())
}

fn values(config: &Config) -> Vec<api::ConfigurationValue> {
    let value = |line: &Explained| api::ConfigurationValue {
        key: line.key.clone(),
        value: line.value.clone(),
        origin: line.origin.to_string(),
    };
    config.explained.iter().map(value).collect()
}

fn explained(output: &Output, config: &Config) -> Result<(), Failure> {
    let rows = config.explained.iter().map(|line| {
        let value = if line.value.is_empty() { "-" } else { &line.value };
        let tone = if line.origin == Origin::Default { Tone::Dim } else { Tone::Plain };
        vec![Cell::from(&line.key), Cell::from(value), Cell::toned(line.origin.to_string(), tone)]
    });
    output.table(&["KEY", "VALUE", "FROM"], &rows.collect::<Vec<_>>())
}

/// Diagnostics that came without their files' text.
pub fn text(diagnostics: &[api::Diagnostic]) -> String {
    let mut text = String::new();
    for diagnostic in diagnostics {
        let api::Diagnostic { severity, code, message, hint, file, line, column, .. } = diagnostic;
        writeln!(text, "{file}:{line}:{column}: {severity}[{code}]: {message}\n  = hint: {hint}")
            .expect("a text takes every line");
    }
    text
}
