//! Numbers as they are written: exact comparison of decimal texts of any length.
//!
//! JSON bounds neither the size nor the precision of a number, and a number that is only copied keeps its digits.
//! What compares or groups numbers therefore works on the digits. No arithmetic here, and no rounding.

use std::cmp::Ordering;

/// Exponents are read up to this; beyond it two numbers differ in nothing that anyone could measure.
const EXPONENT_LIMIT: i64 = i64::MAX / 4;

/// `digits × 10^exponent`, in the one form that equal numbers share: no zero at either end of `digits`, which is
/// empty for zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    /// Reads the text of a JSON number.
    pub fn read(text: &str) -> Self {
        let (mantissa, exponent) = match text.find(['e', 'E']) {
            Some(at) => (&text[..at], read_exponent(&text[at + 1..])),
            None => (text, 0),
        };
        let fraction_digits = mantissa.find('.').map_or(0, |at| mantissa.len() - at - 1);
        let all: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        let significant = all.trim_end_matches('0');
        let dropped = all.len() - significant.len();
        let digits = significant.trim_start_matches('0').to_owned();
        if digits.is_empty() {
            return Self { negative: false, digits, exponent: 0 };
        }
        let exponent = exponent + length(dropped) - length(fraction_digits);
        Self { negative: mantissa.starts_with('-'), digits, exponent }
    }

    /// Whether there is nothing behind the decimal point.
    pub fn is_integer(&self) -> bool {
        self.exponent >= 0
    }

    /// The number as an integer of 64 bits, if it is one.
    pub fn as_i64(&self) -> Option<i64> {
        // An i64 has at most 19 digits and a sign.
        self.plain(20)?.parse().ok()
    }

    /// An integer in plain digits, if it is one of at most `max` characters.
    pub fn plain(&self, max: usize) -> Option<String> {
        if !self.is_integer() {
            return None;
        }
        if self.digits.is_empty() {
            return Some("0".to_owned());
        }
        let zeros = usize::try_from(self.exponent).ok()?;
        let total = zeros.checked_add(self.digits.len())?.checked_add(usize::from(self.negative))?;
        if total > max {
            return None;
        }
        Some(format!("{}{}{}", if self.negative { "-" } else { "" }, self.digits, "0".repeat(zeros)))
    }

    /// The text that all spellings of this number share.
    pub fn canonical(&self) -> String {
        let sign = if self.negative { "-" } else { "" };
        match (self.digits.as_str(), self.exponent) {
            ("", _) => "0".to_owned(),
            (digits, 0) => format!("{sign}{digits}"),
            (digits, exponent) => format!("{sign}{digits}e{exponent}"),
        }
    }

    fn compare_magnitude(&self, other: &Self) -> Ordering {
        match (self.digits.is_empty(), other.digits.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => {
                let place = |number: &Self| length(number.digits.len()) + number.exponent;
                place(self).cmp(&place(other)).then_with(|| self.digits.cmp(&other.digits))
            }
        }
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self.compare_magnitude(other),
            (true, true) => other.compare_magnitude(self),
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Compares two texts of JSON numbers by value.
pub fn compare(left: &str, right: &str) -> Ordering {
    if left == right {
        return Ordering::Equal;
    }
    match (left.parse::<i64>(), right.parse::<i64>()) {
        (Ok(left), Ok(right)) => left.cmp(&right),
        _ => Decimal::read(left).cmp(&Decimal::read(right)),
    }
}

fn read_exponent(text: &str) -> i64 {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let size = digits.parse::<i64>().unwrap_or(EXPONENT_LIMIT).min(EXPONENT_LIMIT);
    if negative { -size } else { size }
}

fn length(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(EXPONENT_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_number_are_equal_and_share_their_canonical_text() {
        for spellings in [
            &["1", "1.0", "1e0", "10E-1", "0.1e+1", "1.000"][..],
            &["0", "-0", "0.0", "-0.0e7", "0e999"],
            &["-1500", "-1.5e3", "-15E2", "-1500.00"],
            &["1e400", "10e399", "0.1E401"],
            &["0.001", "1e-3", "0.00100"],
        ] {
            for left in spellings {
                for right in spellings {
                    assert_eq!(compare(left, right), Ordering::Equal, "{left} {right}");
                    assert_eq!(Decimal::read(left).canonical(), Decimal::read(right).canonical(), "{left} {right}");
                }
            }
        }
    }

    #[test]
    fn numbers_are_ordered_by_value_whatever_their_length() {
        let ascending = [
            "-1e400",
            "-123456789012345678901234567890",
            "-9.5",
            "-9",
            "-0.1",
            "0",
            "1e-400",
            "0.1",
            "0.10000000000000000000000000000001",
            "0.9",
            "1",
            "1.5",
            "9",
            "10",
            "9007199254740992",
            "9007199254740993",
            "123456789012345678901234567890",
            "123456789012345678901234567891",
            "1E400",
            "1e99999999999999999999",
        ];
        for (i, left) in ascending.iter().enumerate() {
            for (j, right) in ascending.iter().enumerate() {
                assert_eq!(compare(left, right), i.cmp(&j), "{left} {right}");
            }
        }
    }

    #[test]
    fn an_integer_is_written_out_as_long_as_it_has_room() {
        assert_eq!(Decimal::read("1e5").plain(10).as_deref(), Some("100000"));
        assert_eq!(Decimal::read("-1.20e2").plain(10).as_deref(), Some("-120"));
        assert_eq!(Decimal::read("1.5").plain(10), None);
        assert_eq!(Decimal::read("1e99").plain(99), None);
        assert_eq!(Decimal::read("-0.0").plain(1).as_deref(), Some("0"));
        assert_eq!(Decimal::read("-9223372036854775808").as_i64(), Some(i64::MIN));
        assert_eq!(Decimal::read("9223372036854775808").as_i64(), None);
        assert_eq!(Decimal::read("9223372036854775807.0").as_i64(), Some(i64::MAX));
    }
}
