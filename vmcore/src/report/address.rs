//! Addresses as JSON has them: strings, because a JSON number loses the low bits of a 64-bit address.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::addr::{KVirtAddr, PhysAddr};

/// An address or a register's value in a document: `"0xffffffff81000000"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub u64);

impl From<KVirtAddr> for Address {
    fn from(kaddr: KVirtAddr) -> Self {
        Self(kaddr.0)
    }
}

impl From<PhysAddr> for Address {
    fn from(paddr: PhysAddr) -> Self {
        Self(paddr.0)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.strip_prefix("0x")
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .map(Self)
            .ok_or_else(|| de::Error::custom(format!("{text:?} is not an address of the form 0x…")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_all_its_bits() {
        let address = Address(0xffff_ffff_8100_0001);
        let json = serde_json::to_string(&address).unwrap();
        assert_eq!(json, "\"0xffffffff81000001\"");
        assert_eq!(serde_json::from_str::<Address>(&json).unwrap(), address);
    }

    #[test]
    fn a_number_or_another_text_is_no_address() {
        assert!(serde_json::from_str::<Address>("18446744071578845185").is_err());
        let err = serde_json::from_str::<Address>("\"ffff\"").unwrap_err();
        assert!(err.to_string().contains("not an address of the form 0x"), "{err}");
    }
}
