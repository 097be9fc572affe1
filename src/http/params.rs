//! Looks and orders as query parameters and bodies, there and back: the names are those of the flags.
//!
//! Both directions stand here, so that client and server cannot drift apart. What is unknown is refused by name.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::desk::{Arriving, CountBy, DeskError, InboxLook, Look, Order, Publish, Select};
use crate::saga::duration::Span;
use crate::saga::event::{Verb, Verdict};
use crate::saga::incident::IncidentKind;
use crate::saga::instance::Status;

/// Names and values, as they were given; a name may come several times. Names are compared with `-` as `_`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params {
    given: Vec<(String, Value)>,
}

impl Params {
    pub fn of_query(query: &str) -> Result<Params, DeskError> {
        let mut params = Params::default();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, "true"));
            let text = decode(value)?;
            params.given.push((normal(&decode(name)?), Value::String(text)));
        }
        Ok(params)
    }

    pub fn of_body(body: &[u8]) -> Result<Params, DeskError> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Params::default());
        }
        let value: Value = serde_json::from_slice(body)
            .map_err(|error| usage(format!("the body is not JSON: {error}"), "send a JSON object"))?;
        let Value::Object(fields) = value else {
            return Err(usage("the body is not a JSON object".to_owned(), "send a JSON object with the flags' names"));
        };
        let mut params = Params::default();
        for (name, value) in fields {
            match value {
                Value::Null => {}
                Value::Array(values) if matches!(normal(&name).as_str(), "id" | "status") => {
                    params.given.extend(values.into_iter().map(|value| (normal(&name), value)));
                }
                value => params.given.push((normal(&name), value)),
            }
        }
        Ok(params)
    }

    fn take_value(&mut self, name: &str) -> Option<Value> {
        let at = self.given.iter().position(|(given, _)| given == name)?;
        Some(self.given.remove(at).1)
    }

    fn take(&mut self, name: &str) -> Result<Option<String>, DeskError> {
        match self.take_value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(Value::Bool(value)) => Ok(Some(value.to_string())),
            Some(_) => Err(usage(format!("'{name}' is no text"), "give it as a text")),
        }
    }

    fn take_all(&mut self, name: &str) -> Result<Vec<String>, DeskError> {
        let mut values = Vec::new();
        while let Some(value) = self.take(name)? {
            values.push(value);
        }
        Ok(values)
    }

    fn take_flag(&mut self, name: &str) -> Result<bool, DeskError> {
        match self.take(name)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("true" | "") => Ok(true),
            Some(other) => Err(usage(format!("'{name}' is '{other}'"), "a flag is true or false")),
        }
    }

    fn take_number<T: std::str::FromStr>(&mut self, name: &str) -> Result<Option<T>, DeskError> {
        self.take(name)?
            .map(|text| text.parse().map_err(|_| usage(format!("'{name}' is '{text}'"), "it is a whole number")))
            .transpose()
    }

    fn take_span(&mut self, name: &str) -> Result<Option<Span>, DeskError> {
        self.take(name)?
            .map(|text| Span::parse(&text).map_err(|error| usage(format!("'{name}': {}", error.message), error.hint)))
            .transpose()
    }

    /// Refuses what nobody asked for.
    pub fn finish(self) -> Result<(), DeskError> {
        match self.given.first() {
            None => Ok(()),
            Some((name, _)) => {
                Err(usage(format!("unknown parameter '{name}'"), "parameters have the names of the verb's flags"))
            }
        }
    }

    fn add(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.given.push((name.to_owned(), value.into()));
        }
    }

    fn add_flag(&mut self, name: &str, value: bool) {
        if value {
            self.given.push((name.to_owned(), Value::Bool(true)));
        }
    }

    pub fn to_query(&self) -> String {
        let pairs = self.given.iter().map(|(name, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("{}={}", name.replace('_', "-"), encode(&text))
        });
        pairs.collect::<Vec<_>>().join("&")
    }

    pub fn to_body(&self) -> Value {
        let mut fields = Map::new();
        for (name, value) in &self.given {
            if name == "id" {
                let ids = fields.entry("id").or_insert_with(|| Value::Array(Vec::new()));
                ids.as_array_mut().expect("made a list").push(value.clone());
            } else {
                fields.insert(name.clone(), value.clone());
            }
        }
        Value::Object(fields)
    }
}

