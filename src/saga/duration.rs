//! Durations as a saga's author writes them: `250ms`, `30s`, `15m`, `1h30m`, `14d`.
//!
//! There is one spelling; anything else is refused with the right one as a hint. No clock is read here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Unit and its milliseconds, larger ones first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

const EXAMPLES: &str = "write a whole number and a unit (ms, s, m, h, d), for example 30s, 15m, 1h30m or 14d";

/// A length of time, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub u64);

/// Why a text is no duration, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {hint}")]
pub struct SpanError {
    pub message: String,
    pub hint: String,
}

impl Span {
    pub const ZERO: Self = Self(0);

    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000))
    }

    pub fn parse(text: &str) -> Result<Self, SpanError> {
        strict(text).ok_or_else(|| SpanError { message: format!("'{text}' is not a duration"), hint: hint(text) })
    }

    pub const fn as_ms(self) -> u64 {
        self.0
    }

    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The span times `factor`; never less than nothing, never more than a span can hold.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast from float saturates, takes NaN for 0, and a factor has no more precision than that"
    )]
    pub fn saturating_mul_f64(self, factor: f64) -> Self {
        Self((self.0 as f64 * factor) as u64)
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        Self::parse(text)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (unit, ms) in UNITS {
            if rest >= ms {
                write!(f, "{}{unit}", rest / ms)?;
                rest %= ms;
            }
        }
        Ok(())
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The language's spelling and no other.
fn strict(text: &str) -> Option<Span> {
    let mut rest = text;
    let mut units = &UNITS[..];
    let mut total: u64 = 0;
    loop {
        let (number, after) = split_while(rest, |c| c.is_ascii_digit());
        let (name, after) = split_while(after, |c| c.is_ascii_lowercase());
        let found = units.iter().position(|(unit, _)| *unit == name)?;
        let amount: u64 = number.parse().ok()?;
        total = total.checked_add(amount.checked_mul(units[found].1)?)?;
        units = &units[found + 1..];
        rest = after;
        if rest.is_empty() {
            return Some(Span(total));
        }
    }
}

/// The right spelling of what was probably meant.
fn hint(text: &str) -> String {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return format!("write {text}s or {text}ms");
    }
    if let Some(spellings) = clock_like(text) {
        return spellings;
    }
    loose(text).map_or_else(|| EXAMPLES.to_owned(), |spelling| format!("write {spelling}"))
}

/// `1:30`, `01:30:00`.
fn clock_like(text: &str) -> Option<String> {
    let parts: Vec<u64> = text.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let spelled = |amounts: &[u64], units: &[&str]| -> String {
        let parts = amounts.iter().zip(units).filter(|(amount, _)| **amount > 0);
        parts.flat_map(|(amount, unit)| [amount.to_string(), (*unit).to_owned()]).collect()
    };
    if parts.iter().all(|part| *part == 0) {
        return None;
    }
    match parts.len() {
        2 => Some(format!("write {} or {}", spelled(&parts, &["h", "m"]), spelled(&parts, &["m", "s"]))),
        3 => Some(format!("write {}", spelled(&parts, &["h", "m", "s"]))),
        _ => None,
    }
}

/// Reads numbers with units as people and other programs write them: words, capitals, spaces, fractions, ISO 8601.
fn loose(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let mut rest = lower.strip_prefix('p').unwrap_or(&lower);
    let mut spelling = String::new();
    let mut total: u64 = 0;
    let mut plain = true;
    let mut last_ms = u64::MAX;
    loop {
        rest = rest.trim_start_matches([' ', ',', '_', 't']);
        rest = rest.strip_prefix("and ").unwrap_or(rest).trim_start();
        if rest.is_empty() {
            break;
        }
        let (number, after) = split_while(rest, |c| c.is_ascii_digit() || c == '.');
        let (name, after) = split_while(after.trim_start(), char::is_alphabetic);
        // `pt30m` and the like: the `t` before the next number belongs to the next part.
        let name = if name.len() > 1 && lower.starts_with('p') { name.trim_end_matches('t') } else { name };
        let (unit, times) = unit_of(name)?;
        let unit_ms = UNITS.iter().find(|(known, _)| *known == unit)?.1;
        let amount: f64 = number.parse().ok()?;
        total = total.checked_add(Span(unit_ms.checked_mul(times)?).saturating_mul_f64(amount).0)?;
        plain &= number.bytes().all(|byte| byte.is_ascii_digit()) && times == 1 && unit_ms < last_ms;
        last_ms = unit_ms;
        spelling.push_str(number);
        spelling.push_str(unit);
        rest = after;
    }
    if spelling.is_empty() || strict(&spelling).is_none() && plain {
        return None;
    }
    let spelling = if plain { spelling } else { Span(total).to_string() };
    // A text that would be refused again is no help.
    strict(&spelling).map(|_| spelling)
}

