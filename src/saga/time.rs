//! Points in time: milliseconds since 1970, written as RFC 3339 UTC.
//!
//! No clock is read here: the time is an argument everywhere in the core.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::duration::Span;

/// 0000-01-01T00:00:00Z and 9999-12-31T23:59:59.999Z: what RFC 3339 can write.
const FIRST_MS: i64 = -62_167_219_200_000;
const LAST_MS: i64 = 253_402_300_799_999;

/// A point in time, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

/// A text that is not a time by RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a time; write it as 2030-01-31T12:00:00Z")]
pub struct TimeError {
    pub text: String,
}

impl Timestamp {
    pub const fn as_ms(self) -> i64 {
        self.0
    }

    /// Reads RFC 3339 with any offset; what is finer than a millisecond is cut off.
    pub fn parse(text: &str) -> Result<Self, TimeError> {
        let error = || TimeError { text: text.to_owned() };
        let normal = normalised(text).ok_or_else(error)?;
        let time: jiff::Timestamp = normal.parse().map_err(|_| error())?;
        let ms = i64::try_from(time.as_nanosecond().div_euclid(1_000_000)).map_err(|_| error())?;
        Some(Self(ms)).filter(|time| time.is_writable()).ok_or_else(error)
    }

    /// Whether RFC 3339 can write it: the years 0 to 9999.
    pub const fn is_writable(self) -> bool {
        FIRST_MS <= self.0 && self.0 <= LAST_MS
    }

    #[must_use]
    pub fn plus(self, span: Span) -> Self {
        Self(self.0.saturating_add_unsigned(span.0))
    }

    #[must_use]
    pub fn minus(self, span: Span) -> Self {
        Self(self.0.saturating_sub_unsigned(span.0))
    }

    /// How long ago `other` was; nothing if it is yet to come.
    pub fn since(self, other: Self) -> Span {
        Span(if self > other { self.0.abs_diff(other.0) } else { 0 })
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.clamp(FIRST_MS, LAST_MS);
        let time = jiff::Timestamp::from_millisecond(ms).expect("jiff knows the years 0 to 9999");
        if ms % 1_000 == 0 { write!(f, "{time:.0}") } else { write!(f, "{time:.3}") }
    }
}

impl std::str::FromStr for Timestamp {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        Self::parse(text)
    }
}

/// The text in capitals and with at most nine digits of fraction, if it has the shape of RFC 3339. jiff reads more
/// than that (no seconds, no hyphens, `[Europe/Vienna]`), and no more than nine digits.
fn normalised(text: &str) -> Option<String> {
    const SHAPE: &[u8] = b"dddd-dd-ddTdd:dd:dd";
    // A time has at most as many bytes as this, and a fraction that long helps nobody.
    if !text.is_ascii() || text.len() < SHAPE.len() + 1 || text.len() > 64 {
        return None;
    }
    let upper = text.to_ascii_uppercase();
    let (front, rest) = upper.split_at(SHAPE.len());
    let fits = front.bytes().zip(SHAPE).all(|(byte, shape)| match shape {
        b'd' => byte.is_ascii_digit(),
        b'T' => byte == b'T' || byte == b' ',
        other => byte == *other,
    });
    let (fraction, offset) = match rest.strip_prefix('.') {
        Some(after) => after.split_at(after.find(|c: char| !c.is_ascii_digit())?),
        None => ("", rest),
    };
    let offset_bytes = offset.as_bytes();
    let zulu = offset == "Z";
    let numeric = offset_bytes.len() == 6
        && matches!(offset_bytes[0], b'+' | b'-')
        && offset_bytes[3] == b':'
        && [1, 2, 4, 5].iter().all(|at| offset_bytes[*at].is_ascii_digit());
    if !fits || !(zulu || numeric) || (rest.starts_with('.') && fraction.is_empty()) {
        return None;
    }
    let fraction = &fraction[..fraction.len().min(9)];
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{}{point}{fraction}{offset}", front.replace(' ', "T")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_is_written_as_rfc_3339_in_utc() {
        for (ms, text) in [
            (1_893_456_000_000, "2030-01-01T00:00:00Z"),
            (1_893_456_000_123, "2030-01-01T00:00:00.123Z"),
            (1_893_456_000_120, "2030-01-01T00:00:00.120Z"),
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (FIRST_MS, "0000-01-01T00:00:00Z"),
            (LAST_MS, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp(ms).to_string(), text);
            assert_eq!(Timestamp::parse(text), Ok(Timestamp(ms)));
        }
        assert_eq!(Timestamp(i64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(Timestamp(i64::MIN).to_string(), "0000-01-01T00:00:00Z");
    }

    #[test]
    fn any_offset_is_read() {
        for text in [
            "2030-01-01T01:00:00+01:00",
            "2029-12-31T19:00:00-05:00",
            "2030-01-01t00:00:00z",
            "2030-01-01 00:00:00Z",
            "2030-01-01T00:00:00.0009999999999Z",
            "2030-01-01T00:00:00-00:00",
        ] {
            assert_eq!(Timestamp::parse(text), Ok(Timestamp(1_893_456_000_000)), "{text}");
        }
    }

    #[test]
    fn what_is_not_rfc_3339_is_refused() {
        for text in [
            "",
            "2030-01-01",
            "2030-01-01T00:00Z",
            "2030-01-01T00:00:00",
            "2030-01-01T00:00:00.Z",
            "2030-13-01T00:00:00Z",
            "2030-02-30T00:00:00Z",
            "2030-01-01T25:00:00Z",
            "20300101T000000Z",
            "2030-01-01T00:00:00+0100",
            "2030-01-01T00:00:00Z[UTC]",
            "0000-01-01T00:00:00+01:00",
            "1893456000",
            "tomorrow",
        ] {
            assert!(Timestamp::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp(5).plus(Span(3)), Timestamp(8));
        assert_eq!(Timestamp(5).minus(Span(8)), Timestamp(-3));
        assert_eq!(Timestamp(5).plus(Span(u64::MAX)), Timestamp(i64::MAX));
        assert_eq!(Timestamp(5).minus(Span(u64::MAX)), Timestamp(i64::MIN));
        assert_eq!(Timestamp(8).since(Timestamp(5)), Span(3));
        assert_eq!(Timestamp(5).since(Timestamp(8)), Span(0));
        assert_eq!(Timestamp(i64::MAX).since(Timestamp(i64::MIN)), Span(u64::MAX));
    }

    proptest! {
        #[test]
        fn every_time_is_read_back_from_its_text(ms in FIRST_MS..=LAST_MS) {
            prop_assert_eq!(Timestamp::parse(&Timestamp(ms).to_string()), Ok(Timestamp(ms)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9TZ:.+\\- ]{0,32}|\\PC{0,32}") {
            drop(Timestamp::parse(&text));
        }
    }
}