/// The path and parameters of a look.
pub fn of_look(look: &Look) -> (String, Params) {
    let mut params = Params::default();
    let verb = match look {
        Look::List { select, after } => {
            add_select(&mut params, select);
            params.add("after", after.clone());
            "list"
        }
        Look::Show { id } => {
            params.add("id", Some(id.clone()));
            "show"
        }
        Look::Why { id } => {
            params.add("id", Some(id.clone()));
            "why"
        }
        Look::Process { saga, key } => return (format!("/v1/sagas/{}/{}", encode(saga), encode(key)), params),
        Look::Journal { id, reverse, after, limit } => {
            params.add("id", Some(id.clone()));
            params.add_flag("reverse", *reverse);
            params.add("after", *after);
            params.add("limit", *limit);
            "journal"
        }
        Look::Verify { select } => {
            add_select(&mut params, select);
            params.add_flag("verify", true);
            "journal"
        }
        Look::Status => "status",
        Look::Count { select, by } => {
            add_select(&mut params, select);
            params.add("by", Some(by.iter().map(|by| by.name()).collect::<Vec<_>>().join(",")));
            "count"
        }
        Look::Inbox(inbox) => {
            add_inbox(&mut params, inbox);
            "inbox"
        }
        Look::Outbox => "outbox",
        Look::Definitions => "definitions",
    };
    (format!("/v1/{verb}"), params)
}

/// The look that a path's verb and its parameters ask for; `None` where no such verb looks.
pub fn to_look(verb: &str, mut params: Params) -> Result<Option<Look>, DeskError> {
    let look = match verb {
        "list" | "instances" => {
            let after = params.take("after")?;
            Look::List { select: take_select(&mut params)?, after }
        }
        "show" => Look::Show { id: take_id(&mut params)? },
        "why" => Look::Why { id: take_id(&mut params)? },
        "journal" => {
            if params.take_flag("verify")? {
                Look::Verify { select: take_select(&mut params)? }
            } else {
                Look::Journal {
                    id: take_id(&mut params)?,
                    reverse: params.take_flag("reverse")?,
                    after: params.take_number("after")?,
                    limit: params.take_number("limit")?,
                }
            }
        }
        "status" => Look::Status,
        "count" => {
            let by = take_by(&mut params)?;
            Look::Count { select: take_select(&mut params)?, by }
        }
        "inbox" => Look::Inbox(take_inbox(&mut params)?),
        "outbox" => Look::Outbox,
        "definitions" => Look::Definitions,
        _ => return Ok(None),
    };
    params.finish()?;
    Ok(Some(look))
}

pub fn of_order(order: &Order) -> Params {
    let mut params = Params::default();
    add_select(&mut params, &order.select);
    match &order.verb {
        Verb::Retry { step } => params.add("step", step.clone()),
        Verb::Resolve { step, verdict } => {
            params.add("step", Some(step.clone()));
            let (word, with) = match verdict {
                Verdict::Done { body } => ("done", Some(body.clone())),
                Verdict::Refused => ("refused", None),
                Verdict::Undone => ("undone", None),
            };
            params.add("as", Some(word));
            params.add("with", with);
        }
        _ => {}
    }
    params.add("by", Some(order.by.clone()));
    params.add("reason", order.reason.clone());
    params.add("request_id", order.request_id.clone());
    params.add("expect_turn", order.expect_turn);
    params.add_flag("dry_run", order.dry_run);
    params
}

