//! The functions of the language.

/// Whether there is a function or macro of that name.
pub(super) fn is_name(name: &str) -> bool {
    ["size"].contains(&name)
}

pub(super) fn usage(name: &str) -> String {
    format!("{name}(…)")
}
