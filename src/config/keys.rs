//! Reads one key after the other by its kind. A key that nobody reads is unknown: the list of keys is the reading.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use indexmap::IndexMap;

use super::gather::{Gathered, Given, Origin, Problem, Raw};
use super::{Address, Explained, Secret};
use crate::saga::duration::Span;
use crate::saga::machine::Place;

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

pub(super) struct Keys {
    gathered: Gathered,
    /// Every key that exists, in the order in which it was read.
    explained: Vec<Explained>,
    problems: Vec<Problem>,
}

impl Keys {
    pub fn new(gathered: Gathered) -> Keys {
        Keys { gathered, explained: Vec::new(), problems: Vec::new() }
    }

    pub fn was_given(&self, key: &str) -> bool {
        self.gathered.values.contains_key(key)
    }

    /// Says what is wrong with a key, at its place.
    pub fn problem(&mut self, key: &str, message: String, hint: String) {
        let given = self.gathered.values.get(key);
        let file = given.map_or_else(
            || self.gathered.file.as_ref().map_or_else(String::new, |file| file.display().to_string()),
            Given::file,
        );
        let place = given.map_or(Place { line: 1, column: 1, end_line: 1, end_column: 1 }, |given| given.place);
        self.problems.push(Problem { file, place, message, hint });
    }

    pub fn text(&mut self, key: &str, default: &str) -> String {
        self.read(key, quoted, as_text, "a text in quotes")
            .unwrap_or_else(|| self.fall_back(key, default.to_owned(), quoted))
    }

    pub fn optional_text(&mut self, key: &str) -> Option<String> {
        let value = self.read(key, quoted, as_text, "a text in quotes");
        if value.is_none() {
            self.explain(key, String::new());
        }
        value
    }

    pub fn path(&mut self, key: &str, default: &str) -> PathBuf {
        PathBuf::from(self.text(key, default))
    }

