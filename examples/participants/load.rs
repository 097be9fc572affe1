//! Publishes requests: with confirms, and again, with the same message ids, until the broker has each. One that no queue
//! takes waits: the daemon has not bound its queue yet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use lapin::Channel;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use sagad::demo::requests::Request;
use serde_json::json;

use crate::Load;
use crate::broker;

/// Published before their confirms are awaited, all together: only so is it certain which were returned.
const WINDOW: usize = 200;

/// The daemon may be starting.
const NOBODY_TAKES_IT: Duration = Duration::from_millis(200);

pub async fn run(options: &Load) -> Result<()> {
    let town = options.common.town();
    let numbers = options.first..options.first + options.common.requests;
    let requests = numbers.map(|number| town.request(options.saga, options.common.seed, number));
    let mut left: BTreeMap<usize, Request> = requests.enumerate().collect();
    let all = left.len();
    let mut grumble = broker::Grumble::default();
    while !left.is_empty() {
        if let Err(error) = session(options, &mut left).await {
            grumble.about(&error);
            tokio::time::sleep(broker::BACK_AFTER).await;
        }
    }
    broker::print(&json!({"published": all}))
}

async fn session(options: &Load, left: &mut BTreeMap<usize, Request>) -> Result<()> {
    let connection = broker::connect(&options.common.amqp_url).await?;
    let channel = connection.create_channel().await?;
    broker::declare_exchanges(&channel).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let (window, pause) = match options.per_second {
        None => (WINDOW, Duration::ZERO),
        Some(rate) => (1, Duration::from_secs(1) / rate.get()),
    };
    while !left.is_empty() {
        let batch: Vec<usize> = left.keys().copied().take(window).collect();
        let taken = publish(&channel, left, &batch).await?;
        tokio::time::sleep(if taken.is_empty() { NOBODY_TAKES_IT } else { pause }).await;
        for number in taken {
            left.remove(&number);
        }
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}

/// Publishes a batch, and tells which of it the broker has in a queue.
async fn publish(channel: &Channel, requests: &BTreeMap<usize, Request>, batch: &[usize]) -> Result<Vec<usize>> {
    let mut confirms = Vec::new();
    let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    for number in batch {
        let request = &requests[number];
        let properties = broker::properties(request.kind, &request.message_id)?;
        let body = serde_json::to_vec(&request.body)?;
        let published = channel
            .basic_publish(broker::EVENTS.into(), broker::short(request.kind)?, mandatory, &body, properties)
            .await?;
        confirms.push((*number, published));
    }
    let mut confirmed = Vec::new();
    let mut returned = BTreeSet::new();
    for (number, confirm) in confirms {
        let confirmation = confirm.await?;
        if confirmation.is_ack() {
            confirmed.push(number);
        }
        if let Some(message) = confirmation.take_message() {
            returned.extend(message.delivery.properties.message_id().as_ref().map(ToString::to_string));
        }
    }
    // A confirm may name another returned message than its own: they are told apart by their ids.
    let rest = channel.wait_for_confirms().await?;
    returned
        .extend(rest.iter().filter_map(|message| message.properties.message_id().as_ref().map(ToString::to_string)));
    confirmed.retain(|number| !returned.contains(&requests[number].message_id));
    Ok(confirmed)
}