/// `None` where no such verb acts on instances.
pub fn to_order(verb: &str, mut params: Params) -> Result<Option<Order>, DeskError> {
    let verb = match verb {
        "retry" => Verb::Retry { step: params.take("step")? },
        "compensate" => Verb::Compensate,
        "resolve" => take_resolve(&mut params)?,
        _ => return Ok(None),
    };
    let order = Order {
        by: params.take("by")?.unwrap_or_default(),
        reason: params.take("reason")?.filter(|reason| !reason.is_empty()),
        request_id: params.take("request_id")?,
        expect_turn: params.take_number("expect_turn")?,
        dry_run: params.take_flag("dry_run")?,
        select: take_select(&mut params)?,
        verb,
    };
    params.finish()?;
    Ok(Some(order))
}

pub fn of_publish(event: &Publish) -> Params {
    let mut params = Params::default();
    params.add("type", Some(event.kind.clone()));
    params.add("message_id", event.id.clone());
    params.add("correlation_id", event.correlation_id.clone());
    params.add("source", event.source.clone());
    params.add("headers", Some(Value::Object(event.headers.clone())));
    params.add("body", Some(event.body.clone()));
    params.add("by", Some(event.by.clone()));
    params.add("reason", event.reason.clone());
    params
}

pub fn to_publish(mut params: Params) -> Result<Publish, DeskError> {
    let event = Publish {
        kind: take_type(&mut params)?,
        id: params.take("message_id")?.or(params.take("id")?).filter(|id| !id.is_empty()),
        correlation_id: params.take("correlation_id")?.filter(|id| !id.is_empty()),
        source: params.take("source")?.filter(|source| !source.is_empty()),
        headers: match params.take_value("headers") {
            None => Map::new(),
            Some(Value::Object(headers)) => headers,
            Some(_) => return Err(usage("'headers' is no object".to_owned(), "give each header's name and value")),
        },
        body: params.take_value("body").unwrap_or_else(|| Value::Object(Map::new())),
        by: params.take("by")?.unwrap_or_default(),
        reason: params.take("reason")?.filter(|reason| !reason.is_empty()),
    };
    params.finish()?;
    Ok(event)
}

pub fn to_event(mut params: Params) -> Result<Arriving, DeskError> {
    let event = Arriving {
        kind: take_type(&mut params)?,
        id: params.take("id")?.filter(|id| !id.is_empty()),
        source: params.take("source")?.unwrap_or_default(),
        correlation_id: params.take("correlation_id")?.filter(|id| !id.is_empty()),
        data: params.take_value("data").unwrap_or_else(|| Value::Object(Map::new())),
    };
    params.finish()?;
    Ok(event)
}

fn take_type(params: &mut Params) -> Result<String, DeskError> {
    let kind = params.take("type")?.filter(|kind| !kind.is_empty());
    kind.ok_or_else(|| usage("'type' is missing".to_owned(), "name the event's type"))
}

/// `resolve --step S --as done|refused|undone [--with FILE]`.
pub fn resolve(step: String, word: &str, with: Option<Value>) -> Result<Verb, DeskError> {
    let verdict = match (word, with) {
        ("done", body) => Verdict::Done { body: body.unwrap_or(Value::Null) },
        ("refused", None) => Verdict::Refused,
        ("undone", None) => Verdict::Undone,
        ("refused" | "undone", Some(_)) => {
            return Err(usage("a body goes with 'done' alone".to_owned(), "leave it out"));
        }
        (other, _) => return Err(usage(format!("'as' is '{other}'"), "it is one of done, refused and undone")),
    };
    Ok(Verb::Resolve { step, verdict })
}

fn take_resolve(params: &mut Params) -> Result<Verb, DeskError> {
    let step =
        params.take("step")?.ok_or_else(|| usage("'step' is missing".to_owned(), "name the step as 'show' does"))?;
    let word = params
        .take("as")?
        .ok_or_else(|| usage("'as' is missing".to_owned(), "it is one of done, refused and undone"))?;
    let with = params.take_value("with");
    resolve(step, &word, with)
}

fn take_id(params: &mut Params) -> Result<String, DeskError> {
    params.take("id")?.ok_or_else(|| usage("'id' is missing".to_owned(), "give an id, a prefix of one, or saga/key"))
}

