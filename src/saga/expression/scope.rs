//! Which names an expression may use, and what is said of those it may not.

use super::functions;

/// The variables of the language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Variable {
    /// Body of the message being handled.
    Event,
    /// `id`, `type`, `time`, `correlation_id`, `headers` of it.
    Message,
    /// The instance's data.
    Data,
    /// What is known of the instance itself.
    Saga,
    /// The time at which this message is handled.
    Now,
    /// The element in `each`, under the name given there.
    Item,
    /// Number of the attempt.
    Attempt,
    /// What the operator filled in.
    Choice,
    /// In an undo: body of the success, or null.
    Reply,
    /// In an undo: type of the success, or null.
    ReplyType,
}

/// The name of the element in `each` where none is given.
const ITEM: &str = "item";

impl Variable {
    pub const ALL: [Self; 10] = [
        Self::Event,
        Self::Message,
        Self::Data,
        Self::Saga,
        Self::Now,
        Self::Item,
        Self::Attempt,
        Self::Choice,
        Self::Reply,
        Self::ReplyType,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Message => "message",
            Self::Data => "data",
            Self::Saga => "saga",
            Self::Now => "now",
            Self::Item => ITEM,
            Self::Attempt => "attempt",
            Self::Choice => "choice",
            Self::Reply => "reply",
            Self::ReplyType => "reply_type",
        }
    }

    /// The variable of that name, wherever it exists.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|variable| variable.name() == name)
    }

    /// The fields it has, where they are the same in every saga.
    pub(super) const fn fields(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Message => Some(&["id", "type", "time", "correlation_id", "headers"]),
            Self::Saga => Some(&["id", "key", "name", "status", "state", "started_at", "outcome", "failure"]),
            _ => None,
        }
    }

    /// The field that is a time, though it stands in JSON as text.
    pub(super) const fn time_field(self) -> Option<&'static str> {
        match self {
            Self::Message => Some("time"),
            Self::Saga => Some("started_at"),
            _ => None,
        }
    }
}

/// The fields of `saga.failure`.
pub(super) const FAILURE_FIELDS: &[&str] = &["kind", "state", "branch", "item", "reason"];

/// Which variables exist at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    variables: Vec<Variable>,
    item: String,
}

impl Scope {
    pub fn new(variables: &[Variable]) -> Self {
        Self { variables: variables.to_vec(), item: ITEM.to_owned() }
    }

    /// The same, and the element of `each` under this name. Where another variable has that name, the element wins.
    #[must_use]
    pub fn with_item(mut self, name: &str) -> Self {
        if !self.variables.contains(&Variable::Item) {
            self.variables.push(Variable::Item);
        }
        name.clone_into(&mut self.item);
        self
    }

    pub fn has(&self, variable: Variable) -> bool {
        self.variables.contains(&variable)
    }

    /// The names that exist here, in the order of the documentation.
    pub fn names(&self) -> Vec<&str> {
        Variable::ALL
            .into_iter()
            .filter(|variable| self.has(*variable))
            .map(|variable| self.name_of(variable))
            .collect()
    }

    pub(super) fn find(&self, name: &str) -> Option<Variable> {
        if self.has(Variable::Item) && name == self.item {
            return Some(Variable::Item);
        }
        Variable::named(name).filter(|variable| *variable != Variable::Item && self.has(*variable))
    }

    fn name_of(&self, variable: Variable) -> &str {
        if variable == Variable::Item { &self.item } else { variable.name() }
    }

    /// Message and hint for a name that does not exist here; `locals` are the names of enclosing macros.
    pub(super) fn unknown(&self, name: &str, locals: &[String]) -> (String, String) {
        let mut here: Vec<&str> = locals.iter().map(String::as_str).collect();
        here.extend(self.names());
        let exist = if here.is_empty() {
            "no names exist here, only constants".to_owned()
        } else {
            format!("here there are: {}", here.join(", "))
        };
        if Variable::named(name).is_some() {
            return (format!("'{name}' does not exist here"), exist);
        }
        let message = format!("unknown name '{name}'");
        if functions::is_name(name) {
            return (message, format!("'{name}' is a function: write {}", functions::usage(name)));
        }
        let hint = match name {
            "and" => "write && for 'and'".to_owned(),
            "or" => "write || for 'or'".to_owned(),
            "not" => "write ! for 'not'".to_owned(),
            "True" | "TRUE" | "yes" => "write true".to_owned(),
            "False" | "FALSE" | "no" => "write false".to_owned(),
            "None" | "nil" | "undefined" => "write null".to_owned(),
            _ => match closest(name, here.iter().copied()) {
                Some(near) => format!("did you mean '{near}'? {exist}"),
                None => format!("{exist}; a text stands in quotes"),
            },
        };
        (message, hint)
    }
}

/// The candidate that was probably meant, if one is near enough.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours from one word to the other; capitals count nothing.
fn distance(left: &str, right: &str) -> usize {
    // Nobody's name is that long, and the work is the product of both.
    const LONGEST: usize = 64;
    let letters = |word: &str| -> Vec<char> { word.chars().take(LONGEST).flat_map(char::to_lowercase).collect() };
    let (left, right) = (letters(left), letters(right));
    let width = right.len() + 1;
    let mut table = vec![0; (left.len() + 1) * width];
    for i in 0..=left.len() {
        for j in 0..width {
            table[i * width + j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = table[(i - 1) * width + j - 1] + usize::from(left[i - 1] != right[j - 1]);
                let stepped = table[(i - 1) * width + j].min(table[i * width + j - 1]) + 1;
                let swapped = i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1];
                let best = replaced.min(stepped);
                if swapped { best.min(table[(i - 2) * width + j - 2] + 1) } else { best }
            };
        }
    }
    table[left.len() * width + right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_if_it_is_near() {
        let names = ["event", "message", "data", "saga"];
        assert_eq!(closest("dta", names), Some("data"));
        assert_eq!(closest("evnet", names), Some("event"));
        assert_eq!(closest("Data", names), Some("data"));
        assert_eq!(closest("order", names), None);
        assert_eq!(closest("", names), None);
    }

    #[test]
    fn the_element_of_each_has_the_name_given_there() {
        let scope = Scope::new(&[Variable::Data]).with_item("program");
        assert_eq!(scope.find("program"), Some(Variable::Item));
        assert_eq!(scope.find("item"), None);
        assert_eq!(scope.names(), ["data", "program"]);
    }
}
