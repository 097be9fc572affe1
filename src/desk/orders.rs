//! Orders: from what a person says to what the engine is asked, and from its answers to the document.

use super::words::{DeskError, Order};
use super::{Looker, Scene, messages};
use crate::api::{self, Format};
use crate::bus::envelope::Addresses;
use crate::engine::{OrderFor, OrderMode, OrderResult, OrderVerdict, Standing};
use crate::saga::event;
use crate::saga::ids::InstanceId;
use crate::saga::instance::Status;
use crate::saga::step::Refusal;

/// What the configuration says about orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reasons {
    Optional,
    Required,
}

impl Looker {
    /// What the engine is to be asked: one instance in this version.
    pub(super) fn plan(&self, scene: &Scene, order: &Order, reasons: Reasons) -> Result<Vec<OrderFor>, DeskError> {
        if reasons == Reasons::Required && order.reason.is_none() {
            return Err(DeskError::usage("every order needs a reason here", "say why: --reason TEXT"));
        }
        if order.select.is_empty() {
            return Err(DeskError::usage(
                "nothing says which instance",
                "give an ID, or a selector such as --saga and --key",
            ));
        }
        let mut found: Vec<(InstanceId, String)> = Vec::new();
        for name in &order.select.ids {
            // A name that names nothing is told as such, not as a selector that matches nothing.
            self.find(name)?;
        }
        self.all(scene, &order.select, |row| {
            found.push((row.id, format!("{}/{}", row.saga, row.key)));
            Ok(())
        })?;
        match found.as_slice() {
            [] => {
                Err(DeskError::not_found("no instance is like that", "sagad list with the same selector shows what is"))
            }
            [(id, _)] => {
                let order = event::Order {
                    verb: order.verb.clone(),
                    by: if order.by.is_empty() { "unnamed".to_owned() } else { order.by.clone() },
                    reason: order.reason.clone(),
                    request_id: order.request_id.clone(),
                    expect_turn: order.expect_turn,
                };
                Ok(vec![OrderFor { instance: *id, order, mode: OrderMode::ForReal }])
            }
            several => {
                let names: Vec<&str> = several.iter().take(5).map(|(_, name)| name.as_str()).collect();
                Err(DeskError::usage(
                    format!("{} instances are like that, and this version acts on one at a time", several.len()),
                    format!("name one of them, such as {}", names.join(", ")),
                ))
            }
        }
    }
}

pub(super) fn with_mode(mut orders: Vec<OrderFor>, dry_run: bool) -> Vec<OrderFor> {
    let mode = if dry_run { OrderMode::DryRun } else { OrderMode::ForReal };
    for order in &mut orders {
        order.mode = mode;
    }
    orders
}

pub(super) fn document(results: Vec<OrderResult>, dry_run: bool, addresses: &Addresses) -> api::Orders {
    let results = results.into_iter().map(|result| view(result, addresses)).collect();
    api::Orders { format: Format, operation: None, dry_run, results }
}

fn view(result: OrderResult, addresses: &Addresses) -> api::OrderResult {
    let error = match result.verdict {
        OrderVerdict::Done | OrderVerdict::DoneBefore => None,
        OrderVerdict::NoSuchInstance => {
            Some(api::OrderError { code: "not-found".to_owned(), message: "there is no such instance".to_owned() })
        }
        OrderVerdict::Refused { code, message } => {
            let code = match code {
                Refusal::Conflict => "conflict",
                Refusal::Usage => "usage",
            };
            Some(api::OrderError { code: code.to_owned(), message })
        }
    };
    api::OrderResult {
        id: result.instance.to_string(),
        saga: result.saga,
        key: result.key,
        ok: error.is_none(),
        error,
        from: result.from.as_ref().map(position),
        to: result.to.as_ref().map(position),
        messages: messages::views(&result.messages, None, addresses),
    }
}

fn position(standing: &Standing) -> api::Position {
    let status: Status = standing.status;
    api::Position { status: status.name().to_owned(), state: standing.state.clone() }
}
