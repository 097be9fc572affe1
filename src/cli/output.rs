//! The only file that prints: data on stdout, talk on stderr, tables that fit where they are shown.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};

use serde::Serialize;

use super::exit::Failure;
use crate::engine::wall_clock;
use crate::saga::duration::Span;
use crate::saga::time::Timestamp;

/// A line without a terminal has at most this many columns.
const COLUMNS: usize = 160;
/// Narrower than this no table can be read; it is then as wide as this.
const FEWEST_COLUMNS: usize = 40;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    #[default]
    Table,
    /// The table with more columns.
    Wide,
    /// The document, indented.
    Json,
    /// One row of the list a line.
    Jsonl,
    /// Ids alone, one a line.
    Id,
}

#[derive(Clone, Debug)]
pub struct Output {
    pub form: Form,
    /// Relative times are relative to this.
    pub now: Timestamp,
    columns: usize,
    color: bool,
}

/// How a cell looks on a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    #[default]
    Plain,
    Bad,
    Good,
    Dim,
}

#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub fn toned(text: impl Into<String>, tone: Tone) -> Cell {
        Cell { text: text.into(), tone }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell { text, tone: Tone::Plain }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell::from(text.to_owned())
    }
}

impl From<&String> for Cell {
    fn from(text: &String) -> Cell {
        Cell::from(text.clone())
    }
}

impl Output {
    pub fn new(form: Form) -> Output {
        let terminal = std::io::stdout().is_terminal();
        let said = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse::<usize>().ok());
        let columns = said.or_else(|| terminal.then(terminal_columns).flatten()).unwrap_or(COLUMNS);
        let color = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Output { form, now: wall_clock(), columns: columns.max(FEWEST_COLUMNS), color }
    }

    pub fn is_json(&self) -> bool {
        matches!(self.form, Form::Json | Form::Jsonl)
    }

    /// Data, as it is.
    #[expect(clippy::unused_self, reason = "whoever prints has an output: that is how it stays in one file")]
    pub fn data(&self, text: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        if !text.is_empty() && !text.ends_with('\n') {
            out.write_all(b"\n")?;
        }
        out.flush()?;
        Ok(())
    }

    /// A whole document: indented for `json`, on one line for `jsonl`.
    pub fn document<T: Serialize>(&self, document: &T) -> Result<(), Failure> {
        let text = if self.form == Form::Jsonl {
            serde_json::to_string(document)
        } else {
            serde_json::to_string_pretty(document)
        };
        self.data(&text.expect("documents always serialise"))
    }

    /// The rows of a list: for `jsonl` one a line, for `json` the document around them.
    pub fn rows<T: Serialize, R: Serialize>(&self, document: &T, rows: &[R]) -> Result<(), Failure> {
        if self.form != Form::Jsonl {
            return self.document(document);
        }
        let mut text = String::new();
        for row in rows {
            text.push_str(&serde_json::to_string(row).expect("rows always serialise"));
            text.push('\n');
        }
        self.data(&text)
    }

    /// An empty screen, where there is a terminal.
    pub fn clear(&self) -> Result<(), Failure> {
        if std::io::stdout().is_terminal() { self.data("\u{1b}[2J\u{1b}[H\n") } else { Ok(()) }
    }

    /// Ids, one a line.
    pub fn ids<T: std::fmt::Display>(&self, ids: impl IntoIterator<Item = T>) -> Result<(), Failure> {
        let mut text = String::new();
        for id in ids {
            writeln!(text, "{id}").expect("a text takes every line");
        }
        self.data(&text)
    }

    /// A table that fits; nothing at all where it has no rows.
    pub fn table(&self, headers: &[&str], rows: &[Vec<Cell>]) -> Result<(), Failure> {
        if rows.is_empty() {
            return Ok(());
        }
        self.data(&render(headers, rows, self.columns, self.color))
    }

    /// Running text, wrapped at words.
    pub fn paragraph(&self, indent: usize, text: &str) -> Result<(), Failure> {
        self.data(&wrap(text, self.columns.min(100), indent))
    }

    /// One line, cut where the terminal ends.
    pub fn line(&self, text: &str) -> Result<(), Failure> {
        self.data(&cut(&flat(text), self.columns))
    }

    #[expect(clippy::unused_self, reason = "whoever prints has an output: that is how it stays in one file")]
    pub fn bar(&self, what: &str, total: u64) -> Bar {
        let bar = indicatif::ProgressBar::new(total);
        let form = format!("{{bar:40}} {{pos}} of {{len}} {what}, {{msg}} of the world's time");
        if let Ok(style) = indicatif::ProgressStyle::with_template(&form) {
            bar.set_style(style);
        }
        Bar { bar }
    }

    /// Talk: what is said beside the data.
    #[expect(clippy::unused_self, reason = "whoever prints has an output: that is how it stays in one file")]
    pub fn say(&self, text: &str) {
        say(text);
    }

    /// `3m ago`, `in 12s`.
    pub fn relative(&self, time: Timestamp) -> String {
        relative(time, self.now)
    }
}

