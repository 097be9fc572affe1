//! How events find their instance: `start` and `events`.

use indexmap::IndexMap;

use super::context::{Context, Fields};
use super::scope::Here;
use super::value::Least;
use crate::saga::definition::{Entry, Kind, Node};
use crate::saga::expression::Expression;
use crate::saga::machine::{Deliver, EventRule, Hold, Origin, Place, Route, Start, Unhandled};
use crate::saga::template::Template;

const UNMATCHED: [(&str, Unhandled); 2] = [("record", Unhandled::Record), ("count", Unhandled::Count)];
/// A short string of AMQP.
const MAX_SHORT: usize = 255;

impl Context<'_> {
    pub fn starts(&mut self, entry: &Entry) -> IndexMap<String, Start> {
        let mut starts = IndexMap::new();
        let Some(entries) = self.mapping(&entry.value, "`start`") else {
            self.facts.routes_broken = true;
            self.facts.open_data = true;
            return starts;
        };
        if entries.is_empty() {
            self.report(
                "missing-key",
                entry.key_place,
                "`start` names no event",
                "name the event that starts an instance",
            );
        }
        for event in entries {
            self.event_type(&event.key, event.key_place);
            self.facts.declared.insert(event.key.clone());
            if let Some(start) = self.start(event) {
                starts.insert(event.key.clone(), start);
            } else if event.value.get("data").is_none() {
                self.facts.open_data = true;
            }
        }
        starts
    }

    fn start(&mut self, entry: &Entry) -> Option<Start> {
        let here = Here::message();
        let keys = ["key", "data", "when", "from", "again", "unmatched"];
        let fields = self.fields(&entry.value, "a start event", &keys)?;
        let data = match fields.value("data") {
            Some(node) => self.first_data(node, &here),
            None => Template::Object(Vec::new()),
        };
        let when = fields.value("when").and_then(|when| self.expression(when, &here));
        let from = self.from(&fields, &entry.key);
        let again = fields.value("again").and_then(|node| self.boolean(node, "`again`")).unwrap_or(false);
        let unmatched = self.unmatched(&fields);
        let Some(key) = fields.value("key") else {
            let message = format!("the start event `{}`", entry.key);
            self.missing(&fields, entry.key_place, &message, "key", "say which instance it is: `key: event.<field>`");
            return None;
        };
        let key = self.expression(key, &here)?;
        Some(Start { key, data, when, from, again, unmatched, place: entry.key_place })
    }

    /// The first data: its fields are known only where they are written out.
    fn first_data(&mut self, node: &Node, here: &Here) -> Template {
        match &node.kind {
            Kind::Map(entries) => self.facts.set.extend(entries.iter().map(|entry| entry.key.clone())),
            Kind::Scalar(_) if node.text().is_some_and(|text| text.starts_with("${")) => self.facts.open_data = true,
            Kind::Broken => self.facts.open_data = true,
            Kind::Scalar(_) | Kind::List(_) => {
                self.facts.open_data = true;
                let message = format!("`data` is a mapping, and this is {}", node.describe());
                self.report("wrong-type", node.place, message, "write `field: value` for each field, or `${event}`");
            }
        }
        self.template(node, here)
    }

    pub fn events(&mut self, entry: &Entry) -> IndexMap<String, EventRule> {
        let mut events = IndexMap::new();
        let Some(entries) = self.mapping(&entry.value, "`events`") else {
            self.facts.routes_broken = true;
            return events;
        };
        for event in entries {
            self.event_type(&event.key, event.key_place);
            self.facts.declared.insert(event.key.clone());
            if let Some(rule) = self.event_rule(event) {
                events.insert(event.key.clone(), rule);
            }
        }
        events
    }

    fn event_rule(&mut self, entry: &Entry) -> Option<EventRule> {
        let keys = ["key", "find", "instance", "deliver", "by", "hold", "from", "unmatched"];
        let fields = self.fields(&entry.value, "an event", &keys)?;
        let kind = self.at_most_one(&fields, &["key", "find", "instance"]);
        for key in ["deliver", "by"] {
            if let Some(beside) = fields.get(key)
                && kind.is_none_or(|(kind, _)| kind != "find")
                && !fields.is_meant("find")
            {
                let message = format!("`{key}` means nothing here");
                self.report("misplaced-key", beside.key_place, message, "it belongs beside `find`");
            }
        }
        let hold = fields.value("hold").and_then(|node| self.hold(node));
        let from = self.from(&fields, &entry.key);
        let unmatched = self.unmatched(&fields);
        let route = match kind {
            Some(("key", key)) => Route::Key(self.expression(&key.value, &Here::message())?),
            Some(("instance", instance)) => self.instance(&instance.value)?,
            Some((_, find)) => self.find(find, &fields)?,
            None if fields.has("from") && !fields.has("hold") => Route::ReplyOnly,
            None => {
                let message = format!("the event `{}`", entry.key);
                let hint = "say how it finds its instance: `key: event.<field>`, `find: { … }` or `instance: true`";
                self.missing(&fields, entry.key_place, &message, "key", hint);
                return None;
            }
        };
        if let Route::Find { deliver: Deliver::All, .. } = route
            && let Some(entry) = fields.get("hold")
        {
            let message = "`hold` and `deliver: all` exclude each other";
            let hint = "an event for all who wait now cannot wait for one: remove one of the two";
            self.report("exclusive-keys", entry.key_place, message, hint);
        }
        Some(EventRule { route, hold, from, unmatched, place: entry.key_place })
    }

    fn instance(&mut self, node: &Node) -> Option<Route> {
        if !self.boolean(node, "`instance`")? {
            let hint = "remove the key, and say with `key` or `find` how the event finds its instance";
            self.report("bad-value", node.place, "`instance` can only be `true`", hint);
            return None;
        }
        Some(Route::Instance)
    }

    fn find(&mut self, entry: &Entry, fields: &Fields<'_>) -> Option<Route> {
        let entries = self.mapping(&entry.value, "`find`")?;
        if entries.is_empty() {
            let hint = "name a field of `data` and the value it must have: `find: { sku: event.sku }`";
            self.report("missing-key", entry.key_place, "`find` names no field", hint);
            return None;
        }
        let mut conditions: Vec<(String, Expression)> = Vec::new();
        for condition in entries {
            let field = condition.key.split('.').next().unwrap_or_default();
            if condition.key.split('.').any(str::is_empty) {
                let message = format!("`{}` is no path into `data`", condition.key);
                self.report("bad-name", condition.key_place, message, "join the names of fields with single dots");
            } else {
                self.read_field(field, condition.key_place, None);
            }
            if let Some(value) = self.expression(&condition.value, &Here::message()) {
                conditions.push((condition.key.clone(), value));
            }
        }
        let ways = [("one", Deliver::One), ("oldest", Deliver::Oldest), ("all", Deliver::All)];
        let deliver =
            fields.value("deliver").and_then(|node| self.word(node, "`deliver`", &ways)).unwrap_or(Deliver::One);
        let by = fields.value("by").and_then(|by| self.expression(by, &Here::waiting()));
        let is_told = fields.value("deliver").is_some_and(|node| !ways.iter().any(|(way, _)| node.text() == Some(way)));
        if let Some(entry) = fields.get("by")
            && deliver != Deliver::Oldest
            && !is_told
            && !fields.is_meant("deliver")
        {
            let hint = "`by` orders those who wait: write `deliver: oldest` beside it, or remove it";
            self.report("misplaced-key", entry.key_place, "`by` means nothing here", hint);
        }
        Some(Route::Find { fields: conditions, deliver, by })
    }

    fn hold(&mut self, node: &Node) -> Option<Hold> {
        if node.text() == Some("always") {
            return Some(Hold::Always);
        }
        self.span(node, "`hold`", Least::Positive).map(Hold::For)
    }

    fn unmatched(&mut self, fields: &Fields<'_>) -> Option<Unhandled> {
        fields.value("unmatched").and_then(|node| self.word(node, "`unmatched`", &UNMATCHED))
    }

    /// Where an event comes in.
    fn from(&mut self, fields: &Fields<'_>, event: &str) -> Option<Origin> {
        let entry = fields.get("from")?;
        let keys = self.fields(&entry.value, "`from`", &["exchange", "routing_key"])?;
        let exchange = self.short_string(&keys, "exchange", entry.key_place);
        let routing_key = self.short_string(&keys, "routing_key", entry.key_place);
        let origin = Origin { exchange: exchange?, routing_key: routing_key? };
        let Origin { exchange, routing_key } = origin.clone();
        self.facts.origins.push((event.to_owned(), exchange, routing_key, entry.key_place));
        Some(origin)
    }

    fn short_string(&mut self, fields: &Fields<'_>, key: &str, owner: Place) -> Option<String> {
        let Some(node) = fields.value(key) else {
            self.missing(
                fields,
                owner,
                "`from`",
                key,
                "name the exchange and the routing key that the event comes with",
            );
            return None;
        };
        let text = self.text(node, &format!("`{key}`"))?;
        if text.len() > MAX_SHORT {
            let message = format!("`{key}` has {} bytes", text.len());
            self.report("out-of-range", node.place, message, format!("AMQP takes at most {MAX_SHORT}"));
            return None;
        }
        Some(text.to_owned())
    }
}