    pub fn optional_path(&mut self, key: &str) -> Option<PathBuf> {
        self.optional_text(key).filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    pub fn optional_address(&mut self, key: &str) -> Option<SocketAddr> {
        let text = self.optional_text(key).filter(|text| !text.is_empty())?;
        let address = text.parse().ok();
        if address.is_none() {
            self.problem(
                key,
                format!("'{text}' is not an address"),
                "write an address and a port, such as 127.0.0.1:8420".to_owned(),
            );
        }
        address
    }

    pub fn boolean(&mut self, key: &str, default: bool) -> bool {
        let read = |raw: &Raw| match raw {
            Raw::Boolean(value) => Ok(*value),
            Raw::Loose(text) => text.parse().map_err(|_| format!("'{text}' is neither true nor false")),
            other => Err(is_no(other, "true or false")),
        };
        self.read(key, std::string::ToString::to_string, read, "true or false")
            .unwrap_or_else(|| self.fall_back(key, default, std::string::ToString::to_string))
    }

    pub fn number(&mut self, key: &str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let read = |raw: &Raw| {
            let number = match raw {
                Raw::Integer(value) => u64::try_from(*value).ok(),
                Raw::Loose(text) => text.trim().parse().ok(),
                other => return Err(is_no(other, "a whole number")),
            };
            number.filter(|number| range.contains(number)).ok_or_else(|| format!("{} is not {wanted}", shown(raw)))
        };
        self.read(key, std::string::ToString::to_string, read, &wanted)
            .unwrap_or_else(|| self.fall_back(key, default, std::string::ToString::to_string))
    }

    /// A size: a number of bytes, or a text such as `1MiB`.
    pub fn bytes(&mut self, key: &str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let wanted = format!("a size up to {}, such as 512KiB or 1MiB", size_text(*range.end()));
        let read = |raw: &Raw| {
            let size = match raw {
                Raw::Integer(value) => u64::try_from(*value).ok(),
                Raw::Text(text) | Raw::Loose(text) => parse_size(text),
                other => return Err(is_no(other, "a size")),
            };
            size.filter(|size| range.contains(size)).ok_or_else(|| format!("{} is not {wanted}", shown(raw)))
        };
        let show = |size: &u64| format!("\"{}\"", size_text(*size));
        self.read(key, show, read, &wanted).unwrap_or_else(|| self.fall_back(key, default, show))
    }

    pub fn span(&mut self, key: &str, default: Span) -> Span {
        let show = |span: &Span| format!("\"{span}\"");
        match self.gathered.values.get(key).map(|given| as_text(&given.raw)) {
            None => self.fall_back(key, default, show),
            Some(Err(message)) => {
                self.problem(
                    key,
                    message,
                    "write a duration in quotes, such as \"30s\", \"15m\" or \"30d\"".to_owned(),
                );
                self.fall_back(key, default, show)
            }
            Some(Ok(text)) => match Span::parse(&text) {
                Ok(span) => {
                    self.explain(key, show(&span));
                    span
                }
                Err(error) => {
                    self.problem(key, error.message, error.hint);
                    self.fall_back(key, default, show)
                }
            },
        }
    }

    /// One of a few words; the first is the default.
    pub fn choice<T: Copy>(&mut self, key: &str, choices: &[(&'static str, T)]) -> T {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let wanted = format!("one of {}", words.join(", "));
        let read = |raw: &Raw| {
            let text = as_text(raw)?;
            choices.iter().find(|(word, _)| *word == text).copied().ok_or_else(|| format!("'{text}' is not {wanted}"))
        };
        let show = |(word, _): &(&'static str, T)| format!("\"{word}\"");
        self.read(key, show, read, &wanted).unwrap_or_else(|| self.fall_back(key, choices[0], show)).1
    }

    /// A URL that may hold a password: itself, or in a file of its own.
    pub fn url(&mut self, key: &str, file_key: &str, default: &str) -> Secret {
        let rank = |given: Option<&Given>| given.map_or(0, |given| given.origin.rank());
        let (direct, by_file) = (rank(self.gathered.values.get(key)), rank(self.gathered.values.get(file_key)));
        if direct > 0 && direct == by_file {
            self.problem(
                file_key,
                format!("'{key}' and '{file_key}' are both given"),
                format!("leave one of them out; '{file_key}' keeps the password out of sight"),
            );
        }
        let show = |url: &Secret| format!("\"{}\"", url.masked());
        let from_file = if by_file > direct { self.secret_file(file_key) } else { None };
        let url = if let Some((secret, path)) = from_file {
            self.explained.push(Explained {
                key: key.to_owned(),
                value: show(&secret),
                origin: Origin::SecretFile(path),
            });
            secret
        } else {
            let read = |raw: &Raw| as_text(raw).map(Secret::new);
            self.read(key, show, read, "a URL such as amqp://host:5672/vhost")
                .unwrap_or_else(|| self.fall_back(key, Secret::new(default), show))
        };
        let file = self.gathered.values.get(file_key).and_then(|given| as_text(&given.raw).ok());
        self.explain(file_key, file.as_ref().map_or_else(String::new, quoted));
        if !(url.reveal().starts_with("amqp://") || url.reveal().starts_with("amqps://")) {
            self.problem(
                if by_file > direct { file_key } else { key },
                format!("'{}' is not a broker's URL", url.masked()),
                "write amqp://user@host:5672/vhost, or amqps:// for TLS".to_owned(),
            );
        }
        url
    }

    fn secret_file(&mut self, key: &str) -> Option<(Secret, String)> {
        let given = self.gathered.values.get(key)?;
        match as_text(&given.raw) {
            Ok(path) => match std::fs::read_to_string(&path) {
                Ok(text) => Some((Secret::new(text.trim()), path)),
                Err(error) => {
                    self.problem(
                        key,
                        format!("'{path}' cannot be read: {error}"),
                        "name a file that the daemon's user may read and that holds the URL alone".to_owned(),
                    );
                    None
                }
            },
            Err(message) => {
                self.problem(key, message, "write the file's path in quotes".to_owned());
                None
            }
        }
    }

    pub fn addresses(&mut self, key: &str) -> IndexMap<String, Address> {
        const HINT: &str = "write name = { exchange = \"\", routing_key = \"queue.name\" }";
        // In the environment one may be given alone: SAGAD_BUS__ADDRESSES__PAYMENTS.
        let prefix = format!("{key}.");
        let mut entries: IndexMap<String, Given> = IndexMap::new();
        match self.gathered.values.get(key).cloned() {
            None => {}
            Some(Given { raw: Raw::Table(table), .. }) => entries = table,
            Some(other) => self.problem(key, is_no(&other.raw, "a table"), HINT.to_owned()),
        }
        for (name, given) in &self.gathered.values {
            if let Some(name) = name.strip_prefix(&prefix) {
                entries.insert(name.to_owned(), given.clone());
            }
        }
        let origin = self.gathered.values.get(key).map_or(Origin::Default, |given| given.origin.clone());
        self.explained.push(Explained { key: key.to_owned(), value: String::new(), origin });
        let mut addresses = IndexMap::new();
        for (name, given) in entries {
            let Raw::Table(fields) = &given.raw else {
                self.problems.push(Problem {
                    file: given.file(),
                    place: given.place,
                    message: is_no(&given.raw, "a table"),
                    hint: HINT.to_owned(),
                });
                continue;
            };
            let mut address = Address { exchange: String::new(), routing_key: None };
            for (field, value) in fields {
                let problem = |message: String| Problem {
                    file: given.file(),
                    place: value.key_place,
                    message,
                    hint: HINT.to_owned(),
                };
                match (field.as_str(), as_text(&value.raw)) {
                    ("exchange", Ok(text)) => address.exchange = text,
                    ("routing_key", Ok(text)) => address.routing_key = Some(text),
                    ("exchange" | "routing_key", Err(message)) => self.problems.push(problem(message)),
                    _ => self.problems.push(problem(format!("unknown key '{prefix}{name}.{field}'"))),
                }
            }
            let known = |field: &String| matches!(field.as_str(), "exchange" | "routing_key");
            if !fields.contains_key("exchange") && fields.keys().all(known) {
                self.problems.push(Problem {
                    file: given.file(),
                    place: given.key_place,
                    message: format!("'{prefix}{name}' has no 'exchange'"),
                    hint: HINT.to_owned(),
                });
            }
            addresses.insert(name, address);
        }
        addresses
    }

    /// What is known now, and what was wrong; last of all the keys that nobody read.
    pub fn finish(mut self) -> (Vec<Explained>, Vec<Problem>) {
        let known: Vec<String> = self.explained.iter().map(|line| line.key.clone()).collect();
        let sections: Vec<&str> = {
            let mut sections: Vec<&str> = known.iter().filter_map(|key| key.split('.').next()).collect();
            sections.dedup();
            sections
        };
        for (name, given) in &self.gathered.sections {
            if !sections.contains(&name.as_str()) {
                let hint = nearest(name, &sections).map_or_else(
                    || format!("the sections are {}", sections.join(", ")),
                    |near| format!("did you mean [{near}]?"),
                );
                self.problems.push(Problem {
                    file: given.file(),
                    place: given.key_place,
                    message: format!("unknown section [{name}]"),
                    hint,
                });
            }
        }
        for (key, given) in &self.gathered.values {
            let section = key.split('.').next().unwrap_or(key);
            let told = key.contains('.') && !sections.contains(&section) && matches!(given.origin, Origin::File { .. });
            if known.contains(key) || key.starts_with("bus.addresses.") || told {
                continue;
            }
            self.problems.push(Problem {
                file: given.file(),
                place: given.key_place,
                message: format!("unknown key '{key}'"),
                hint: hint(key, given, &known),
            });
        }
        self.problems
            .sort_by(|a, b| (&a.file, a.place.line, a.place.column).cmp(&(&b.file, b.place.line, b.place.column)));
        (self.explained, self.problems)
    }

    /// The value that was given, read; `None` where none was or where it is wrong, which is then told.
    fn read<T>(
        &mut self,
        key: &str,
        show: impl Fn(&T) -> String,
        read: impl Fn(&Raw) -> Result<T, String>,
        wanted: &str,
    ) -> Option<T> {
        match read(&self.gathered.values.get(key)?.raw) {
            Ok(value) => {
                self.explain(key, show(&value));
                Some(value)
            }
            Err(message) => {
                self.problem(key, message, format!("'{key}' is {wanted}"));
                None
            }
        }
    }

    fn fall_back<T>(&mut self, key: &str, value: T, show: impl Fn(&T) -> String) -> T {
        self.explain(key, show(&value));
        value
    }

    fn explain(&mut self, key: &str, value: String) {
        let origin = self.gathered.values.get(key).map_or(Origin::Default, |given| given.origin.clone());
        self.explained.push(Explained { key: key.to_owned(), value, origin });
    }
}

fn quoted(text: &String) -> String {
    format!("{text:?}")
}

fn as_text(raw: &Raw) -> Result<String, String> {
    match raw {
        Raw::Text(text) | Raw::Loose(text) => Ok(text.clone()),
        other => Err(is_no(other, "a text")),
    }
}

fn is_no(raw: &Raw, wanted: &str) -> String {
    format!("{} is not {wanted}", shown(raw))
}

fn shown(raw: &Raw) -> String {
    match raw {
        Raw::Text(text) | Raw::Loose(text) => format!("'{text}'"),
        Raw::Integer(value) => value.to_string(),
        Raw::Boolean(value) => value.to_string(),
        Raw::Table(_) => "a table".to_owned(),
        Raw::Other(kind) => (*kind).to_owned(),
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim();
    if unit.is_empty() {
        return Some(number);
    }
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

fn size_text(size: u64) -> String {
    let (unit, factor) =
        UNITS.iter().find(|(_, factor)| size >= *factor && size.is_multiple_of(*factor)).copied().unwrap_or(("B", 1));
    format!("{}{unit}", size / factor)
}

fn hint(key: &str, given: &Given, known: &[String]) -> String {
    let environment = matches!(given.origin, Origin::Environment(_));
    let name = key.rsplit('.').next().unwrap_or(key);
    let say = |known: &str| {
        if environment {
            format!("did you mean SAGAD_{}?", known.to_ascii_uppercase().replace('.', "__"))
        } else {
            let (section, name) = known.split_once('.').unwrap_or(("", known));
            if key.split('.').next() == Some(section) {
                format!("did you mean '{name}'?")
            } else {
                format!("did you mean '{name}' in [{section}]?")
            }
        }
    };
    // The same name in another section first, then what is spelled nearly so.
    let same = known.iter().find(|known| known.rsplit('.').next() == Some(name));
    let all: Vec<&str> = known.iter().map(String::as_str).collect();
    match same.map(String::as_str).or_else(|| nearest(key, &all)) {
        Some(known) => say(known),
        None => "config/sagad.toml lists every key; sagad check --explain shows those that hold".to_owned(),
    }
}

/// The word that is spelled most like it, if any is near enough to have been meant.
pub(super) fn nearest<'a>(word: &str, words: &[&'a str]) -> Option<&'a str> {
    words
        .iter()
        .map(|known| (distance(word, known), *known))
        .filter(|(distance, known)| *distance <= 1 + known.len().min(word.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// Levenshtein's distance, in characters.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let cost = corner + usize::from(l != *r);
            corner = row[j + 1];
            row[j + 1] = cost.min(corner + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}