/// How far a long work is, on stderr; without a terminal nothing is drawn.
pub struct Bar {
    bar: indicatif::ProgressBar,
}

impl Bar {
    pub fn at(&self, done: u64, message: &str) {
        self.bar.set_message(message.to_owned());
        self.bar.set_position(done);
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Talk on stderr; when nobody listens there is nobody to tell.
pub fn say(text: &str) {
    let mut err = std::io::stderr().lock();
    drop(
        err.write_all(text.as_bytes()).and_then(|()| if text.ends_with('\n') { Ok(()) } else { err.write_all(b"\n") }),
    );
}

/// The one line, or two, of a failure.
pub fn say_failure(failure: &Failure) {
    if failure.quiet {
        return;
    }
    match &failure.hint {
        Some(hint) => say(&format!("sagad: {}\n  {hint}", failure.message)),
        None => say(&format!("sagad: {}", failure.message)),
    }
}

fn terminal_columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0).then(|| usize::from(size.ws_col))
}

/// The two largest units, rounded down: nobody reads milliseconds in a table.
pub fn about(span: Span) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    let Some(at) = UNITS.iter().position(|(_, ms)| span.0 >= *ms) else { return "0s".to_owned() };
    let (unit, ms) = UNITS[at];
    let mut text = format!("{}{unit}", span.0 / ms);
    if let Some((unit, small)) = UNITS.get(at + 1)
        && span.0 % ms >= *small
        && span.0 / ms < 10
    {
        write!(text, "{}{unit}", span.0 % ms / small).expect("a text takes every line");
    }
    text
}

fn relative(time: Timestamp, now: Timestamp) -> String {
    if time > now { format!("in {}", about(time.since(now))) } else { format!("{} ago", about(now.since(time))) }
}

/// Control characters would break lines or speak to the terminal.
fn flat(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn width(text: &str) -> usize {
    text.chars().count()
}

fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(columns.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Two spaces between columns; the widest column gives way first, and what does not fit ends in `…`.
fn render(headers: &[&str], rows: &[Vec<Cell>], columns: usize, color: bool) -> String {
    const GAP: usize = 2;
    const NARROWEST: usize = 6;
    let mut widths: Vec<usize> = headers.iter().map(|header| width(header)).collect();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            widths[column] = widths[column].max(width(&cell.text));
        }
    }
    loop {
        let total: usize = widths.iter().sum::<usize>() + GAP * (widths.len() - 1);
        let widest = (0..widths.len()).max_by_key(|column| widths[*column]).expect("a table has columns");
        if total <= columns || widths[widest] <= NARROWEST {
            break;
        }
        widths[widest] = widths[widest].saturating_sub(total - columns).max(second(&widths, widest)).max(NARROWEST);
    }
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = (String, Tone)>| {
        let mut out = String::new();
        let mut used = 0;
        for (column, (cell, tone)) in cells.enumerate() {
            let shown = cut(&flat(&cell), widths[column]);
            let pad = widths[column] - width(&shown);
            // More columns than fit even at their narrowest: the line ends here.
            if used + width(&shown) > columns {
                break;
            }
            used += widths[column] + GAP;
            out.push_str(&paint(&shown, tone, color));
            out.extend(std::iter::repeat_n(' ', pad + GAP));
        }
        text.push_str(out.trim_end());
        text.push('\n');
    };
    line(&mut headers.iter().map(|header| ((*header).to_owned(), Tone::Dim)));
    for row in rows {
        line(&mut row.iter().map(|cell| (cell.text.clone(), cell.tone)));
    }
    text
}

