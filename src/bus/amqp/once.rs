//! What needs a broker for a moment only: one event published without a daemon, and a look at the topology.

use std::time::Duration;

use lapin::Confirmation;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};

use super::connect::{self, ConnectError, Connector};
use super::convert::sendable;
use super::topology::{self, Finding};
use super::words::plain;
use crate::bus::BusConfig;
use crate::bus::envelope::{Addresses, Types, WireError, encode};
use crate::saga::effect::Outgoing;

/// How long a single confirm may take.
const CONFIRM_TIME: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
pub enum OnceError {
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("the message cannot go over AMQP: {0}")]
    Wire(#[from] WireError),
    #[error("{}", plain(.0))]
    Broker(#[from] lapin::Error),
    #[error("the broker did not confirm the message within {} s", CONFIRM_TIME.as_secs())]
    Unconfirmed,
    #[error("the broker refused the message: a queue is full")]
    Nacked,
}

/// Publishes one message and waits for its confirm.
pub async fn publish_once(config: &BusConfig, message: &Outgoing) -> Result<(), OnceError> {
    let wire = encode(message, &Addresses::from(config))?;
    let connection = Connector::new(config, "sagad publish").connect().await?;
    let published = async {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let ready = sendable(&wire).map_err(|error| lapin::Error::from(std::io::Error::other(error.to_string())))?;
        let options = BasicPublishOptions { mandatory: wire.mandatory, ..BasicPublishOptions::default() };
        let confirm =
            channel.basic_publish(ready.exchange, ready.routing_key, options, &wire.body, ready.properties).await?;
        confirm.await
    };
    let outcome = tokio::time::timeout(CONFIRM_TIME, published).await;
    connect::close(connection).await;
    match outcome {
        Err(_) => Err(OnceError::Unconfirmed),
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok(Confirmation::Nack(_))) => Err(OnceError::Nacked),
        Ok(Ok(_)) => Ok(()),
    }
}

/// Connects, and lists what about the topology is not as the configuration and these types want it. Makes nothing
/// that is not there.
pub async fn check(config: &BusConfig, types: &Types) -> Result<Vec<Finding>, OnceError> {
    let connection = Connector::new(config, "sagad check").connect().await?;
    let found = topology::check(&connection, config, &types.bindings(&config.events_exchange)).await;
    connect::close(connection).await;
    Ok(found?)
}
