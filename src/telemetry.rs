//! What the daemon says while it runs: lines on stderr, as text or JSON, filtered as the configuration says. Nothing
//! here knows a secret, and what is logged elsewhere goes through [`crate::config::Secret`]'s mask.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Telemetry};

/// The AMQP client tells of each loss in its own words, at length; the bus tells it once, in ours.
const QUIET: &str = "lapin";

/// Begins to log. Called once; a second call (in a test's process) changes nothing.
pub fn start(telemetry: &Telemetry) {
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter(&telemetry.log));
    // Whether somebody was first is of no interest: then there is a log already.
    let started = match telemetry.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => {
            let color =
                std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            builder.with_ansi(color).try_init()
        }
    };
    drop(started);
}

/// The filter was checked with the configuration.
fn filter(log: &str) -> EnvFilter {
    let quiet = if log.contains(QUIET) { String::new() } else { format!(",{QUIET}=off") };
    EnvFilter::try_new(format!("{log}{quiet}")).unwrap_or_else(|_| EnvFilter::new("info"))
}