/// The width of the widest column but this one, less one, so that the widest give way in turns.
fn second(widths: &[usize], widest: usize) -> usize {
    let others = widths.iter().enumerate().filter(|(column, _)| *column != widest).map(|(_, width)| *width);
    others.max().unwrap_or(0).min(widths[widest]).saturating_sub(1)
}

fn paint(text: &str, tone: Tone, color: bool) -> String {
    let code = match tone {
        Tone::Plain => return text.to_owned(),
        Tone::Bad => "31",
        Tone::Good => "32",
        Tone::Dim => "2",
    };
    if color && !text.is_empty() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

fn wrap(text: &str, columns: usize, indent: usize) -> String {
    let margin = " ".repeat(indent);
    let mut out = String::new();
    for paragraph in text.lines() {
        let mut line = margin.clone();
        for word in flat(paragraph).split_whitespace() {
            if width(&line) > indent && width(&line) + 1 + width(word) > columns {
                out.push_str(&line);
                out.push('\n');
                line.clone_from(&margin);
            }
            if width(&line) > indent {
                line.push(' ');
            }
            line.push_str(word);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widest(text: &str) -> usize {
        text.lines().map(width).max().unwrap_or(0)
    }

    #[test]
    fn a_table_fits_and_the_widest_column_gives_way() {
        let rows = vec![
            vec![Cell::from("0192f1c2-aaaa-7bbb-8ccc-0123456789ab"), "join-group".into(), "x".repeat(200).into()],
            vec![Cell::from("short"), "allocate-cell".into(), "y".into()],
        ];
        for columns in [40, 80, 160] {
            let text = render(&["id", "saga", "error"], &rows, columns, false);
            assert!(widest(&text) <= columns, "{columns}\n{text}");
            assert!(columns == 40 || text.contains("allocate-cell"), "{text}");
        }
        assert!(render(&["id", "saga", "error"], &rows, 160, false).contains("0192f1c2-aaaa-7bbb-8ccc-0123456789ab"));
    }

    #[test]
    fn many_columns_end_where_the_terminal_ends() {
        let headers = ["abcdefgh"; 12];
        let rows = vec![headers.iter().map(|header| Cell::from(*header)).collect()];
        assert!(widest(&render(&headers, &rows, 40, false)) <= 40);
    }

    #[test]
    fn nothing_in_a_cell_speaks_to_the_terminal() {
        let rows = vec![vec![Cell::from("a\u{1b}[2Jb\nc")]];
        let text = render(&["x"], &rows, 80, false);
        assert_eq!(text, "x\na [2Jb c\n");
    }

    #[test]
    fn times_are_told_as_a_person_would() {
        let now = Timestamp(1_000_000_000);
        let told = |ms: i64| relative(Timestamp(now.0 + ms), now);
        assert_eq!(told(-200), "0s ago");
        assert_eq!(told(-61_000), "1m1s ago");
        assert_eq!(told(-3_600_000 * 30), "1d6h ago");
        assert_eq!(told(-86_400_000 * 12 - 5_000_000), "12d ago");
        assert_eq!(told(90_000), "in 1m30s");
    }

    #[test]
    fn text_is_wrapped_at_words() {
        assert_eq!(wrap("one two three", 9, 2), "  one two\n  three\n");
    }
}
