//! Keeps the shape of the sources: who may use whom, which names stay in which folder. It reads text and knows nothing
//! of Rust but comments and strings; what it cannot see, clippy.toml forbids.

use std::fs;
use std::path::{Path, PathBuf};

/// Order of use: each module only what stands left of it.
const ORDER: [&str; 17] = [
    "saga",
    "config",
    "api",
    "telemetry",
    "explore",
    "export",
    "store",
    "engine",
    "bus",
    "world",
    "desk",
    "scenario",
    "demo",
    "http",
    "daemon",
    "cli",
    "main",
];

/// A name, where it may stand, and why nowhere else. A place is a folder or file below `src` without its ending.
const ONLY_IN: &[(&str, &[&str], &str)] = &[
    ("rusqlite", &["store"], "another database may take SQLite's place: nothing else knows SQL"),
    ("lapin", &["bus"], "another bus may take RabbitMQ's place: nothing else knows AMQP"),
    ("axum", &["http"], "routes carry the desk and decide nothing"),
    ("clap", &["cli", "main"], "arguments are the command line's"),
    ("comfy_table", &["cli"], "tables are the command line's"),
    ("indicatif", &["cli"], "progress is the command line's"),
    ("toml", &["config"], "the configuration's form is read in one place"),
    ("serde_saphyr", &["saga", "scenario"], "YAML is the language of definitions and scenarios"),
    ("anyhow", &["cli", "main"], "a module's errors are an enum that tells its cases"),
    ("SystemTime", &["engine/run", "cli"], "time is an argument"),
    ("Instant::now", &["engine/run", "cli"], "time is an argument"),
    ("Timestamp::now", &["engine/run", "cli"], "time is an argument"),
    ("Zoned::now", &["engine/run", "cli"], "time is an argument"),
    ("now_v7", &[], "it reads the clock: make the id from the turn's time"),
    ("unbounded_channel", &[], "everything has a limit"),
    ("process::exit", &["main"], "destructors must run"),
];

/// What the pure folders must not even name: no clock, no randomness, no logging, no I/O, no async.
const PURE: [&str; 3] = ["saga", "explore", "export"];
const IMPURE: [&str; 15] = [
    "std::fs",
    "std::io",
    "std::net",
    "std::env",
    "std::thread",
    "std::process",
    "std::sync::mpsc",
    "std::sync::Mutex",
    "Instant",
    "tokio",
    "tracing",
    "getrandom",
    "async fn",
    ".await",
    "Uuid::new_v4",
];

/// Marks of what is not finished, or of a lint that was silenced instead of answered.
const NEVER: [(&str, &str); 7] = [
    ("#[allow", "use #[expect(lint, reason = \"…\")]"),
    ("#![allow", "use #![expect(lint, reason = \"…\")]"),
    ("todo!", "finish it"),
    ("unimplemented!", "finish it"),
    ("dbg!", "take it out"),
    ("#[ignore", "a test that does not run shows nothing"),
    ("unsafe {", "it is forbidden"),
];

#[test]
fn a_module_uses_only_what_stands_left_of_it() {
    let rank = |module: &str| ORDER.iter().position(|known| *known == module);
    let mut wrong = Vec::new();
    for source in sources("src") {
        let module = source.module();
        if module == "lib" {
            continue;
        }
        let Some(own) = rank(&module) else {
            wrong.push(format!("{}: `{module}` has no place in the order of use", source.path));
            continue;
        };
        for (line, used) in source.uses() {
            match rank(&used) {
                Some(other) if other > own => {
                    wrong.push(format!("{}:{line}: `{module}` must not know `{used}`", source.path));
                }
                _ => {}
            }
        }
    }
    none(&wrong);
}

#[test]
fn names_stay_in_the_folders_that_they_belong_to() {
    let mut wrong = Vec::new();
    for source in sources("src") {
        for (name, places, why) in ONLY_IN {
            if places.iter().any(|place| source.is_in(place)) {
                continue;
            }
            for line in source.lines_naming(name) {
                wrong.push(format!("{}:{line}: `{name}`: {why}", source.path));
            }
        }
    }
    none(&wrong);
}

#[test]
fn the_core_is_pure() {
    let mut wrong = Vec::new();
    for source in sources("src").into_iter().filter(|source| PURE.contains(&source.module().as_str())) {
        for name in IMPURE {
            for line in source.lines_naming(name) {
                wrong.push(format!("{}:{line}: `{name}` has no place in the pure core", source.path));
            }
        }
    }
    none(&wrong);
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let silent = all_sources().into_iter().filter(|source| !source.text.starts_with("//! "));
    none(&silent.map(|source| format!("{}: opens without `//!`", source.path)).collect::<Vec<_>>());
}

#[test]
fn nothing_is_unfinished_or_silenced() {
    let mut wrong = Vec::new();
    for source in all_sources() {
        for (mark, instead) in NEVER {
            for line in source.lines_naming(mark) {
                wrong.push(format!("{}:{line}: `{mark}`: {instead}", source.path));
            }
        }
    }
    none(&wrong);
}

#[test]
fn no_file_has_grown_into_two() {
    /// Some 500 lines before its tests; past this a file is usually two things.
    const LONGEST: usize = 650;
    let files = sources("src").into_iter().filter(|source| !source.path.ends_with("/tests.rs"));
    let long = files.filter(|source| source.code.lines().count() > LONGEST);
    none(&long.map(|source| format!("{}: split it by concern", source.path)).collect::<Vec<_>>());
}

