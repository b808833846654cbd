//! Fingerprints: BLAKE3 of everything that can change the result of a unit.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::error::CoreError;

/// A BLAKE3 hash of 32 bytes; as text and in serde, 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The first 12 hexadecimal digits, for human-readable names.
    pub fn short(&self) -> String {
        let mut hex = self.to_string();
        hex.truncate(12);
        hex
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = CoreError;

    /// Reads 64 hexadecimal digits of either case.
    fn from_str(text: &str) -> Result<Self, CoreError> {
        blake3::Hash::from_hex(text)
            .map(|hash| Fingerprint(*hash.as_bytes()))
            .map_err(|_| CoreError::Fingerprint {
                text: text.to_string(),
            })
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = CoreError;

    fn try_from(text: String) -> Result<Self, CoreError> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> String {
        fingerprint.to_string()
    }
}

/// Longest value that [`FingerprintBuilder::inputs`] keeps unabridged, in bytes.
const SHOWN: usize = 200;

/// Collects named values into a [`Fingerprint`].
///
/// Every name and value is hashed after its length and a tag for its kind, so different sequences of calls never produce the
/// same byte stream. The order of the calls matters.
///
/// ```
/// use clipood_core::FingerprintBuilder;
/// let make = |scale: f64| FingerprintBuilder::new("demo").field("scale", &scale).bytes("pixels", &[1, 2]).finish();
/// assert_eq!(make(0.5), make(0.5));
/// assert_ne!(make(0.5), make(0.25));
/// ```
#[derive(Debug)]
pub struct FingerprintBuilder {
    hasher: blake3::Hasher,
    inputs: BTreeMap<String, String>,
    /// The error of the first value without a JSON form; reported by `finish`, so that calls can be chained.
    error: Option<CoreError>,
}

impl FingerprintBuilder {
    /// Starts a fingerprint of one kind of thing, such as `"features"`; two domains never share a fingerprint.
    pub fn new(domain: &str) -> Self {
        let mut builder = FingerprintBuilder {
            hasher: blake3::Hasher::new(),
            inputs: BTreeMap::new(),
            error: None,
        };
        builder.push(b'd', domain, &[]);
        builder
    }

    /// Adds every field of a struct by [`FingerprintBuilder::field`], in the order of their declaration. A field that is added
    /// to the struct enters the fingerprint by itself; one that must not is marked `#[serde(skip)]`.
    pub fn fields(mut self, spec: &impl Serialize) -> Self {
        match ordered_fields(spec) {
            Ok(fields) => {
                for (name, value) in fields {
                    self = self.field(&name, &value);
                }
            }
            Err(error) => {
                self.error.get_or_insert(error);
            }
        }
        self
    }

    /// Adds a value in its canonical JSON form: no spaces, keys sorted bytewise, floats in the shortest form that reads back
    /// equal. A float that is not finite becomes `null`.
    pub fn field(mut self, name: &str, value: &(impl Serialize + ?Sized)) -> Self {
        match canonical_json(value) {
            Ok(json) => {
                self.push(b'j', name, json.as_bytes());
                let kept = match json.len() {
                    ..=SHOWN => json,
                    _ => digest(json.as_bytes()),
                };
                self.inputs.insert(name.to_string(), kept);
            }
            Err(error) => {
                self.error.get_or_insert(CoreError::NotJson {
                    name: name.to_string(),
                    message: error.to_string(),
                });
            }
        }
        self
    }

    /// Adds raw bytes.
    pub fn bytes(mut self, name: &str, bytes: &[u8]) -> Self {
        self.push(b'b', name, bytes);
        self.inputs.insert(name.to_string(), digest(bytes));
        self
    }

    /// The values added so far by name, to explain why two fingerprints differ: a short value as JSON, a long one as its size
    /// and the first digits of its BLAKE3.
    pub fn inputs(&self) -> &BTreeMap<String, String> {
        &self.inputs
    }

    /// The fingerprint of all values added.
    ///
    /// # Errors
    /// [`CoreError::NotJson`] for the first field without a JSON form, such as a map whose keys are not strings.
    pub fn finish(self) -> Result<Fingerprint, CoreError> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(Fingerprint(*self.hasher.finalize().as_bytes())),
        }
    }

    fn push(&mut self, tag: u8, name: &str, value: &[u8]) {
        self.hasher.update(&[tag]);
        for part in [name.as_bytes(), value] {
            self.hasher.update(&(part.len() as u64).to_le_bytes());
            self.hasher.update(part);
        }
    }
}

