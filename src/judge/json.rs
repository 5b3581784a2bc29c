//! JSON that means one thing: an object with a repeated member name is refused at any depth.
//!
//! RFC 8259 §4 leaves repeated names to the reader, so two readers may see two different tokens. We
//! and whoever else looks at the same bytes must agree (RFC 7515 §4, RFC 7519 §4: names must be
//! unique).

use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Why a text was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonFault {
    /// Not one JSON object in UTF-8, too deep, or followed by more.
    Malformed,
    /// A member name occurs twice in one object.
    Repeated,
}

/// Reads exactly one JSON object. Depth is bounded by the parser (128), size by the caller.
///
/// # Errors
/// See [`JsonFault`].
pub fn object(text: &[u8]) -> Result<Map<String, Value>, JsonFault> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Strict.deserialize(&mut reader).map_err(|error| {
        // The message of our own visitor; serde_json appends the position.
        if error.to_string().starts_with(REPEATED) {
            JsonFault::Repeated
        } else {
            JsonFault::Malformed
        }
    })?;
    reader.end().map_err(|_| JsonFault::Malformed)?;
    match value {
        Value::Object(map) => Ok(map),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(JsonFault::Malformed)
        }
    }
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: de::Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            // Compared after unescaping: "e\u0078p" is "exp".
            let value = members.next_value_seed(Self)?;
            if map.insert(name, value).is_some() {
                return Err(de::Error::custom(REPEATED));
            }
        }
        Ok(Value::Object(map))
    }
}

const REPEATED: &str = "repeated member name";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_object_without_repeated_names() {
        for (text, wanted) in [
            (r#"{"a":1,"b":{"a":[{"a":null}]}}"#, None),
            (r#"{"a":1,"a":1}"#, Some(JsonFault::Repeated)),
            (r#"{"a":1,"\u0061":1}"#, Some(JsonFault::Repeated)),
            (r#"{"x":[{"y":{"a":1,"b":2,"a":3}}]}"#, Some(JsonFault::Repeated)),
            (r#"{"repeated member name":}"#, Some(JsonFault::Malformed)),
            (r#"{"a":1} x"#, Some(JsonFault::Malformed)),
            (r#"{"a":1}{}"#, Some(JsonFault::Malformed)),
            (r#"{"a":1,}"#, Some(JsonFault::Malformed)),
            (r#"{"a":1e999}"#, Some(JsonFault::Malformed)),
            (r#"[{}]"#, Some(JsonFault::Malformed)),
            ("null", Some(JsonFault::Malformed)),
            ("", Some(JsonFault::Malformed)),
            ("\u{feff}{}", Some(JsonFault::Malformed)),
        ] {
            assert_eq!(object(text.as_bytes()).err(), wanted, "{text}");
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}").err(), Some(JsonFault::Malformed));
    }

    #[test]
    fn depth_is_an_error_not_a_crash() {
        let text = format!("{{\"a\":{}", "[".repeat(200_000));
        assert_eq!(object(text.as_bytes()).err(), Some(JsonFault::Malformed));
    }
}