/// A source file, and the same with comments and the insides of strings blanked out, line for line.
pub struct Source {
    /// Relative to the root, with `/`.
    pub path: String,
    pub text: String,
    code: String,
}

impl Source {
    /// The first folder below `src`, or the file's own name.
    fn module(&self) -> String {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        below.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned()
    }

    fn is_in(&self, place: &str) -> bool {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path).trim_end_matches(".rs");
        below == place || below.starts_with(&format!("{place}/"))
    }

    /// Lines of code (from 1) that hold the name, not as a part of a longer word.
    fn lines_naming(&self, name: &str) -> Vec<usize> {
        let wordy = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        self.code
            .lines()
            .enumerate()
            .filter(|(_, line)| {
                line.match_indices(name).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    let after = line[at + name.len()..].chars().next();
                    let begins_inside = wordy(name.chars().next()) && wordy(before);
                    let ends_inside = wordy(name.chars().next_back()) && wordy(after);
                    !begins_inside && !ends_inside
                })
            })
            .map(|(number, _)| number + 1)
            .collect()
    }

    /// Modules named after `crate::`, also inside `crate::{…}`, with their lines.
    fn uses(&self) -> Vec<(usize, String)> {
        let mut used = Vec::new();
        for root in ["crate::", "sagad::"] {
            for (at, _) in self.code.match_indices(root) {
                let line = self.code[..at].matches('\n').count() + 1;
                let rest = &self.code[at + root.len()..];
                if let Some(group) = rest.strip_prefix('{') {
                    used.extend(heads_of_group(group).into_iter().map(|head| (line, head)));
                } else {
                    used.push((line, word_at(rest)));
                }
            }
        }
        used
    }
}

/// The first word of each entry of `a::b, c::{d, e}, f}`.
fn heads_of_group(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let (mut depth, mut at_start) = (0, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            c if at_start && !c.is_whitespace() => {
                heads.push(word_at(&group[at..]));
                at_start = false;
            }
            _ => {}
        }
    }
    heads
}

fn word_at(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Blanks comments and the insides of strings, keeping the lines.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let taken = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = raw_string(rest, &code) {
            length
        } else if c == '"' {
            string(rest)
        } else if let Some(length) = quoted_character(rest) {
            length
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        code.push(' ');
        code.extend(rest[..taken].chars().filter(|c| *c == '\n'));
        rest = &rest[taken..];
    }
    code
}

/// Without the unit tests at its end, which may use what they like.
fn untested(code: &str) -> &str {
    code.find("#[cfg(test)]\nmod ").map_or(code, |at| &code[..at])
}

fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn raw_string(rest: &str, before: &str) -> Option<usize> {
    let hashes = rest.strip_prefix('r')?.chars().take_while(|c| *c == '#').count();
    if before.chars().next_back().is_some_and(|c| c.is_alphanumeric() && c != 'b' || c == '_') {
        return None;
    }
    let open = 1 + hashes;
    if !rest[open..].starts_with('"') {
        return None;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    Some(rest[open + 1..].find(&close).map_or(rest.len(), |end| open + 1 + end + close.len()))
}

/// `'x'` and `'\n'`, but not a lifetime.
fn quoted_character(rest: &str) -> Option<usize> {
    let mut characters = rest.char_indices();
    characters.next().filter(|(_, c)| *c == '\'')?;
    if characters.next()?.1 == '\\' {
        return rest[2..].char_indices().skip(1).find(|(_, c)| *c == '\'').map(|(at, _)| 2 + at + 1);
    }
    characters.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at + 1)
}

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn all_sources() -> Vec<Source> {
    ["src", "tests", "benches", "examples"].into_iter().flat_map(sources).collect()
}

fn sources(folder: &str) -> Vec<Source> {
    files(&root().join(folder), "rs")
        .into_iter()
        .map(|path| {
            let text = read(&path);
            Source { path: relative(&path), code: untested(&code_of(&text)).to_owned(), text }
        })
        .collect()
}

/// Files below the folder with this ending, in order. A folder that is not there has none.
pub fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries {
        let path = entry.expect("a folder can be read to its end").path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|own| own == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

pub fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn comments_and_strings_are_no_code() {
    let text = "use a; // lapin\nlet x = \"lapin \\\" lapin\"; let c = '\"'; /* lapin\n*/ r#\"lapin\"#; lapin::x();\n";
    let source = Source { path: "src/x.rs".into(), code: code_of(text), text: text.into() };
    assert_eq!(source.lines_naming("lapin"), [3]);
    assert_eq!(source.code.lines().count(), text.lines().count());
}

#[test]
fn groups_of_uses_are_taken_apart() {
    let text = "use crate::{bus::x, saga::{a, b}, store};\nfn f(x: &'static str) { crate::engine::run() }\n";
    let source = Source { path: "src/x.rs".into(), code: code_of(text), text: text.into() };
    let used: Vec<_> = source.uses().into_iter().map(|(line, used)| format!("{line} {used}")).collect();
    assert_eq!(used, ["1 bus", "1 saga", "1 store", "2 engine"]);
}
