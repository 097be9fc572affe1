//! States: what each does, how it is left, and what else may happen in it.

use indexmap::IndexMap;
use serde_json::Value;

use super::context::{Context, Fields, NOWHERE};
use super::facts::{Goes, Spot};
use super::message::LooseSend;
use super::scope::Here;
use super::step::{Defaults, STEP, Whose};
use super::transition::{At, transition_keys};
use super::value::Least;
use crate::saga::definition::{Entry, Kind, Node};
use crate::saga::expression::{Expression, Variable};
use crate::saga::machine::{
    All, Body, Choice, Decision, Due, Each, Next, Place, State, StateNo, Step, Timer, Transition,
};
use crate::saga::template::Template;

const STATE: [&str; 8] = ["about", "set", "publish", "reply", "on", "timers", "next", "end"];
const KINDS: [&str; 5] = ["send", "all", "each", "decide", "choose"];
const BESIDE: [&str; 4] = ["until", "collect", "as", "at_once"];

/// An instance has at most 1,000 items in an `each`, and no more branches in an `all`.
const MAX_PARTS: u32 = 1_000;

impl Context<'_> {
    /// All states; the first is entered when the instance starts.
    pub fn read_states(&mut self, entry: &Entry, defaults: &Defaults<'_>) -> IndexMap<String, State> {
        let mut states = IndexMap::new();
        let Some(entries) = self.mapping(&entry.value, "`states`") else {
            self.facts.graph_broken = true;
            return states;
        };
        if entries.is_empty() {
            self.report("missing-key", entry.key_place, "`states` holds no state", "add the first state");
        }
        self.states = entries.iter().map(|entry| entry.key.clone()).collect();
        self.facts.states = entries.iter().map(|entry| entry.key_place).collect();
        for (number, entry) in entries.iter().enumerate() {
            self.state_name(entry);
            states.insert(entry.key.clone(), self.read_state(number, entry, defaults));
        }
        states
    }

    fn read_state(&mut self, number: StateNo, entry: &Entry, defaults: &Defaults<'_>) -> State {
        let following = if number + 1 < self.states.len() { Next::State(number + 1) } else { Next::End(None) };
        let mut state = State {
            name: entry.key.clone(),
            about: None,
            entry: crate::saga::machine::Actions::default(),
            body: Body::Pass,
            on: IndexMap::new(),
            timers: Vec::new(),
            next: following,
            past_pivot: false,
            place: entry.key_place,
        };
        let allowed: Vec<&'static str> = STATE.into_iter().chain(KINDS).chain(STEP).chain(BESIDE).collect();
        let Some(fields) = self.fields(&entry.value, "a state", &allowed) else {
            self.facts.graph_broken = true;
            return state;
        };
        state.about = fields.value("about").and_then(|about| self.text(about, "`about`")).map(str::to_owned);
        state.entry = self.actions(&fields, &Here::entry(number), LooseSend::Left);
        state.next = self.next(&fields, state.next);
        if let Some(stray) = fields.meant("next").filter(|stray| self.names_state(&stray.value)) {
            let here = Here::clock(Some(number));
            let at = At { spot: Spot::Choose, state: Some(number), event: None, owner: entry.key_place, here };
            self.note_way(&at, None, Goes::Nowhere, true, stray.value.place);
        }
        if let Some(on) = fields.get("on") {
            let here = Here::event(Some(number));
            let at = At { spot: Spot::On, state: Some(number), event: None, owner: on.key_place, here };
            state.on = self.handlers(on, None, &at);
        }
        if let Some(timers) = fields.get("timers") {
            state.timers = self.timers(&timers.value, number);
        }
        state.body = self.state_body(&fields, number, entry.key_place, defaults);
        if matches!(state.body, Body::Pass) && (fields.has("on") || fields.has("timers")) {
            state.body = Body::Wait;
        }
        state
    }

    fn names_state(&self, node: &Node) -> bool {
        node.text().is_some_and(|text| self.states.iter().any(|state| state == text))
    }

    fn next(&mut self, fields: &Fields<'_>, following: Next) -> Next {
        match self.at_most_one(fields, &["next", "end"]) {
            Some(("next", entry)) => {
                let name = self.text(&entry.value, "`next`").unwrap_or_default().to_owned();
                if name.is_empty() {
                    self.facts.graph_broken = true;
                    return following;
                }
                Next::State(self.state(&name, entry.value.place, &[]).unwrap_or(NOWHERE))
            }
            Some((_, entry)) => {
                let label = self.text(&entry.value, "the label of `end`").unwrap_or_default().to_owned();
                if !label.is_empty() {
                    self.kebab(&label, entry.value.place, "an end");
                }
                Next::End(Some(label))
            }
            None => following,
        }
    }

    fn state_body(&mut self, fields: &Fields<'_>, state: StateNo, owner: Place, defaults: &Defaults<'_>) -> Body {
        // The `send` of an `each` is what it does for each.
        let kinds: &[&'static str] = if fields.has("each") { &["each", "all", "decide", "choose"] } else { &KINDS };
        let kind = self.at_most_one(fields, kinds);
        if fields.among(kinds).len() < 2 {
            self.misplaced(fields, kind.map(|(key, _)| key), state, owner);
        }
        let Some((key, entry)) = kind else { return Body::Pass };
        let whose = Whose { state, owner, branch: None, item: None, later: false };
        match key {
            "send" => Body::Send(self.step(fields, whose, defaults)),
            "all" => Body::All(self.all(fields, entry, whose, defaults)),
            "each" => self.each(fields, entry, whose, defaults).map_or(Body::Pass, Body::Each),
            "decide" => Body::Decide(self.decide(entry, state)),
            _ => Body::Choose(self.choose(entry, state)),
        }
    }

    /// Keys that mean nothing beside what the state does; of a step without its `send`, the `send` is what is missing.
    fn misplaced(&mut self, fields: &Fields<'_>, kind: Option<&'static str>, state: StateNo, owner: Place) {
        let mut homeless: Vec<(&'static str, &Entry, &str)> = Vec::new();
        match kind {
            None => {
                if let Some((key, _)) = fields.among(&STEP).first() {
                    // Its answers lead on, wherever that is.
                    let at = At { spot: Spot::Choose, state: Some(state), event: None, owner, here: Here::clock(None) };
                    self.note_way(&at, None, Goes::Nowhere, true, owner);
                    let hint = format!("`{key}` belongs to a step: add `send: <address>.<Command>`, or remove it");
                    self.missing(fields, owner, "this state", "send", hint);
                }
            }
            Some("send" | "each") => {}
            Some("all") => {
                for (key, entry) in fields.among(&STEP) {
                    homeless.push((key, entry, "give it to the branches"));
                }
            }
            Some(_) => {
                for (key, entry) in fields.among(&STEP) {
                    homeless.push((key, entry, "it belongs to a step: move it to a state with `send`"));
                }
            }
        }
        for (key, entry) in fields.among(&BESIDE) {
            let hint = match (key, kind) {
                ("until", Some("all")) | ("collect", Some("all" | "each")) | ("as" | "at_once", Some("each")) => {
                    continue;
                }
                ("until", _) => "it belongs beside `all`",
                ("collect", _) => "it belongs beside `all` or `each`",
                _ => "it belongs beside `each`",
            };
            homeless.push((key, entry, hint));
        }
        for (key, entry, hint) in homeless {
            let (code, hint) = if key == "pivot" && kind == Some("all") {
                ("pivot-in-part", "make the pivot a state of its own, after this one")
            } else {
                ("misplaced-key", hint)
            };
            self.report(code, entry.key_place, format!("`{key}` means nothing here"), hint);
        }
    }

    fn all(&mut self, fields: &Fields<'_>, entry: &Entry, whose: Whose<'_>, defaults: &Defaults<'_>) -> All {
        let mut branches: IndexMap<String, Step> = IndexMap::new();
        let entries = self.mapping(&entry.value, "`all`").unwrap_or_default();
        if entries.is_empty() && !entry.value.is_broken() && matches!(entry.value.kind, Kind::Map(_)) {
            self.report("missing-key", entry.key_place, "`all` holds no branch", "add at least one step");
        }
        if entries.len() > MAX_PARTS as usize {
            self.report(
                "out-of-range",
                entry.key_place,
                format!("`all` has more than {MAX_PARTS} branches"),
                "use `each`",
            );
        }
        let allowed: Vec<&'static str> = ["send"].into_iter().chain(STEP).collect();
        for branch in entries {
            self.label(&branch.key, branch.key_place, "a branch");
            let Some(keys) = self.fields(&branch.value, "a branch", &allowed) else { continue };
            if !keys.has("send") {
                self.missing(
                    &keys,
                    branch.key_place,
                    "a branch",
                    "send",
                    "name its command: `send: <address>.<Command>`",
                );
                continue;
            }
            let whose = Whose { owner: branch.key_place, branch: Some(&branch.key), ..whose };
            branches.insert(branch.key.clone(), self.step(&keys, whose, defaults));
        }
        let any = fields.value("until").is_some_and(|node| self.word(node, "`until`", &[("any", ())]).is_some());
        All { branches, any, collect: self.collect(fields) }
    }

    fn each(&mut self, fields: &Fields<'_>, entry: &Entry, whose: Whose<'_>, defaults: &Defaults<'_>) -> Option<Each> {
        let list = self.expression(&entry.value, &Here::entry(whose.state));
        let bind = match fields.value("as") {
            Some(node) => self.bind(node).unwrap_or_else(|| "item".to_owned()),
            None => "item".to_owned(),
        };
        let at_once = fields.value("at_once").and_then(|node| self.integer(node, "`at_once`", 1..=MAX_PARTS));
        let collect = self.collect(fields);
        if !fields.has("send") {
            self.missing(
                fields,
                whose.owner,
                "a state with `each`",
                "send",
                "name the command that goes out for each item",
            );
            return None;
        }
        let step = self.step(fields, Whose { item: Some(&bind), later: fields.has("at_once"), ..whose }, defaults);
        let list = list.unwrap_or_else(|| Expression::constant(Value::Array(Vec::new())));
        Some(Each { list, bind, at_once, step, collect })
    }

    fn bind(&mut self, node: &Node) -> Option<String> {
        let name = self.text(node, "`as`")?;
        if !self.identifier(name, node.place, "an element") {
            return None;
        }
        let is_word = matches!(name, "true" | "false" | "null" | "in");
        if is_word || Variable::named(name).is_some_and(|variable| variable != Variable::Item) {
            let message = format!("`{name}` means something else in expressions");
            self.report("reserved-name", node.place, message, "give the element another name, such as `item`");
            return None;
        }
        Some(name.to_owned())
    }

    fn collect(&mut self, fields: &Fields<'_>) -> Option<String> {
        let node = fields.value("collect")?;
        let name = self.text(node, "`collect`")?;
        if !self.identifier(name, node.place, "a field of `data`") {
            self.facts.open_data = true;
            return None;
        }
        self.facts.set.insert(name.to_owned());
        Some(name.to_owned())
    }

    fn choose(&mut self, entry: &Entry, state: StateNo) -> Vec<Transition> {
        let at = At {
            spot: Spot::Choose,
            state: Some(state),
            event: None,
            owner: entry.key_place,
            here: Here::entry(state),
        };
        if self.list(&entry.value, "`choose`").is_none() {
            self.facts.graph_broken = true;
            return Vec::new();
        }
        let transitions = self.transitions(&entry.value, &at);
        if let Some(last) = transitions.last().filter(|last| last.when.is_some()) {
            let hint = "add one without `when` that is taken where no other holds, such as `next`";
            self.report(
                "choose-without-else",
                last.place,
                "the last of `choose` has a `when`, so that none may hold",
                hint,
            );
        }
        transitions
    }

    fn decide(&mut self, entry: &Entry, state: StateNo) -> Decision {
        let mut decision = Decision { ask: Template::Literal(Value::Null), choices: IndexMap::new() };
        let Some(fields) = self.fields(&entry.value, "a decision", &["ask", "choices"]) else {
            self.facts.graph_broken = true;
            return decision;
        };
        match fields.value("ask") {
            Some(ask) if ask.is_empty() || matches!(ask.kind, Kind::List(_) | Kind::Map(_)) => {
                let message = format!("`ask` is a text, and this is {}", ask.describe());
                self.report("wrong-type", ask.place, message, "write the question that a person reads");
            }
            Some(ask) => decision.ask = self.template(ask, &Here::entry(state)),
            None => {
                self.missing(&fields, entry.key_place, "a decision", "ask", "write the question that a person reads");
            }
        }
        let Some(choices) = fields.get("choices") else {
            self.missing(
                &fields,
                entry.key_place,
                "a decision",
                "choices",
                "name what may be chosen, and where each leads",
            );
            self.facts.graph_broken = true;
            return decision;
        };
        let Some(entries) = self.mapping(&choices.value, "`choices`") else {
            self.facts.graph_broken = true;
            return decision;
        };
        if entries.is_empty() {
            self.report("missing-key", choices.key_place, "`choices` holds no choice", "add at least one");
        }
        for entry in entries {
            self.label(&entry.key, entry.key_place, "a choice");
            if let Some(choice) = self.choice(entry, state) {
                decision.choices.insert(entry.key.clone(), choice);
            }
        }
        decision
    }

    fn choice(&mut self, entry: &Entry, state: StateNo) -> Option<Choice> {
        let mut at = At {
            spot: Spot::Choice,
            state: Some(state),
            event: Some(&entry.key),
            owner: entry.key_place,
            here: Here::choice(state, Vec::new()),
        };
        if matches!(entry.value.kind, Kind::Scalar(_)) {
            let way = self.transitions(&entry.value, &at).into_iter().next()?;
            return Some(Choice { needs: IndexMap::new(), way });
        }
        let Some(fields) = self.fields(&entry.value, "a choice", &transition_keys(&["needs"])) else {
            self.facts.graph_broken = true;
            return None;
        };
        let needs = fields.value("needs").map(|needs| self.needs(needs)).unwrap_or_default();
        // Whether a choice is offered is asked before anybody has filled it in.
        let offered = fields.value("when").map(|when| self.expression(when, &Here::clock(Some(state))));
        at.here = Here::choice(state, needs.keys().cloned().collect());
        let mut way = self.long(&fields.without("when"), entry.value.place, &at);
        way.when = offered.map(|when| when.unwrap_or_else(|| Expression::constant(Value::Bool(true))));
        Some(Choice { needs, way })
    }

    /// Fields, or fields with what is asked for.
    fn needs(&mut self, node: &Node) -> IndexMap<String, Option<String>> {
        let mut needs = IndexMap::new();
        if let Kind::Map(entries) = &node.kind {
            for entry in entries {
                let question = self.text(&entry.value, "what is asked for").map(str::to_owned);
                if self.identifier(&entry.key, entry.key_place, "a field") {
                    needs.insert(entry.key.clone(), question);
                }
            }
            return needs;
        }
        for item in self.list(node, "`needs`").unwrap_or_default() {
            let Some(name) = self.text(item, "a field") else { continue };
            if !self.identifier(name, item.place, "a field") {
                continue;
            }
            if needs.insert(name.to_owned(), None).is_some() {
                self.report("duplicate-name", item.place, format!("`{name}` is asked for twice"), "remove one");
            }
        }
        needs
    }

    fn timers(&mut self, node: &Node, state: StateNo) -> Vec<Timer> {
        let mut timers: Vec<Timer> = Vec::new();
        let Some(items) = self.list(node, "`timers`") else {
            self.facts.graph_broken = true;
            return timers;
        };
        for (number, item) in items.iter().enumerate() {
            let Some(fields) =
                self.fields(item, "a timer", &transition_keys(&["name", "after", "from", "at", "every", "times"]))
            else {
                self.facts.graph_broken = true;
                continue;
            };
            let mut name = (number + 1).to_string();
            if let Some(node) = fields.value("name")
                && let Some(given) = self.text(node, "a timer's name")
                && self.kebab(given, node.place, "a timer")
            {
                if timers.iter().any(|timer| timer.name == given) {
                    let message = format!("two timers of this state are called `{given}`");
                    self.report("duplicate-name", node.place, message, "give each timer a name of its own");
                }
                given.clone_into(&mut name);
            }
            let due = self.due(&fields, item.place, state);
            let at = At {
                spot: Spot::Timer,
                state: Some(state),
                event: None,
                owner: item.place,
                here: Here::clock(Some(state)),
            };
            let way = self.long(&fields, item.place, &at);
            let due = due.unwrap_or(Due::After(crate::saga::duration::Span(1)));
            timers.push(Timer { name, due, ways: vec![way], place: item.place });
        }
        timers
    }

    fn due(&mut self, fields: &Fields<'_>, place: Place, state: StateNo) -> Option<Due> {
        let kind = self.at_most_one(fields, &["after", "at", "every"]);
        for (key, of) in [("from", "after"), ("times", "every")] {
            if let Some(entry) = fields.get(key)
                && kind.is_some_and(|(kind, _)| kind != of)
            {
                let message = format!("`{key}` means nothing here");
                self.report("misplaced-key", entry.key_place, message, format!("it belongs beside `{of}`"));
            }
        }
        let Some((key, entry)) = kind else {
            self.missing(fields, place, "a timer", "after", "say when: `after: 15m`, `at: <time>` or `every: 1h`");
            return None;
        };
        match key {
            "after" => {
                let from_start =
                    fields.value("from").is_some_and(|node| self.word(node, "`from`", &[("start", ())]).is_some());
                let span = self.span(&entry.value, "`after`", Least::Zero)?;
                Some(if from_start { Due::AfterStart(span) } else { Due::After(span) })
            }
            "at" => self.expression(&entry.value, &Here::entry(state)).map(Due::At),
            _ => {
                let times = fields.value("times").and_then(|node| self.integer(node, "`times`", 1..=1_000_000));
                let span = self.span(&entry.value, "`every`", Least::Positive)?;
                Some(Due::Every { span, times })
            }
        }
    }
}
