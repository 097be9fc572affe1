//! JSON inside stored forms, read back to the letter.
//!
//! `serde_json` reads a [`Value`] with two surprises: it respells exponents (`1E5` becomes `1e+5`), and it takes the
//! field `$serde_json::private::Number` for a number, so that an object out of a message would come back as another
//! value, or not at all. What is stored and holds JSON is therefore read through [`json::parse`]:
//! `#[serde(deserialize_with = "exact::value")]`. Writing needs nothing. No limits here: they held when it came in.

use indexmap::IndexMap;
use serde::de::{Deserialize, Deserializer, Error};
use serde_json::Map;
use serde_json::value::RawValue;

use super::json::{self, Limits, Value};

/// A value that is read to the letter.
struct Exact(Value);

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        json::parse(raw.get().as_bytes(), &Limits::STORED).map(Exact).map_err(Error::custom)
    }
}

/// For a `Value`.
pub fn value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Exact::deserialize(deserializer).map(|exact| exact.0)
}

/// For an `Option<Value>` that is left out where it is none (`default`, `skip_serializing_if`): null is a value.
pub fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    value(deserializer).map(Some)
}

/// For a `Map<String, Value>`.
pub fn fields<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    let fields = IndexMap::<String, Exact>::deserialize(deserializer)?;
    Ok(fields.into_iter().map(|(name, exact)| (name, exact.0)).collect())
}

/// For a list of values with something else beside each.
pub fn pairs<'de, D: Deserializer<'de>, A: Deserialize<'de>>(deserializer: D) -> Result<Vec<(A, Value)>, D::Error> {
    let pairs = Vec::<(A, Exact)>::deserialize(deserializer)?;
    Ok(pairs.into_iter().map(|(beside, exact)| (beside, exact.0)).collect())
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    enum Stored {
        Kept {
            #[serde(deserialize_with = "value")]
            value: Value,
            #[serde(default, deserialize_with = "optional")]
            optional: Option<Value>,
            #[serde(default, deserialize_with = "fields")]
            fields: Map<String, Value>,
            #[serde(default, deserialize_with = "pairs")]
            pairs: Vec<(u32, Value)>,
        },
    }

    #[test]
    fn what_is_stored_comes_back_to_the_letter() {
        let odd =
            r#"{"a":1E5,"$serde_json::private::Number":"x","b":{"$serde_json::private::RawValue":"[1]"},"c":-0.0}"#;
        let text =
            format!(r#"{{"Kept":{{"value":{odd},"optional":{odd},"fields":{odd},"pairs":[[1,{odd}],[2,null]]}}}}"#);
        let stored: Stored = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&stored).unwrap(), text);
    }

    #[test]
    fn what_was_left_out_is_not_there() {
        let stored: Stored = serde_json::from_str(r#"{"Kept":{"value":null}}"#).unwrap();
        let expected = Stored::Kept { value: Value::Null, optional: None, fields: Map::new(), pairs: Vec::new() };
        assert_eq!(stored, expected);
        let null: Stored = serde_json::from_str(r#"{"Kept":{"value":1,"optional":null}}"#).unwrap();
        assert!(matches!(null, Stored::Kept { optional: Some(Value::Null), .. }));
        assert!(serde_json::from_str::<Stored>(r#"{"Kept":{}}"#).is_err());
    }
}
