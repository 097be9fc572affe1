//! Gathers what was given from the file, the environment and the flags, each value with its origin and place.
//!
//! What a value means is not known here; a later source replaces an earlier one key by key.

use std::fmt;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::saga::machine::Place;

/// Where the file is looked for when neither `--config` nor `$SAGAD_CONFIG` names one.
const FILES: [&str; 2] = ["config/sagad.toml", "/etc/sagad/sagad.toml"];
/// A configuration of more than this is none.
const FILE_BYTES: u64 = 1024 * 1024;

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub config: Option<PathBuf>,
    pub db: Option<PathBuf>,
    pub sagas: Option<PathBuf>,
    pub amqp_url: Option<String>,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File {
        path: String,
        line: u32,
    },
    Environment(String),
    Flag(&'static str),
    /// The file that `*_file` names.
    SecretFile(String),
}

impl Origin {
    /// Later sources win over earlier ones.
    pub fn rank(&self) -> u8 {
        match self {
            Origin::Default => 0,
            Origin::File { .. } => 1,
            Origin::Environment(_) => 2,
            Origin::Flag(_) | Origin::SecretFile(_) => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{path}:{line}"),
            Origin::Environment(name) => write!(f, "${name}"),
            Origin::Flag(flag) => f.write_str(flag),
            Origin::SecretFile(path) => f.write_str(path),
        }
    }
}

