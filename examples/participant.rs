//! A participant in Rust: the users of join-group, each of them in at most three groups.
use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use rusqlite::{OptionalExtension, Result, Transaction, TransactionBehavior::Immediate};
use serde_json::{Value, json};
use std::env::var;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS membership (user TEXT, grp TEXT, command TEXT, PRIMARY KEY (user, grp));
    CREATE TABLE IF NOT EXISTS barrier (command TEXT PRIMARY KEY, type TEXT, body TEXT);";

/// The rule, guarded in one place.
fn acquire(db: &Transaction, command: &str, user: &str, group: &str) -> Result<(&'static str, String)> {
    let mut query = db.prepare("SELECT grp FROM membership WHERE user = ?")?;
    let groups: Vec<String> = query.query_map([user], |row| row.get(0))?.collect::<Result<_>>()?;
    if groups.iter().any(|known| known == group) || groups.len() >= 3 {
        let reason = format!("{user} is in {} already", groups.join(", "));
        return Ok(("MembershipRefused", json!({"reason": reason}).to_string()));
    }
    db.execute("INSERT INTO membership VALUES (?, ?, ?)", [user, group, command])?;
    Ok(("MembershipAcquired", json!({"user": user, "group": group}).to_string()))
}

/// The barrier: each command counts once, and not at all after its undo. Runs in one transaction.
fn handle(db: &Transaction, command: &str, undoes: Option<&str>, body: &Value) -> Result<(String, String)> {
    if let Some(undoes) = undoes {
        let too_late = r#"{"reason": "given up before it came"}"#;
        db.execute("INSERT OR IGNORE INTO barrier VALUES (?, 'MembershipRefused', ?)", [undoes, too_late])?;
        db.execute("DELETE FROM membership WHERE command = ?", [undoes])?;
        return Ok(("MembershipGivenUp".into(), "{}".into()));
    }
    let known = "SELECT type, body FROM barrier WHERE command = ?";
    if let Some(answer) = db.query_row(known, [command], |row| Ok((row.get(0)?, row.get(1)?))).optional()? {
        return Ok(answer);
    }
    let text = |field: &str| body[field].as_str().unwrap_or_default();
    let (answer, fields) = acquire(db, command, text("user"), text("group"))?;
    db.execute("INSERT INTO barrier VALUES (?, ?, ?)", [command, answer, &fields])?;
    Ok((answer.into(), fields))
}

/// Ends when the broker goes; started again it goes on where it was, for what was not acknowledged comes again.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut db = rusqlite::Connection::open(var("DB").unwrap_or_else(|_| "users.db".into()))?;
    db.execute_batch(TABLES)?;
    let url = var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1:5672".into());
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    declare(&channel).await?;
    let (none, consume) = (FieldTable::default(), BasicConsumeOptions::default());
    let mut commands = channel.basic_consume("users".into(), "".into(), consume, none).await?;
    while let Some(delivery) = commands.next().await.transpose()? {
        let command = delivery.properties.correlation_id().as_ref().map_or("", |id| id.as_str());
        let headers = delivery.properties.headers().clone().unwrap_or_default();
        let undoes = headers.inner().get("saga-undoes").and_then(|id| id.as_long_string()).map(ToString::to_string);
        let transaction = db.transaction_with_behavior(Immediate)?;
        let (answer, body) =
            handle(&transaction, command, undoes.as_deref(), &serde_json::from_slice(&delivery.data)?)?;
        transaction.commit()?; // only then is it answered
        let properties = BasicProperties::default()
            .with_type(answer.as_str().into())
            .with_message_id(format!("{command} {answer}").into()) // the same answer has the same id
            .with_correlation_id(command.into())
            .with_content_type("application/json".into())
            .with_delivery_mode(2);
        let (key, publish) = (answer.as_str().into(), BasicPublishOptions::default());
        let confirm = channel.basic_publish("events".into(), key, publish, body.as_bytes(), properties).await?;
        anyhow::ensure!(confirm.await?.is_ack(), "the broker did not take an answer");
        delivery.ack(BasicAckOptions::default()).await?;
    }
    anyhow::bail!("the broker ended the connection")
}

async fn declare(channel: &Channel) -> lapin::Result<()> {
    let none = FieldTable::default;
    for exchange in ["events", "commands"] {
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        channel.exchange_declare(exchange.into(), ExchangeKind::Topic, durable, none()).await?;
    }
    channel.queue_declare("users".into(), QueueDeclareOptions::durable(), none()).await?;
    let bind = QueueBindOptions::default();
    channel.queue_bind("users".into(), "commands".into(), "users.*".into(), bind, none()).await?;
    channel.basic_qos(50, BasicQosOptions::default()).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await
}
