//! Numbers and bytes in a coding: hex in JSON, raw in postcard.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A finite float, written by its bits: eight hex digits in JSON, which rounds no decimal; four bytes in postcard.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bits(pub f32);

impl Serialize for Bits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.serialize_str(&format!("{:08x}", self.0.to_bits())),
            false => self.0.to_le_bytes().serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Bits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let float = match deserializer.is_human_readable() {
            true => {
                let hex = String::deserialize(deserializer)?;
                let bits = u32::from_str_radix(&hex, 16).ok().filter(|_| hex.len() == 8);
                f32::from_bits(bits.ok_or_else(|| de::Error::custom("expected eight hex digits"))?)
            }
            false => f32::from_le_bytes(<[u8; 4]>::deserialize(deserializer)?),
        };
        match float.is_finite() {
            true => Ok(Self(float)),
            false => Err(de::Error::custom(format!("found {float}, expected a finite number"))),
        }
    }
}

/// Bytes: hex digits in JSON, raw in postcard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packed(pub Vec<u8>);

impl Serialize for Packed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => {
                let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
                serializer.serialize_str(&hex)
            }
            false => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Packed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return Vec::deserialize(deserializer).map(Self);
        }
        let hex = String::deserialize(deserializer)?;
        let digit = |digit: u8| char::from(digit).to_digit(16);
        let byte = |pair: &[u8]| match *pair {
            [high, low] => Some((digit(high)? << 4 | digit(low)?) as u8),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(byte).collect();
        bytes.map(Self).ok_or_else(|| de::Error::custom("expected pairs of hex digits"))
    }
}