/// Something that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// The file, or `$NAME` for the environment, or the flag.
    pub file: String,
    pub place: Place,
    pub message: String,
    pub hint: String,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw {
    /// `written`: as a TOML string. What the environment gives is text that may stand for anything.
    Text(String),
    Loose(String),
    Integer(i64),
    Boolean(bool),
    Table(IndexMap<String, Given>),
    /// A kind of value that no key takes.
    Other(&'static str),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Given {
    pub raw: Raw,
    pub origin: Origin,
    pub place: Place,
    /// Where the key stands, for what is said about the key itself.
    pub key_place: Place,
}

impl Given {
    pub fn file(&self) -> String {
        match &self.origin {
            Origin::File { path, .. } => path.clone(),
            other => other.to_string(),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// By `section.key`.
    pub values: IndexMap<String, Given>,
    /// Sections that the file opens, with their place.
    pub sections: Vec<(String, Given)>,
    pub file: Option<PathBuf>,
}

pub(super) fn gather(flags: &Flags, environment: &[(String, String)]) -> Result<Gathered, Vec<Problem>> {
    let mut gathered = Gathered::default();
    if let Some(path) = file_path(flags, environment) {
        read_file(&path, &mut gathered).map_err(|problem| vec![problem])?;
        gathered.file = Some(path);
    }
    for (name, value) in environment {
        if let Some(key) = key_of_variable(name) {
            let origin = Origin::Environment(name.clone());
            gathered.values.insert(key, Given { raw: from_environment(value), origin, place: START, key_place: START });
        }
    }
    let mut flag = |key: &str, flag: &'static str, value: Option<String>| {
        if let Some(value) = value {
            let given = Given { raw: Raw::Text(value), origin: Origin::Flag(flag), place: START, key_place: START };
            gathered.values.insert(key.to_owned(), given);
        }
    };
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    flag("store.path", "--db", flags.db.as_ref().map(text));
    flag("sagas.dir", "--sagas", flags.sagas.as_ref().map(text));
    flag("bus.url", "--amqp-url", flags.amqp_url.clone());
    Ok(gathered)
}

const START: Place = Place { line: 1, column: 1, end_line: 1, end_column: 1 };

fn file_path(flags: &Flags, environment: &[(String, String)]) -> Option<PathBuf> {
    if let Some(path) = &flags.config {
        return Some(path.clone());
    }
    let variable = environment.iter().find(|(name, value)| name == "SAGAD_CONFIG" && !value.is_empty());
    if let Some((_, path)) = variable {
        return Some(PathBuf::from(path));
    }
    FILES.iter().map(PathBuf::from).find(|path| path.exists())
}

/// `SAGAD_BUS__QUEUE` is `bus.queue`.
fn key_of_variable(name: &str) -> Option<String> {
    let (section, key) = name.strip_prefix("SAGAD_")?.split_once("__")?;
    Some(format!("{}.{}", section.to_ascii_lowercase(), key.to_ascii_lowercase().replace("__", ".")))
}

/// Text, except for a table, which is written as in the file.
fn from_environment(value: &str) -> Raw {
    if value.trim_start().starts_with('{')
        && let Ok(parsed) = DeValue::parse(value.trim())
    {
        let origin = Origin::Environment(String::new());
        return raw(parsed.get_ref(), value, &origin);
    }
    Raw::Loose(value.to_owned())
}

fn read_file(path: &Path, gathered: &mut Gathered) -> Result<(), Problem> {
    let shown = path.display().to_string();
    let problem =
        |message: String, hint: &str| Problem { file: shown.clone(), place: START, message, hint: hint.to_owned() };
    let about = std::fs::metadata(path)
        .map_err(|error| problem(format!("cannot be read: {error}"), "name a file that exists with --config"))?;
    if about.len() > FILE_BYTES {
        return Err(problem(format!("has {} bytes", about.len()), "a configuration has at most 1 MiB"));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| problem(format!("cannot be read: {error}"), "name a readable TOML file with --config"))?;
    let table = DeTable::parse(&text).map_err(|error| Problem {
        file: shown.clone(),
        place: error.span().map_or(START, |span| place(&text, &span)),
        message: format!("not TOML: {}", error.message().replace('\n', ", ")),
        hint: "write key = value lines under [section] headers; texts stand in double quotes".to_owned(),
    })?;
    for (section, body) in table.get_ref() {
        let at = given(body, section, &text, &shown);
        match &at.raw {
            Raw::Table(keys) => {
                for (key, value) in keys {
                    gathered.values.insert(format!("{}.{key}", section.get_ref()), value.clone());
                }
                gathered.sections.push((section.get_ref().to_string(), at));
            }
            _ => {
                gathered.values.insert(section.get_ref().to_string(), at);
            }
        }
    }
    Ok(())
}

fn given(value: &Spanned<DeValue<'_>>, key: &Spanned<std::borrow::Cow<'_, str>>, text: &str, file: &str) -> Given {
    let key_place = place(text, &key.span());
    let origin = Origin::File { path: file.to_owned(), line: key_place.line };
    Given { raw: raw(value.get_ref(), text, &origin), place: place(text, &value.span()), key_place, origin }
}

fn raw(value: &DeValue<'_>, text: &str, origin: &Origin) -> Raw {
    match value {
        DeValue::String(value) => Raw::Text(value.to_string()),
        DeValue::Integer(value) => i64::from_str_radix(&value.as_str().replace('_', ""), value.radix())
            .map_or(Raw::Other("a number out of range"), Raw::Integer),
        DeValue::Boolean(value) => Raw::Boolean(*value),
        DeValue::Table(table) => Raw::Table(
            table
                .iter()
                .map(|(key, value)| {
                    let file = match origin {
                        Origin::File { path, .. } => path.clone(),
                        other => other.to_string(),
                    };
                    let mut inner = given(value, key, text, &file);
                    if !matches!(origin, Origin::File { .. }) {
                        inner.origin = origin.clone();
                    }
                    (key.get_ref().to_string(), inner)
                })
                .collect(),
        ),
        DeValue::Float(_) => Raw::Other("a decimal"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Array(_) => Raw::Other("a list"),
    }
}

/// Bytes to lines and columns, in characters, from 1.
fn place(text: &str, span: &std::ops::Range<usize>) -> Place {
    let at = |offset: usize| {
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &text[..offset];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
    };
    let ((line, column), (end_line, end_column)) = (at(span.start), at(span.end));
    Place { line, column, end_line, end_column }
}