fn take_by(params: &mut Params) -> Result<Vec<CountBy>, DeskError> {
    let Some(text) = params.take("by")? else { return Ok(vec![CountBy::Saga, CountBy::Status]) };
    parse_by(&text)
}

/// `saga,status,state,incident`, or some of them.
pub fn parse_by(text: &str) -> Result<Vec<CountBy>, DeskError> {
    let mut by = Vec::new();
    for name in text.split(',') {
        let field = CountBy::parse(name.trim()).ok_or_else(|| {
            usage(format!("cannot count by '{name}'"), "count by saga, status, state, incident or several of them")
        })?;
        if !by.contains(&field) {
            by.push(field);
        }
    }
    Ok(by)
}

fn add_select(params: &mut Params, select: &Select) {
    for id in &select.ids {
        params.add("id", Some(id.clone()));
    }
    params.add("saga", select.saga.clone());
    params.add("key", select.key.clone());
    let status: Vec<&str> = select.status.iter().map(|status| status.name()).collect();
    params.add("status", (!status.is_empty()).then(|| status.join(",")));
    params.add("state", select.state.clone());
    params.add("incident", select.incident.map(IncidentKind::name));
    params.add("error", select.error.clone());
    for (name, value) in
        [("stuck", select.stuck), ("paused", select.paused), ("settling", select.settling), ("all", select.all)]
    {
        params.add_flag(name, value);
    }
    params.add("older_than", select.older_than.map(|span| span.to_string()));
    params.add("stuck_for", select.stuck_for.map(|span| span.to_string()));
    params.add("limit", select.limit);
}

fn take_select(params: &mut Params) -> Result<Select, DeskError> {
    let mut status = Vec::new();
    for text in params.take_all("status")? {
        status.extend(parse_status(&text)?);
    }
    Ok(Select {
        ids: params.take_all("id")?,
        saga: params.take("saga")?,
        key: params.take("key")?,
        status,
        state: params.take("state")?,
        incident: params.take("incident")?.map(|kind| parse_incident(&kind)).transpose()?,
        error: params.take("error")?,
        stuck: params.take_flag("stuck")?,
        paused: params.take_flag("paused")?,
        settling: params.take_flag("settling")?,
        older_than: params.take_span("older_than")?,
        stuck_for: params.take_span("stuck_for")?,
        all: params.take_flag("all")?,
        limit: params.take_number("limit")?,
    })
}

/// `running,compensating`.
pub fn parse_status(text: &str) -> Result<Vec<Status>, DeskError> {
    let names = || Status::ALL.map(Status::name).join(", ");
    text.split(',')
        .map(|name| {
            Status::parse(name.trim())
                .ok_or_else(|| usage(format!("'{name}' is no status"), format!("it is one of {}", names())))
        })
        .collect()
}

pub fn parse_incident(text: &str) -> Result<IncidentKind, DeskError> {
    let names = || IncidentKind::ALL.map(IncidentKind::name).join(", ");
    IncidentKind::parse(text)
        .ok_or_else(|| usage(format!("'{text}' is no kind of incident"), format!("it is one of {}", names())))
}

fn add_inbox(params: &mut Params, inbox: &InboxLook) {
    params.add("n", inbox.n);
    params.add_flag("unmatched", inbox.unmatched);
    params.add_flag("dead", inbox.dead);
    params.add("reason", inbox.reason.clone());
    params.add("type", inbox.kind.clone());
    params.add("older_than", inbox.older_than.map(|span| span.to_string()));
    params.add("limit", inbox.limit);
}

fn take_inbox(params: &mut Params) -> Result<InboxLook, DeskError> {
    Ok(InboxLook {
        n: params.take_number("n")?,
        unmatched: params.take_flag("unmatched")?,
        dead: params.take_flag("dead")?,
        reason: params.take("reason")?,
        kind: params.take("type")?,
        older_than: params.take_span("older_than")?,
        limit: params.take_number("limit")?,
    })
}

fn usage(message: String, hint: impl Into<String>) -> DeskError {
    DeskError::usage(message, hint)
}

fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// Percent-encodes all but what is free in a query and in a path's segment.
pub fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a text takes every line");
        }
    }
    out
}

