//! Where reading stopped, in words that help: YAML's own complaint is rarely the author's mistake.

use serde_saphyr::granit_parser::{ErrorKind, ScanError};

use super::QUOTES;
use crate::saga::diagnostic::Problem;
use crate::saga::machine::Place;

const TAB: &str = "use spaces instead of the tab";

/// The one problem of a text that is no YAML, at the place where reading stopped.
pub(super) fn explain(error: &ScanError, text: &str) -> Problem {
    let place = place_of(error, text);
    if let Some(tab) = tab(error.kind(), place, text) {
        return Problem::new("not-yaml", tab, "this is not YAML: a tab stands where YAML takes only spaces", TAB);
    }
    let line = text.lines().nth(place.line as usize - 1).unwrap_or_default();
    let hint = hint(error.kind(), line, before(text, place.line));
    Problem::new("not-yaml", place, format!("this is not YAML: {}", reason(error)), hint)
}

/// The parser stands at times behind the last line, where nobody can look.
fn place_of(error: &ScanError, text: &str) -> Place {
    let lines = text.lines().count().max(1);
    let marker = error.marker();
    let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    if marker.line() > lines {
        let columns = text.lines().last().unwrap_or_default().chars().count();
        let (line, column) = (narrow(lines), narrow(columns) + 1);
        return Place { line, column, end_line: line, end_column: column + 1 };
    }
    let (line, column) = (narrow(marker.line()).max(1), narrow(marker.col()) + 1);
    Place { line, column, end_line: line, end_column: column + 1 }
}

fn reason(error: &ScanError) -> String {
    match error.kind() {
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement | ErrorKind::MappingKeyNotAllowed => {
            "a `:` stands where no key can be".to_owned()
        }
        ErrorKind::UnclosedQuotedScalar => "a quote is opened and never closed".to_owned(),
        ErrorKind::DirectiveDisallowed => "a `%` stands at the beginning of a line".to_owned(),
        ErrorKind::UnexpectedEof | ErrorKind::UnexpectedEofFlowMapping | ErrorKind::UnexpectedEofFlowSequence => {
            "the file ends within brackets".to_owned()
        }
        ErrorKind::RecursionLimitExceeded => "mappings and lists are nested too deeply".to_owned(),
        ErrorKind::ExpectedBlockMappingKey => "a key was expected here".to_owned(),
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => "a key without its `:`".to_owned(),
        kind => kind.to_string().replace('`', "'"),
    }
}

fn hint(kind: &ErrorKind, line: &str, before: &str) -> String {
    if needs_quotes(line) || needs_quotes(before) {
        return format!(
            "{QUOTES}: an expression with anything but words, dots, numbers and comparisons, and `${{…}}` inside `{{ }}`"
        );
    }
    match kind {
        ErrorKind::UnclosedQuotedScalar => "close the quote, on the same line".to_owned(),
        ErrorKind::UnexpectedEof | ErrorKind::UnexpectedEofFlowMapping | ErrorKind::UnexpectedEofFlowSequence => {
            "close every `{` with `}` and every `[` with `]`".to_owned()
        }
        ErrorKind::RecursionLimitExceeded => "nest less deeply".to_owned(),
        ErrorKind::DirectiveDisallowed => "put it in quotes, or remove the line".to_owned(),
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => {
            "write `key: value`, with a space behind the `:`".to_owned()
        }
        _ => "look at the indentation and at brackets and quotes of this line and the one before".to_owned(),
    }
}

/// The last line with something on it before this one: the parser notices some mistakes one line late.
fn before(text: &str, line: u32) -> &str {
    let lines: Vec<&str> = text.lines().take(line as usize - 1).collect();
    lines.into_iter().rev().find(|line| !line.trim().is_empty()).unwrap_or_default()
}

