//! A connection to the broker, and what both modes need of it: the exchanges, properties, a word on stderr.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use lapin::options::ExchangeDeclareOptions;
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};

/// A mute peer is given up after this.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);

/// Between two attempts to connect: short, for the tests take the broker away and bring it back.
pub const BACK_AFTER: Duration = Duration::from_millis(250);

pub const EVENTS: &str = "events";
pub const COMMANDS: &str = "commands";

pub async fn connect(url: &str) -> Result<Connection> {
    let connecting = Connection::connect(url, ConnectionProperties::default());
    Ok(tokio::time::timeout(CONNECT_WITHIN, connecting).await.context("no answer from the broker")??)
}

pub async fn declare_exchanges(channel: &Channel) -> Result<()> {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    for exchange in [EVENTS, COMMANDS] {
        channel.exchange_declare(exchange.into(), ExchangeKind::Topic, durable, FieldTable::default()).await?;
    }
    Ok(())
}

/// Persistent JSON with a type and an id.
pub fn properties(kind: &str, message_id: &str) -> Result<BasicProperties> {
    Ok(BasicProperties::default()
        .with_type(short(kind)?)
        .with_message_id(short(message_id)?)
        .with_content_type("application/json".into())
        .with_delivery_mode(2))
}

pub fn short(text: &str) -> Result<ShortString> {
    ShortString::try_new(text).map_err(|_| anyhow::anyhow!("longer than 255 bytes: {text}"))
}

/// Talk goes to stderr; that nobody reads it is no reason to stop.
pub fn say(text: &str) {
    let _nobody_reads = writeln!(std::io::stderr(), "participants: {text}");
}

/// Says an error once, however often it comes in a row.
#[derive(Default)]
pub struct Grumble {
    last: Option<String>,
}

impl Grumble {
    pub fn about(&mut self, error: &anyhow::Error) {
        let text = format!("{error:#}");
        if self.last.as_ref() != Some(&text) {
            say(&format!("{text}; coming back"));
            self.last = Some(text);
        }
    }
}

/// Data goes to stdout, a line each.
pub fn print(line: &serde_json::Value) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}
