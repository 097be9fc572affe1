//! Points in time: milliseconds since 1970, written as RFC 3339 UTC.
//!
//! No clock is read here: the time is an argument everywhere in the core.

use std::fmt;

use jiff::SignedDuration;
use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};

use super::duration::Span;

/// 0000-01-01T00:00:00Z and 9999-12-31T23:59:59.999Z: what RFC 3339 can write.
const FIRST_MS: i64 = -62_167_219_200_000;
const LAST_MS: i64 = 253_402_300_799_999;

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

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
        read(text).filter(|time| time.is_writable()).ok_or_else(|| TimeError { text: text.to_owned() })
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
        let time = EPOCH + SignedDuration::from_millis(ms);
        if ms % 1_000 == 0 { write!(f, "{time:.0}Z") } else { write!(f, "{time:.3}Z") }
    }
}

impl std::str::FromStr for Timestamp {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        Self::parse(text)
    }
}

/// Reads what has the shape of RFC 3339. jiff alone reads more than that (no seconds, no hyphens,
/// `[Europe/Vienna]`), and as points in time not the last day of the year 9999.
fn read(text: &str) -> Option<Timestamp> {
    const SHAPE: &[u8] = b"dddd-dd-ddTdd:dd:dd";
    if !text.is_ascii() || text.len() <= SHAPE.len() {
        return None;
    }
    let (front, rest) = text.split_at(SHAPE.len());
    let fits = front.bytes().zip(SHAPE).all(|(byte, shape)| match shape {
        b'd' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b't' | b' '),
        other => byte == *other,
    });
    if !fits {
        return None;
    }
    let time: DateTime = format!("{}T{}", &front[..10], &front[11..]).parse().ok()?;
    let (fraction, offset) = match rest.strip_prefix('.') {
        Some(after) => after.split_at(after.find(|c: char| !c.is_ascii_digit())?),
        None => ("0", rest),
    };
    let mut ms = i64::try_from(time.duration_since(EPOCH).as_millis()).ok()?;
    // Three digits of the fraction, filled up with zeros; the rest is finer than a millisecond.
    let thousandths: String = fraction.chars().chain("00".chars()).take(3).collect();
    ms += if fraction.is_empty() { return None } else { thousandths.parse::<i64>().ok()? };
    Some(Timestamp(ms - offset_ms(offset)?))
}

/// `Z`, `+01:00`, `-05:30`.
fn offset_ms(text: &str) -> Option<i64> {
    if text.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = match text.as_bytes() {
        [b'+', _, _, b':', _, _] => 1,
        [b'-', _, _, b':', _, _] => -1,
        _ => return None,
    };
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<i64>().ok()).flatten();
    let (hours, minutes) = (number(&text[1..3])?, number(&text[4..6])?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60_000)
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
            "2030-01-01T23:59:00+23:59",
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
            "2030-01-01T00:00:00+24:00",
            "2030-01-01T00:00:00++1:00",
            "2030-01-01X00:00:00Z",
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
