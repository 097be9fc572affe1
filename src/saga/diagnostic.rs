//! What a person wrote wrongly: severity, code, place, message, hint.

use super::machine::Place;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
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
