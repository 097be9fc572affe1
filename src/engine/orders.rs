//! Operators' orders: each for one instance, on record, acting once for each request id. What an order means, the core
//! decides; what may be given to whom, the desk.

use serde_json::{Map, Value, json};

use super::batch::Work;
use super::turn::Came;
use super::{Answer, EventToPublish, MessageRef, OrderFor, OrderMode, OrderResult, OrderVerdict, Standing, Ticket};
use crate::saga::effect::{Chosen, Destination, Effect, Json, Outgoing};
use crate::saga::event::{Input, Order};
use crate::saga::instance::Instance;
use crate::saga::step::{Refusal, Turn};
use crate::store::{OrderRecord, OrderRow, StoreError, Stored};

/// In the recorded result of an order that changed nothing: why.
const REFUSED: &str = "refused";

impl Work<'_, '_> {
    pub(super) fn orders(&mut self, ticket: Ticket, orders: Vec<OrderFor>) -> Result<(), StoreError> {
        let mut results = Vec::with_capacity(orders.len());
        for order in orders {
            results.push(self.order(order)?);
            // What had waited behind the incident is handled after the order that closed it, before anything newer.
            self.drain()?;
        }
        self.out.answers.push((ticket, Answer::Orders(results)));
        Ok(())
    }

    fn order(&mut self, asked: OrderFor) -> Result<OrderResult, StoreError> {
        let OrderFor { instance: id, order, mode } = asked;
        let Some(stored) = self.load(id.no())?.filter(|stored| stored.instance.id == id) else {
            return Ok(OrderResult {
                instance: id,
                saga: String::new(),
                key: String::new(),
                verdict: OrderVerdict::NoSuchInstance,
                from: None,
                to: None,
                messages: Vec::new(),
            });
        };
        if let Some(before) = self.done_before(&stored, &order)? {
            return Ok(before);
        }
        if mode == OrderMode::DryRun {
            let (came, turn) = self.rehearse(&stored, Input::Order(order))?;
            return Ok(result(&stored.instance, came, turn));
        }
        let record = serde_json::to_string(&order).expect("an order always serialises");
        let (came, turn) = self.take(&stored, Input::Order(order.clone()))?;
        let result = result(&stored.instance, came, turn);
        self.record(&stored.instance, &order, &record, &result)?;
        Ok(result)
    }

    /// The same request twice acts once.
    fn done_before(&self, stored: &Stored, order: &Order) -> Result<Option<OrderResult>, StoreError> {
        let Some(request) = order.request_id.as_deref() else { return Ok(None) };
        let no = stored.instance.id.no();
        let refused = |result: &str| serde_json::from_str::<Value>(result).is_ok_and(|it| it.get(REFUSED).is_some());
        let acted = |row: &OrderRow| row.instance == Some(no) && !refused(&row.result);
        let done = self.tx.orders_of_request(request)?.iter().any(acted);
        let standing = standing(&stored.instance);
        Ok(done.then(|| OrderResult {
            instance: stored.instance.id,
            saga: stored.instance.saga.clone(),
            key: stored.instance.key.clone(),
            verdict: OrderVerdict::DoneBefore,
            from: Some(standing.clone()),
            to: Some(standing),
            messages: Vec::new(),
        }))
    }

    fn record(
        &mut self,
        before: &Instance,
        order: &Order,
        asked: &str,
        result: &OrderResult,
    ) -> Result<(), StoreError> {
        let outcome = match &result.verdict {
            OrderVerdict::Refused { message, .. } => json!({ REFUSED: message }),
            _ => json!({
                "from": result.from.as_ref().map(standing_json),
                "to": result.to.as_ref().map(standing_json),
                "messages": result.messages.iter().map(Outgoing::id).collect::<Vec<_>>(),
            }),
        };
        self.tx.record_order(&OrderRecord {
            at: self.now.wall,
            verb: order.verb.name(),
            by: &order.by,
            reason: order.reason.as_deref(),
            request_id: order.request_id.as_deref(),
            instance: Some(before.id.no()),
            saga: Some(&before.saga),
            key: Some(&before.key),
            asked,
            result: &outcome.to_string(),
        })?;
        Ok(())
    }

    /// An event that a person puts on the bus: a row like any other message, of no instance.
    pub(super) fn publish(&mut self, ticket: Ticket, event: EventToPublish) -> Result<(), StoreError> {
        let asked = json!({
            "type": event.kind,
            "message_id": event.message_id,
            "correlation_id": event.correlation_id,
            "source": event.source,
            "headers": event.headers,
            "body": event.body,
        });
        let message = Outgoing {
            to: Destination::Event,
            kind: event.kind,
            message_id: uuid::Uuid::new_v5(&self.core.database.0, event.message_id.as_bytes()),
            correlation_id: event.correlation_id.unwrap_or_default(),
            at: self.now.wall,
            body: Json::of(&event.body),
            headers: event.headers,
            trace: None,
            command: None,
            chosen: Some(Chosen { message_id: event.message_id.clone(), source: event.source }),
            stamp: None,
        };
        let seq = self.tx.append_loose(self.now.wall, std::slice::from_ref(&message))?;
        self.last_seq = Some(seq);
        self.fresh.push((MessageRef { seq, place: 0 }, message));
        self.tx.record_order(&OrderRecord {
            at: self.now.wall,
            verb: "publish",
            by: &event.by,
            reason: event.reason.as_deref(),
            request_id: None,
            instance: None,
            saga: None,
            key: None,
            asked: &asked.to_string(),
            result: "{}",
        })?;
        self.out.answers.push((ticket, Answer::Published(event.message_id)));
        Ok(())
    }
}

fn result(before: &Instance, came: Came, turn: Option<Turn>) -> OrderResult {
    let verdict = match came {
        Came::Taken | Came::Parked => OrderVerdict::Done,
        Came::Refused { code, message } => OrderVerdict::Refused { code, message },
        Came::Missed(reason) => {
            OrderVerdict::Refused { code: Refusal::Conflict, message: format!("the event is {}", reason.name()) }
        }
        Came::Gone => OrderVerdict::NoSuchInstance,
    };
    let done = verdict == OrderVerdict::Done;
    let after = turn.as_ref().filter(|_| done).map_or(before, |turn| &turn.instance);
    let to = standing(after);
    OrderResult {
        instance: before.id,
        saga: before.saga.clone(),
        key: before.key.clone(),
        verdict,
        from: Some(standing(before)),
        to: Some(to),
        messages: turn.filter(|_| done).map(messages).unwrap_or_default(),
    }
}

fn messages(turn: Turn) -> Vec<Outgoing> {
    let sent = |effect| match effect {
        Effect::Send(message) if message.to != Destination::Lifecycle => Some(message),
        _ => None,
    };
    turn.effects.into_iter().filter_map(sent).collect()
}

pub(super) fn standing(instance: &Instance) -> Standing {
    Standing { status: instance.status, state: instance.state.clone(), marks: instance.marks() }
}

fn standing_json(standing: &Standing) -> Value {
    let mut value = Map::new();
    value.insert("status".to_owned(), standing.status.name().into());
    value.insert("state".to_owned(), standing.state.clone().into());
    Value::Object(value)
}