/// The language's unit for a word, and how many of it the word stands for.
fn unit_of(word: &str) -> Option<(&'static str, u64)> {
    Some(match word {
        "ms" | "msec" | "msecs" | "milli" | "millis" | "millisecond" | "milliseconds" => ("ms", 1),
        "s" | "sec" | "secs" | "second" | "seconds" => ("s", 1),
        "m" | "min" | "mins" | "minute" | "minutes" => ("m", 1),
        "h" | "hr" | "hrs" | "hour" | "hours" => ("h", 1),
        "d" | "day" | "days" => ("d", 1),
        "w" | "week" | "weeks" => ("d", 7),
        _ => return None,
    })
}

fn split_while(text: &str, keep: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !keep(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_language_has_one_spelling() {
        for (text, ms) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("15m", 900_000),
            ("1h30m", 5_400_000),
            ("14d", 1_209_600_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("90m", 5_400_000),
            ("1m500ms", 60_500),
            ("0s", 0),
        ] {
            assert_eq!(Span::parse(text), Ok(Span(ms)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_right_spelling() {
        for (text, hint) in [
            ("30", "write 30s or 30ms"),
            ("1:30", "write 1h30m or 1m30s"),
            ("01:30:00", "write 1h30m"),
            ("PT30S", "write 30s"),
            ("PT1H30M", "write 1h30m"),
            ("P1DT12H", "write 1d12h"),
            ("P14D", "write 14d"),
            ("2 hours", "write 2h"),
            ("1h 30m", "write 1h30m"),
            ("1 hour and 30 minutes", "write 1h30m"),
            ("90 min", "write 90m"),
            ("30S", "write 30s"),
            ("1.5h", "write 1h30m"),
            ("30m1h", "write 1h30m"),
            ("1h1h", "write 2h"),
            ("2w", "write 14d"),
            (" 30s", "write 30s"),
            ("", EXAMPLES),
            ("soon", EXAMPLES),
            ("-5m", EXAMPLES),
            ("30us", EXAMPLES),
            ("s", EXAMPLES),
            ("99999999999999999999d", EXAMPLES),
            ("٣s", EXAMPLES),
        ] {
            let error = Span::parse(text).expect_err(text);
            assert_eq!(error.hint, hint, "{text}");
            assert_eq!(error.message, format!("'{text}' is not a duration"));
        }
    }

    #[test]
    fn it_is_stored_as_it_is_written() {
        assert_eq!(serde_json::to_string(&Span(5_400_000)).unwrap(), "\"1h30m\"");
        assert_eq!(serde_json::from_str::<Span>("\"14d\"").unwrap(), Span(1_209_600_000));
        assert!(serde_json::from_str::<Span>("\"30\"").is_err());
        assert_eq!(Span::ZERO.to_string(), "0s");
    }

    #[test]
    fn a_product_stays_within_what_a_span_can_hold() {
        assert_eq!(Span::from_secs(1).saturating_mul_f64(2.5), Span(2_500));
        assert_eq!(Span(u64::MAX).saturating_mul_f64(2.0), Span(u64::MAX));
        assert_eq!(Span(5).saturating_mul_f64(-1.0), Span(0));
        assert_eq!(Span(5).saturating_mul_f64(f64::NAN), Span(0));
    }

    proptest! {
        #[test]
        fn every_span_is_read_back_from_its_text(ms in any::<u64>()) {
            prop_assert_eq!(Span::parse(&Span(ms).to_string()), Ok(Span(ms)));
        }

        #[test]
        fn any_text_is_read_or_refused_with_a_hint(text in "[0-9smhdPT:. ]{0,8}|\\PC{0,8}") {
            if let Err(error) = Span::parse(&text) {
                prop_assert!(!error.hint.is_empty());
            }
        }

        #[test]
        fn a_hint_with_one_spelling_can_be_followed(text in "[0-9smhdPTw:. ]{0,8}") {
            if let Err(error) = Span::parse(&text)
                && error.hint != EXAMPLES
            {
                for spelling in error.hint.trim_start_matches("write ").split(" or ") {
                    // Digits alone may be more than a span can hold; every other hint was tried before it was given.
                    prop_assert!(Span::parse(spelling).is_ok(), "{} -> {}", text, error.hint);
                }
            }
        }
    }
}
