//! Which event types the daemon knows, and where each comes in: what the queue is bound to, and how a message without
//! a type is named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::saga::machine::{Machine, Origin};

/// What the loaded definitions, and older ones that live instances still need, consume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Types {
    known: BTreeSet<String>,
    origins: BTreeMap<(String, String), String>,
    /// Types that come in by `from:`, and not by their name in the exchange `events`.
    elsewhere: BTreeSet<String>,
}

/// A binding of the daemon's queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Binding {
    pub exchange: String,
    pub routing_key: String,
}

impl Types {
    pub fn of(machines: &[Arc<Machine>]) -> Types {
        let consumed = machines.iter().flat_map(|machine| {
            machine.consumed().into_iter().map(move |kind| (kind.to_owned(), machine.origin(kind).cloned()))
        });
        Types::listed(consumed)
    }

    /// The same from a list of types, each with its `from:`.
    pub fn listed(consumed: impl IntoIterator<Item = (String, Option<Origin>)>) -> Types {
        let mut types = Types::default();
        for (kind, origin) in consumed {
            if let Some(Origin { exchange, routing_key }) = origin {
                types.elsewhere.insert(kind.clone());
                types.origins.insert((exchange, routing_key), kind.clone());
            }
            types.known.insert(kind);
        }
        types
    }

    pub fn knows(&self, kind: &str) -> bool {
        self.known.contains(kind)
    }

    /// The type that a `from:` names with this exchange and routing key.
    pub fn named_by(&self, exchange: &str, routing_key: &str) -> Option<&str> {
        if self.origins.is_empty() {
            return None;
        }
        self.origins.get(&(exchange.to_owned(), routing_key.to_owned())).map(String::as_str)
    }

    /// What the daemon's queue is bound to, so that each of these types comes in.
    pub fn bindings(&self, events_exchange: &str) -> BTreeSet<Binding> {
        let named = self
            .known
            .difference(&self.elsewhere)
            .map(|kind| Binding { exchange: events_exchange.to_owned(), routing_key: kind.clone() });
        let led = self
            .origins
            .keys()
            .map(|(exchange, routing_key)| Binding { exchange: exchange.clone(), routing_key: routing_key.clone() });
        // Nothing can be bound to the default exchange, and nothing need be: it leads to the queue by its name.
        named.chain(led).filter(|binding| !binding.exchange.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_bound_by_its_name_or_where_its_from_says() {
        let from = Origin { exchange: "groups".to_owned(), routing_key: "slot.freed".to_owned() };
        let types = Types::listed([("OrderPlaced".to_owned(), None), ("SlotFreed".to_owned(), Some(from))]);
        let bindings: Vec<_> = types.bindings("events").into_iter().map(|b| (b.exchange, b.routing_key)).collect();
        let expected = [("events", "OrderPlaced"), ("groups", "slot.freed")];
        assert_eq!(bindings, expected.map(|(exchange, key)| (exchange.to_owned(), key.to_owned())));
        assert_eq!(types.named_by("groups", "slot.freed"), Some("SlotFreed"));
        assert_eq!(types.named_by("events", "slot.freed"), None);
        assert!(types.knows("SlotFreed"));
    }
}
