//! What a person wrote wrongly: severity, code, place, message, hint; as text for terminals and as the view for JSON.
//!
//! Nothing here looks for mistakes, and nothing is printed.

use std::fmt::Write as _;

use serde::Serialize;

use super::machine::Place;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

impl Severity {
    pub fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Short, stable, kebab-case; a page in the docs for each.
    pub code: &'static str,
    pub message: String,
    pub hint: String,
    pub file: String,
    pub place: Place,
}

/// A diagnostic that does not know its file yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    pub code: &'static str,
    pub place: Place,
    pub message: String,
    pub hint: String,
}

impl Problem {
    pub fn new(code: &'static str, place: Place, message: impl Into<String>, hint: impl Into<String>) -> Problem {
        Problem { severity: Severity::Error, code, place, message: message.into(), hint: hint.into() }
    }

    pub fn warning(code: &'static str, place: Place, message: impl Into<String>, hint: impl Into<String>) -> Problem {
        Problem { severity: Severity::Warning, ..Problem::new(code, place, message, hint) }
    }

    pub fn in_file(self, file: &str) -> Diagnostic {
        let Problem { severity, code, place, message, hint } = self;
        Diagnostic { severity, code, message, hint, file: file.to_owned(), place }
    }
}

/// As `check` prints it with `-o json`.
#[derive(Clone, Debug, Serialize)]
pub struct DiagnosticView<'a> {
    pub severity: &'static str,
    pub code: &'static str,
    pub message: &'a str,
    pub hint: &'a str,
    pub file: &'a str,
    pub line: u32,
    pub column: u32,
    pub end_line: u32,
    pub end_column: u32,
}

/// A source line longer than this is cut in the text form; the place is told in figures all the same.
const MAX_EXCERPT: usize = 160;

impl Diagnostic {
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    pub fn view(&self) -> DiagnosticView<'_> {
        DiagnosticView {
            severity: self.severity.name(),
            code: self.code,
            message: &self.message,
            hint: &self.hint,
            file: &self.file,
            line: self.place.line,
            column: self.place.column,
            end_line: self.place.end_line,
            end_column: self.place.end_column,
        }
    }

    /// For a terminal: the place in one piece, and the line of `source` with a caret under the mistake.
    pub fn render(&self, source: Option<&str>) -> String {
        let Diagnostic { severity, code, message, hint, file, place } = self;
        let mut out =
            format!("{file}:{}:{}: {}[{code}]: {}\n", place.line, place.column, severity.name(), printable(message));
        if let Some(line) = source.and_then(|source| source.lines().nth((place.line as usize).saturating_sub(1))) {
            excerpt(&mut out, line, *place);
        }
        let _ = writeln!(out, "  = hint: {}", printable(hint));
        out
    }
}

/// All of them, one after the other; `source_of` gives the text of a file where it is at hand.
pub fn render_all<'a>(diagnostics: &[Diagnostic], source_of: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::new();
    for (number, diagnostic) in diagnostics.iter().enumerate() {
        if number > 0 {
            out.push('\n');
        }
        out.push_str(&diagnostic.render(source_of(&diagnostic.file)));
    }
    out
}

fn excerpt(out: &mut String, line: &str, place: Place) {
    let column = (place.column as usize).max(1);
    if column > MAX_EXCERPT {
        return;
    }
    let shown: String = printable(line).chars().take(MAX_EXCERPT).collect();
    let last = if place.end_line == place.line { place.end_column as usize } else { shown.chars().count() + 1 };
    let carets = last.min(shown.chars().count() + 1).saturating_sub(column).max(1);
    let number = place.line.to_string();
    let margin = " ".repeat(number.len());
    let _ = writeln!(out, "{margin} |");
    let _ = writeln!(out, "{number} | {}", shown.trim_end());
    let _ = writeln!(out, "{margin} | {}{}", " ".repeat(column - 1), "^".repeat(carets));
}

/// What a file holds must not steer the terminal: control characters become visible, one column each.
fn printable(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            '\t' => ' ',
            character if character.is_control() => '\u{fffd}',
            character => character,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostic() -> Diagnostic {
        let place = Place { line: 2, column: 3, end_line: 2, end_column: 7 };
        Problem::new("unknown-key", place, "a state has no key `sned`", "did you mean `send`?").in_file("sagas/x.yaml")
    }

    #[test]
    fn the_text_form_has_the_place_in_one_piece_and_a_caret_under_the_mistake() {
        let expected = "\
sagas/x.yaml:2:3: error[unknown-key]: a state has no key `sned`
  |
2 |   sned: a.B
  |   ^^^^
  = hint: did you mean `send`?
";
        assert_eq!(diagnostic().render(Some("x:\n  sned: a.B\n")), expected);
    }

    #[test]
    fn without_its_source_it_still_says_everything() {
        let text = diagnostic().render(None);
        assert!(text.contains("sagas/x.yaml:2:3") && text.contains("hint"), "{text}");
    }

    #[test]
    fn a_file_cannot_steer_the_terminal() {
        assert!(!diagnostic().render(Some("x\n\u{1b}[31m\n")).contains('\u{1b}'));
    }

    #[test]
    fn the_view_has_the_documented_fields() {
        let json = serde_json::to_value(diagnostic().view()).expect("a view serialises");
        let keys: Vec<&String> = json.as_object().expect("an object").keys().collect();
        let expected = ["severity", "code", "message", "hint", "file", "line", "column", "end_line", "end_column"];
        assert_eq!(keys, expected);
        assert_eq!(json["column"], 3);
    }
}
