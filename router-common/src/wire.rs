//! Control payloads: MessagePack maps with named fields, and the bytes they came in.
//!
//! The handshake's proofs hash the very bytes that were sent, and limits charge encoded sizes; so the value and its
//! encoding travel together.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::de::{DeserializeOwned, Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::limits;

/// A control payload as a value and as its bytes. The two never disagree: it is made from one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wire<T> {
    value: T,
    bytes: Bytes,
}

/// Whether a field has its default, so that it is left out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Why a control payload could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("malformed payload: {0}")]
    Malformed(String),
    #[error("{0} bytes follow the payload's end")]
    TrailingBytes(usize),
}

impl<T: Serialize> Wire<T> {
    /// Encodes `value`.
    #[must_use]
    pub fn new(value: T) -> Self {
        let bytes = encode(&value).into();
        Self { value, bytes }
    }
}

impl<T: DeserializeOwned> Wire<T> {
    /// Decodes `bytes`. Unknown fields are skipped, so that fields can be added.
    ///
    /// # Errors
    /// When the bytes are not exactly one such map.
    pub fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let value = decode(&bytes)?;
        Ok(Self { value, bytes })
    }
}

impl<T> Wire<T> {
    #[must_use]
    pub const fn value(&self) -> &T {
        &self.value
    }

    #[must_use]
    pub fn into_value(self) -> T {
        self.value
    }

    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// Encodes a control payload.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value)
        .expect("our own payloads are maps, strings, numbers and bytes, which MessagePack holds")
}

/// Decodes a control payload, whole.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    // Named fields only: an array in a map's place would be read positionally and could not evolve.
    if !matches!(bytes.first(), Some(0x80..=0x8f | 0xde | 0xdf)) {
        return Err(WireError::Malformed("not a MessagePack map".to_owned()));
    }
    let mut deserializer = rmp_serde::Deserializer::new(bytes);
    deserializer.set_max_depth(limits::CONTROL_DEPTH);
    let value = T::deserialize(&mut deserializer).map_err(|error| WireError::Malformed(error.to_string()))?;
    match deserializer.get_ref().len() {
        0 => Ok(value),
        left => Err(WireError::TrailingBytes(left)),
    }
}

/// Reads a list of at most `MOST` items. How many items a list says it has reserves no memory: only those that come do,
/// and a list that is too long is refused at its first item too many.
pub(crate) fn list<'de, D, T, const MOST: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Items<T, const MOST: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Items<T, MOST> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MOST} items")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                if list.len() == MOST {
                    return Err(A::Error::custom(format_args!("a list of more than {MOST} items")));
                }
                list.push(item);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_seq(Items::<T, MOST>(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{HealthStatus, Heartbeat, Window};

    #[test]
    fn unknown_fields_are_skipped() {
        let later = serde_json::json!({"bytes": 7, "later": {"a": [1, 2, {"b": 3}]}});
        let bytes = rmp_serde::to_vec_named(&later).unwrap();
        assert_eq!(decode::<Window>(&bytes), Ok(Window { bytes: 7 }));
    }

    #[test]
    fn a_later_health_status_is_unknown() {
        let bytes = rmp_serde::to_vec_named(&serde_json::json!({"sequence": 1, "status": "on_fire"})).unwrap();
        assert_eq!(decode::<Heartbeat>(&bytes).unwrap().status, HealthStatus::Unknown);
    }

    #[test]
    fn trailing_bytes_arrays_and_deep_nesting_are_refused() {
        let mut bytes = encode(&Window { bytes: 7 });
        bytes.push(0);
        assert_eq!(decode::<Window>(&bytes), Err(WireError::TrailingBytes(1)));
        let positional = rmp_serde::to_vec(&Window { bytes: 7 }).unwrap();
        assert!(matches!(decode::<Window>(&positional), Err(WireError::Malformed(_))));
        let mut deep = vec![0x81, 0xa1, b'x'];
        deep.extend([0x91; 1000]);
        deep.push(0xc0);
        assert!(matches!(decode::<Window>(&deep), Err(WireError::Malformed(_))));
    }

    #[test]
    fn a_list_is_bounded_by_its_items_and_not_by_what_it_claims() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Listed {
            #[serde(deserialize_with = "list::<_, _, 2>")]
            items: Vec<u8>,
        }
        let encoded = |items: &[u8]| rmp_serde::to_vec_named(&serde_json::json!({ "items": items })).unwrap();
        assert_eq!(decode::<Listed>(&encoded(&[1, 2])).unwrap().items, [1, 2]);
        assert!(matches!(decode::<Listed>(&encoded(&[1, 2, 3])), Err(WireError::Malformed(_))));
        let claims_four_billion = [&b"\x81\xa5items\xdd\xff\xff\xff\xff"[..], &[1]].concat();
        assert!(matches!(decode::<Listed>(&claims_four_billion), Err(WireError::Malformed(_))));
    }
}