pub fn decode(text: &str) -> Result<String, DeskError> {
    let wrong = || usage(format!("'{text}' is not percent-encoded UTF-8"), "encode % as %25");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else { return Err(wrong()) };
                u8::try_from(high * 16 + low).map_err(|_| wrong())?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> Select {
        Select {
            ids: vec!["a/b c".into(), "0192f1c2".into()],
            saga: Some("join-group".into()),
            key: Some("ä&=%".into()),
            status: vec![Status::Running, Status::Abandoned],
            state: Some("x".into()),
            incident: Some(IncidentKind::NoWayBack),
            error: Some("no answer".into()),
            stuck: true,
            paused: true,
            settling: true,
            older_than: Some(Span::from_secs(90)),
            stuck_for: Some(Span::from_secs(3)),
            all: true,
            limit: Some(7),
        }
    }

    #[test]
    fn a_look_comes_out_of_its_query_as_it_went_in() {
        let inbox = InboxLook { dead: true, kind: Some("A".into()), limit: Some(3), ..InboxLook::default() };
        for look in [
            Look::List { select: everything(), after: Some("0192".into()) },
            Look::Show { id: "join-group/a b".into() },
            Look::Why { id: "x".into() },
            Look::Journal { id: "x".into(), reverse: true, after: Some(7), limit: Some(9) },
            Look::Verify { select: everything() },
            Look::Status,
            Look::Count { select: everything(), by: vec![CountBy::State, CountBy::Saga] },
            Look::Inbox(inbox),
            Look::Outbox,
            Look::Definitions,
        ] {
            let (path, params) = of_look(&look);
            let verb = path.strip_prefix("/v1/").unwrap();
            let read = to_look(verb, Params::of_query(&params.to_query()).unwrap()).unwrap();
            assert_eq!(read, Some(look));
        }
    }

    #[test]
    fn an_order_comes_out_of_its_body_as_it_went_in() {
        let body: Value = serde_json::from_str(r#"{"price":1.50}"#).unwrap();
        for (name, verb) in [
            ("retry", Verb::Retry { step: Some("a[0]".into()) }),
            ("compensate", Verb::Compensate),
            ("resolve", Verb::Resolve { step: "s".into(), verdict: Verdict::Done { body } }),
            ("resolve", Verb::Resolve { step: "s".into(), verdict: Verdict::Undone }),
        ] {
            let order = Order {
                select: everything(),
                verb,
                by: "anna".into(),
                reason: Some("because".into()),
                request_id: Some("r".into()),
                expect_turn: Some(4),
                dry_run: true,
            };
            let text = of_order(&order).to_body().to_string();
            let read = to_order(name, Params::of_body(text.as_bytes()).unwrap()).unwrap();
            assert_eq!(read, Some(order));
        }
    }

    #[test]
    fn flags_may_be_written_with_hyphens_and_what_is_unknown_is_refused() {
        let params = Params::of_body(br#"{"id":"x","dry-run":true,"expect-turn":3}"#).unwrap();
        let order = to_order("compensate", params).unwrap().unwrap();
        assert!(order.dry_run);
        assert_eq!(order.expect_turn, Some(3));
        let error = to_look("list", Params::of_query("sagga=x").unwrap()).unwrap_err();
        assert!(error.to_string().contains("sagga"), "{error}");
        for (verb, query) in [("list", "status=runing"), ("list", "limit=many"), ("list", "older-than=5"), ("show", "")]
        {
            let error = to_look(verb, Params::of_query(query).unwrap()).unwrap_err();
            assert_eq!(error.code(), "usage", "{query}");
        }
        assert_eq!(to_look("nothing", Params::default()).unwrap(), None);
    }

    #[test]
    fn any_text_survives_the_way_through_a_query() {
        for text in ["", "a b", "ä/ö?&=#%+", "\u{0}\n"] {
            assert_eq!(decode(&encode(text)).unwrap(), text);
        }
        assert!(decode("%zz").is_err());
        assert!(decode("%ff").is_err());
    }
}
