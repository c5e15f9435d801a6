//! Typed names, each parsed once at the door; all ids of the system are listed here.
//! A value of one of these types is always within its bound and its alphabet.

use crate::limits;
use std::fmt;
use std::str::FromStr;

/// Why a name was not accepted; reads well after "failed to parse …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not a valid {kind}: {why}")]
pub struct InvalidId {
    pub kind: &'static str,
    pub value: String,
    pub why: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            pub fn parse(value: &str) -> Result<Self, InvalidId> {
                match $check(value) {
                    Ok(()) => Ok(Self(value.to_owned())),
                    Err(why) => Err(InvalidId {
                        kind: $kind,
                        value: value.chars().take(limits::ID_BYTES_MAX).collect(),
                        why,
                    }),
                }
            }
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(s: &str) -> Result<Self, InvalidId> {
                Self::parse(s)
            }
        }
        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.str(&self.0)?.ok()
            }
        }
        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                Self::parse(d.str()?).map_err(|e| minicbor::decode::Error::message(e.to_string()))
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(d)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_id!(
    /// A node's (or coordinator's) DNS-style name, certified to its key: `housing.xian.example`.
    NodeId, "node name", check_dns
);
text_id!(
    /// A resource's id within its node: `permits`.
    ResourceId, "resource id", check_label
);
text_id!(
    /// A job's name within its node: `person-base-daily`.
    JobId, "job name", check_label
);
text_id!(
    /// One run of a job, made and persisted by the consumer: `tr-` and 26 characters of base32.
    TransferId, "transfer id", check_transfer
);
text_id!(
    /// A grant, made by the coordinator: `gr-` and 26 characters of base32.
    GrantId, "grant id", check_grant
);
text_id!(
    /// A receipt: `rc-` and 52 characters of base32 of the SHA-256 of the consumer's statement.
    ReceiptId, "receipt id", check_receipt
);

impl TransferId {
    /// From 16 random bytes.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(format!("tr-{}", base32(&bytes)))
    }
}
impl GrantId {
    /// From 16 random bytes.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(format!("gr-{}", base32(&bytes)))
    }
}
impl ReceiptId {
    /// From the SHA-256 of the consumer's statement.
    pub fn from_statement(sha256: &[u8; 32]) -> Self {
        Self(format!("rc-{}", base32(sha256)))
    }
}

/// A resource of another node, written `NODE/RESOURCE`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, minicbor::Encode, minicbor::Decode)]
pub struct ResourceRef {
    #[n(0)]
    pub node: NodeId,
    #[n(1)]
    pub resource: ResourceId,
}

impl FromStr for ResourceRef {
    type Err = InvalidId;
    fn from_str(s: &str) -> Result<Self, InvalidId> {
        let (node, resource) = s.split_once('/').ok_or(InvalidId {
            kind: "resource",
            value: s.chars().take(limits::ID_BYTES_MAX).collect(),
            why: "it is written NODE/RESOURCE",
        })?;
        Ok(Self { node: node.parse()?, resource: resource.parse()? })
    }
}
impl fmt::Display for ResourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.resource)
    }
}
impl serde::Serialize for ResourceRef {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> serde::Deserialize<'de> for ResourceRef {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn check_dns(value: &str) -> Result<(), &'static str> {
    if value.is_empty() || value.len() > limits::ID_BYTES_MAX {
        return Err("a name has 1 to 253 characters");
    }
    for label in value.split('.') {
        let ok = !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-');
        if !ok {
            return Err("each part between dots is 1 to 63 of a-z, 0-9 and inner hyphens");
        }
    }
    Ok(())
}

fn check_label(value: &str) -> Result<(), &'static str> {
    let ok = !value.is_empty()
        && value.len() <= limits::LABEL_BYTES_MAX
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && !value.starts_with(['-', '.']);
    if ok { Ok(()) } else { Err("it is 1 to 64 of a-z, A-Z, 0-9, `-`, `_` and `.`, not starting with `-` or `.`") }
}

fn check_transfer(value: &str) -> Result<(), &'static str> {
    check_random(value, "tr-", 26)
}
fn check_grant(value: &str) -> Result<(), &'static str> {
    check_random(value, "gr-", 26)
}
fn check_receipt(value: &str) -> Result<(), &'static str> {
    check_random(value, "rc-", 52)
}

fn check_random(value: &str, prefix: &str, length: usize) -> Result<(), &'static str> {
    match value.strip_prefix(prefix) {
        Some(rest) if rest.len() == length && rest.bytes().all(|b| BASE32.contains(&b)) => Ok(()),
        _ => Err("it is a prefix of two letters, a hyphen, and base32 in lower case"),
    }
}

fn base32(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut buffer, mut bits) = (0u32, 0u32);
    for byte in bytes {
        buffer = (buffer << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(char::from(BASE32[(buffer >> bits & 31) as usize]));
        }
        buffer &= (1 << bits) - 1;
    }
    if bits > 0 {
        out.push(char::from(BASE32[(buffer << (5 - bits) & 31) as usize]));
    }
    out
}

/// Crockford's alphabet in lower case: no i, l, o, u, so that ids survive a telephone.
const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_parse_back() {
        let id = TransferId::from_random([0xa5; 16]);
        assert_eq!(TransferId::parse(id.as_str()).unwrap(), id);
        let id = ReceiptId::from_statement(&[0x5a; 32]);
        assert_eq!(ReceiptId::parse(id.as_str()).unwrap(), id);
    }

    #[test]
    fn names_that_could_mean_a_path_are_refused() {
        for bad in ["", "..", "a/b", "a\0b", ".hidden", "-x", "人口"] {
            assert!(ResourceId::parse(bad).is_err(), "{bad:?}");
        }
        for bad in ["", ".", "a..b", "A.b", "*.b", "a_b", "-a.b"] {
            assert!(NodeId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