/// The tab that made reading stop, in the indentation of the line or of its neighbours.
fn tab(kind: &ErrorKind, stopped: Place, text: &str) -> Option<Place> {
    let near = [stopped.line, stopped.line + 1, stopped.line.saturating_sub(1).max(1)];
    for line in near {
        let content = text.lines().nth(line as usize - 1).unwrap_or_default();
        let indentation = content.chars().take_while(|character| character.is_whitespace());
        if let Some(column) = indentation.zip(1..).find_map(|(character, column)| (character == '\t').then_some(column))
        {
            return Some(Place { line, column, end_line: line, end_column: column + 1 });
        }
    }
    let is_tab = matches!(
        kind,
        ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation
            | ErrorKind::TabInPlainScalar
            | ErrorKind::TabAtBlockScalarStart
    );
    is_tab.then_some(stopped)
}

/// Whether a line holds an expression without quotes that YAML cannot read as one text.
fn needs_quotes(line: &str) -> bool {
    let line = line.trim_start();
    let bare = without_quoted(line);
    // `{ a: ${data.x} }`: the inner brace is YAML's.
    if bare.contains("${") && bare.find(['{', '[']).is_some_and(|at| !bare[..at].ends_with('$')) {
        return true;
    }
    let Some((_, value)) = line.split_once(": ").or_else(|| line.split_once("- ")) else { return false };
    let value = value.trim_start();
    let bare = without_quoted(value);
    let starts_badly = value.starts_with(['!', '@', '`', '%', '&', '*', '|', '>', ',', ']', '}', '?']);
    let goes_on_after_quote =
        value.starts_with(['"', '\'']) && !bare.trim().is_empty() && !bare.trim().starts_with('#');
    let goes_on_after_bracket =
        value.starts_with('[') && bare.rfind(']').is_some_and(|at| bare[at + 1..].starts_with('.'));
    let second_colon = !value.starts_with(['{', '[', '"', '\'']) && bare.contains(": ");
    starts_badly || goes_on_after_quote || goes_on_after_bracket || second_colon
}

/// The line without what stands in quotes.
fn without_quoted(line: &str) -> String {
    let mut out = String::new();
    let mut quote = None;
    for character in line.chars() {
        match quote {
            Some(open) if character == open => quote = None,
            Some(_) => {}
            None if character == '"' || character == '\'' => quote = Some(character),
            None => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::read;

    fn problem(text: &str) -> (u32, u32, String) {
        let problem = read(text).expect_err("this is not YAML");
        assert!(!problem.message.is_empty());
        (problem.place.line, problem.place.column, problem.hint)
    }

    #[test]
    fn an_expression_without_quotes_is_told_to_be_put_in_quotes() {
        for text in [
            "with: { a: ${data.x} }\n",
            "with: { a: 1, b: ${data.x}, c: 2 }\nd: 1\n",
            "when: data.a ? data.b : data.c\n",
            "when: 'a' == data.x\n",
            "when: !has(data.x) && data.y\nb: 1\n",
            "when: [1, 2].exists(x, x > 1)\n",
            "when: @data\n",
            "on:\n  X: { when: !(data.a), then: stay }\n",
            "on:\n  - when: data.x == {'a': 1}\n    then: stay\n",
        ] {
            match read(text) {
                Err(problem) => assert!(problem.hint.starts_with("put it in quotes"), "{text}: {problem:?}"),
                Ok((_, problems)) => {
                    assert!(problems.iter().any(|problem| problem.hint == "put it in quotes"), "{text}: {problems:?}");
                }
            }
        }
    }

    #[test]
    fn a_tab_is_named() {
        assert_eq!(problem("a:\n\tb: 1\n").2, "use spaces instead of the tab");
        assert_eq!(problem("a:\n  b: 1\n\tc: 1\n"), (3, 1, "use spaces instead of the tab".to_owned()));
        assert_eq!(problem("a:\n  b: [\n\tc ]\n"), (3, 1, "use spaces instead of the tab".to_owned()));
    }

    #[test]
    fn the_place_is_where_reading_stopped() {
        let (line, _, hint) = problem("a: 1\nb: [1, 2\nc: 3\n");
        assert!((2..=3).contains(&line), "{line}");
        assert!(hint.contains(']') || hint.contains("brackets"), "{hint}");
        let (line, column, _) = problem("a: 1\n  b: 2\n");
        assert_eq!((line, column), (2, 4));
    }
}
