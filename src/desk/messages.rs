//! Messages as they are shown: what goes out, what waits for the broker, what was set aside.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::words::{DeskError, InboxLook};
use super::{Looker, Scene};
use crate::api::{self, Format, Time};
use crate::bus::envelope::{Addresses, encode};
use crate::saga::effect::{Destination, Outgoing, Stamp};
use crate::store::{AsideFilter, AsideKind, AsideRow, StragglerOutcome};

/// Messages of one read.
const PAGE: usize = 1_000;
/// Waiting messages that are shown; `status` counts them all.
const OUTBOX_SHOWN: usize = 10_000;

impl Looker {
    pub(super) fn inbox(&self, scene: &Scene, look: &InboxLook) -> Result<api::Inbox, DeskError> {
        if let Some(n) = look.n {
            let found = u64::try_from(n).ok().map(|n| self.reader.aside_by_number(n)).transpose()?.flatten();
            let row = found.ok_or_else(|| {
                DeskError::not_found(format!("there is no message {n} in the inbox"), "sagad inbox lists them")
            })?;
            return Ok(api::Inbox { format: Format, messages: vec![aside(row)] });
        }
        let filter = AsideFilter {
            kind: match (look.dead, look.unmatched) {
                (true, false) => Some(AsideKind::Dead),
                (false, true) => Some(AsideKind::Unmatched),
                _ => None,
            },
            reason: look.reason.clone(),
            message_type: look.kind.clone(),
            received_before: look.older_than.map(|span| scene.now.minus(span)),
        };
        let mut messages = Vec::new();
        let mut left = look.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let mut before = None;
        while left > 0 {
            let limit = left.min(PAGE);
            let rows = self.reader.aside(&filter, before, limit)?;
            let last = rows.len() < limit;
            left = left.saturating_sub(rows.len());
            before = rows.last().map(|row| row.n);
            messages.extend(rows.into_iter().map(aside));
            if last {
                break;
            }
        }
        Ok(api::Inbox { format: Format, messages })
    }

    pub(super) fn outbox(&self, scene: &Scene) -> Result<api::Outbox, DeskError> {
        let rows = self.reader.outbox(OUTBOX_SHOWN)?;
        let messages = rows.into_iter().map(|row| {
            let message = view(&row.outgoing, &scene.addresses);
            let straggler = row.straggler.as_ref();
            api::OutboxMessage {
                kind: message.kind,
                exchange: message.exchange,
                routing_key: message.routing_key,
                event: message.event,
                message_id: message.message_id,
                command_id: message.command_id,
                body: message.body,
                instance: row.outgoing.stamp.as_ref().map(|stamp| stamp.id.to_string()),
                since: Time(row.since),
                tries: straggler.map_or(0, |straggler| straggler.tries),
                returned: straggler.is_some_and(|straggler| straggler.outcome == StragglerOutcome::Returned),
            }
        });
        Ok(api::Outbox { format: Format, messages: messages.collect() })
    }
}

/// What goes out, without lifecycle events.
pub(super) fn views(messages: &[Outgoing], stamp: Option<&Stamp>, addresses: &Addresses) -> Vec<api::Message> {
    let shown = messages.iter().filter(|message| message.to != Destination::Lifecycle);
    shown
        .map(|message| {
            let stamp = stamp.cloned().or_else(|| message.stamp.clone());
            view(&Outgoing { stamp, ..message.clone() }, addresses)
        })
        .collect()
}

fn view(message: &Outgoing, addresses: &Addresses) -> api::Message {
    let kind = match &message.command {
        Some(command) if command.undoes.is_some() => "undo",
        Some(_) => "command",
        None => "event",
    };
    // A message that AMQP cannot carry has no way; its turn was refused, so that there is none.
    let wire = encode(message, addresses).ok();
    api::Message {
        kind: kind.to_owned(),
        exchange: wire.as_ref().map_or_else(String::new, |wire| wire.exchange.clone()),
        routing_key: wire.map_or_else(String::new, |wire| wire.routing_key),
        event: message.kind.clone(),
        message_id: Some(message.id()),
        command_id: message.command.as_ref().map(|_| message.correlation_id.clone()),
        body: message.body.value(),
    }
}

fn aside(row: AsideRow) -> api::InboxMessage {
    let near = row.near.iter().map(|near| api::NearInstance { id: near.id.to_string(), why: near.why.clone() });
    let near = near.collect();
    let (body, body_base64) = match String::from_utf8(row.body) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(STANDARD.encode(error.as_bytes()))),
    };
    api::InboxMessage {
        n: i64::try_from(row.n).unwrap_or(i64::MAX),
        kind: row.kind.name().to_owned(),
        reason: row.reason,
        event: row.message_type,
        message_id: row.message_id,
        source: Some(row.source).filter(|source| !source.is_empty()),
        correlation_id: row.correlation_id,
        routing_key: Some(row.routing_key).filter(|key| !key.is_empty()),
        received_at: Time(row.received_at),
        expires_at: row.expires_at.map(Time),
        headers: row.headers,
        body,
        body_base64,
        near,
    }
}