/// The serialised fields of a struct, in the order of their declaration.
fn ordered_fields(spec: &impl Serialize) -> Result<Vec<(String, Value)>, CoreError> {
    let not_json = |message: String| CoreError::NotJson {
        name: std::any::type_name_of_val(spec).to_string(),
        message,
    };
    // The text keeps the order, the value keeps every bit of a number.
    let text = serde_json::to_string(spec).map_err(|e| not_json(e.to_string()))?;
    let FieldNames(names) = serde_json::from_str(&text).map_err(|e| not_json(e.to_string()))?;
    let Ok(Value::Object(mut values)) = serde_json::to_value(spec) else {
        return Err(not_json("expected a struct".to_string()));
    };
    let fields = names.into_iter().filter_map(|name| {
        let value = values.remove(&name)?;
        Some((name, value))
    });
    Ok(fields.collect())
}

/// The keys of a JSON object, in the order of the text.
struct FieldNames(Vec<String>);

impl<'de> Deserialize<'de> for FieldNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = FieldNames;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a struct")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FieldNames, A::Error> {
                let mut names = Vec::new();
                while let Some((name, IgnoredAny)) = map.next_entry()? {
                    names.push(name);
                }
                Ok(FieldNames(names))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

fn digest(bytes: &[u8]) -> String {
    let hex = blake3::hash(bytes).to_hex();
    format!("{} bytes, blake3 {}", bytes.len(), &hex[..12])
}

/// JSON without spaces, keys sorted bytewise, floats in the shortest form that reads back equal (an `f32` is widened to
/// `f64`). Equal values have equal text, whichever features of the JSON library other crates enable.
fn canonical_json(value: &(impl Serialize + ?Sized)) -> serde_json::Result<String> {
    let value = serde_json::to_value(value)?;
    let mut text = String::new();
    write_canonical(&value, &mut text);
    Ok(text)
}

fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_canonical(item, text);
            }
            text.push(']');
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            text.push('{');
            for (index, (key, item)) in entries.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write_canonical(item, text);
            }
            text.push('}');
        }
        leaf => text.push_str(&leaf.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn of(parts: &[(&str, &[u8])]) -> Fingerprint {
        let start = FingerprintBuilder::new("test");
        let all = parts.iter().fold(start, |b, (n, v)| b.bytes(n, v));
        all.finish().unwrap()
    }

    #[test]
    fn fields_of_a_struct_are_those_that_were_added_one_by_one() {
        #[derive(Serialize)]
        struct Inner {
            lambda: f64,
            top_k: usize,
        }
        #[derive(Serialize)]
        struct Spec {
            seed: u64,
            init: Option<String>,
            lr: f64,
            #[serde(flatten)]
            patch: Option<Inner>,
            #[serde(skip)]
            _note: u8,
        }
        let make = |patch: Option<Inner>| Spec {
            seed: u64::MAX,
            init: None,
            lr: 0.1 + 0.2,
            patch,
            _note: 7,
        };
        let by_hand = FingerprintBuilder::new("spec")
            .field("seed", &u64::MAX)
            .field("init", &None::<String>)
            .field("lr", &(0.1 + 0.2));
        let with = FingerprintBuilder::new("spec").fields(&make(None));
        assert_eq!(with.finish().unwrap(), by_hand.finish().unwrap());
        let by_hand = FingerprintBuilder::new("spec")
            .field("seed", &u64::MAX)
            .field("init", &None::<String>)
            .field("lr", &(0.1 + 0.2))
            .field("lambda", &0.25)
            .field("top_k", &3);
        let patch = Inner {
            lambda: 0.25,
            top_k: 3,
        };
        let with = FingerprintBuilder::new("spec").fields(&make(Some(patch)));
        assert_eq!(with.finish().unwrap(), by_hand.finish().unwrap());
        let wrong = FingerprintBuilder::new("spec").fields(&3);
        assert!(matches!(wrong.finish(), Err(CoreError::NotJson { .. })));
    }

    #[test]
    fn the_byte_stream_is_part_of_the_format() {
        let expected = {
            let mut stream = vec![b'd', 4, 0, 0, 0, 0, 0, 0, 0];
            stream.extend(b"test");
            stream.extend([0; 8]);
            stream.extend([b'j', 1, 0, 0, 0, 0, 0, 0, 0, b'x', 3, 0, 0, 0, 0, 0, 0, 0]);
            stream.extend(b"0.1");
            blake3::hash(&stream).to_hex().to_string()
        };
        let found = FingerprintBuilder::new("test").field("x", &0.1f64);
        assert_eq!(found.finish().unwrap().to_string(), expected);
    }

    #[test]
    fn text_and_serde_round_trip() {
        let fingerprint = of(&[("a", b"b")]);
        let text = fingerprint.to_string();
        assert_eq!(text.len(), 64);
        assert_eq!(fingerprint.short(), text[..12]);
        assert_eq!(text.parse::<Fingerprint>().unwrap(), fingerprint);
        let json = serde_json::to_string(&fingerprint).unwrap();
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(
            serde_json::from_str::<Fingerprint>(&json).unwrap(),
            fingerprint
        );
        assert!(text[1..].parse::<Fingerprint>().is_err());
        assert!(
            text.replacen(&text[..1], "g", 1)
                .parse::<Fingerprint>()
                .is_err()
        );
    }

    #[test]
    fn bytes_and_fields_and_domains_stay_apart() {
        let b = FingerprintBuilder::new;
        let json = b("d").field("x", "a").finish().unwrap();
        assert_ne!(json, b("d").bytes("x", b"\"a\"").finish().unwrap());
        assert_ne!(json, b("e").field("x", "a").finish().unwrap());
    }

    #[test]
    fn a_value_without_json_is_an_error_that_names_it() {
        let pairs = BTreeMap::from([((1, 2), 3)]);
        let error = FingerprintBuilder::new("d").field("pairs", &pairs).finish();
        assert!(matches!(error, Err(CoreError::NotJson { name, .. }) if name == "pairs"));
    }

    #[test]
    fn canonical_json_sorts_keys_and_keeps_floats() {
        let value: Value =
            serde_json::from_str(r#"{"b":[1,0.1,1.0],"a":{"d":null,"c":"\n"}}"#).unwrap();
        let expected = r#"{"a":{"c":"\n","d":null},"b":[1,0.1,1.0]}"#;
        assert_eq!(canonical_json(&value).unwrap(), expected);
        assert_eq!(canonical_json(&0.1f32).unwrap(), "0.10000000149011612");
    }

    proptest! {
        #[test]
        fn different_sequences_differ(
            a in prop::collection::vec(("[ab]{0,2}", prop::collection::vec(0u8..3, 0..3)), 0..4),
            b in prop::collection::vec(("[ab]{0,2}", prop::collection::vec(0u8..3, 0..3)), 0..4),
        ) {
            let view = |parts: &[(String, Vec<u8>)]| {
                let parts: Vec<_> = parts.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
                of(&parts)
            };
            prop_assert_eq!(a == b, view(&a) == view(&b));
        }
    }
}
