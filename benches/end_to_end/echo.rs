//! The ceiling: consume, publish persistent with confirm, acknowledge, in batches as the daemon does it, and no more.

use std::time::Instant;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};

use crate::broker::Broker;
use crate::daemon::{fill, quorum_queue};
use crate::{Figure, as_float, cpu_us};

/// As the daemon's defaults have it.
const PREFETCH: u16 = 512;
const BATCH: usize = 256;

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
pub async fn measured(broker: &Broker, run: usize, events: usize) -> Figure {
    let client = broker.client().await;
    let (from, to) = (format!("echo-in-{run}"), format!("echo-out-{run}"));
    quorum_queue(&client, &from).await;
    quorum_queue(&client, &to).await;
    fill(&client, "", &from, events, |_| serde_json::json!({"note": "x".repeat(280)})).await;
    let url = broker.url();
    let connect = || Connection::connect(&url, ConnectionProperties::default());
    let (consuming, publishing) = (connect().await.expect("it runs"), connect().await.expect("it runs"));
    let input = consuming.create_channel().await.expect("a channel");
    let output = publishing.create_channel().await.expect("a channel");
    output.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    input.basic_qos(PREFETCH, BasicQosOptions::default()).await.expect("a prefetch");
    let options = BasicConsumeOptions::default();
    let consumer = input.basic_consume(from.as_str().into(), "echo".into(), options, FieldTable::default());
    let mut batches = consumer.await.expect("a consumer").ready_chunks(BATCH);
    let (began, cpu) = (Instant::now(), cpu_us(std::process::id()));
    let mut done = 0;
    while done < events {
        let batch = batches.next().await.expect("it goes on");
        let deliveries: Vec<_> = batch.into_iter().map(|delivery| delivery.expect("a delivery")).collect();
        let mut confirms = Vec::with_capacity(deliveries.len());
        for delivery in &deliveries {
            let properties = BasicProperties::default().with_delivery_mode(2);
            let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let published = output.basic_publish("".into(), to.as_str().into(), mandatory, &delivery.data, properties);
            confirms.push(published.await.expect("published"));
        }
        for confirm in confirms {
            assert!(confirm.await.expect("told").is_ack());
        }
        done += deliveries.len();
        if let Some(last) = deliveries.last() {
            last.acker.ack(BasicAckOptions { multiple: true }).await.expect("acknowledged");
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let cpu_us = (cpu_us(std::process::id()) - cpu) / as_float(events);
    Figure { per_second: as_float(events) / seconds, cpu_us }
}
