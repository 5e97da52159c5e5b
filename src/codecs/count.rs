//! Counts the elements of a list without building it.
//!
//! A part of a directory takes three bytes in a file, and a hundred in memory.

use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// The number of elements of a list of `T`.
pub(crate) struct Count<T>(pub(crate) usize, PhantomData<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Count<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Elements(PhantomData))
    }
}

struct Elements<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Elements<T> {
    type Value = Count<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Count<T>, A::Error> {
        let mut count = 0;
        while list.next_element::<T>()?.is_some() {
            count += 1;
        }
        Ok(Count(count, PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_counted_in_json_and_postcard() {
        let list = vec![("a".to_owned(), 1u8), ("b".to_owned(), 2)];
        let json = serde_json::to_string(&list).unwrap();
        assert_eq!(serde_json::from_str::<Count<(String, u8)>>(&json).unwrap().0, 2);
        let bytes = postcard::to_allocvec(&list).unwrap();
        assert_eq!(postcard::from_bytes::<Count<(String, u8)>>(&bytes).unwrap().0, 2);
        assert!(serde_json::from_str::<Count<(String, u8)>>("[1]").is_err());
    }
}
