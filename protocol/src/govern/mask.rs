//! 脱敏: what is handed over in place of a column's values. The provider does it, before anything is digested or sealed.
//! What a mask hides is hidden for good: there is no way back from what was handed over.
//! One mask may follow another, a resource's first and then a grant's: what comes out tells no more than either.

use super::keyed::{Algorithm, Hasher, MaskKey};
use super::{GovernError, Governed};
use crate::batch::{Column, Value, arrow_type};
use crate::limits;
use crate::schema::{ContractType, Item};
use arrow::array::{ArrayRef, StringArray, StringBuilder, new_null_array};
use minicbor::{Decode, Encode};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// How one column is masked.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Mask {
    /// So many characters at the beginning and at the end stay, the others become `*`. All of them do where a value
    /// has no more than those. Text only.
    #[n(0)]
    Keep(#[n(0)] u8, #[n(1)] u8),
    /// NULL, in every row.
    #[n(1)]
    Null,
    /// This text, in every row; also where there was NULL.
    #[n(2)]
    Constant(#[n(0)] String),
    /// 64 hexadecimal digits that stand for the value; NULL stays NULL.
    #[n(3)]
    Hash(#[n(0)] Algorithm),
}

/// A mask and its column, as a grant prescribes it: by the name under which the column is offered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ColumnMask {
    #[n(0)]
    pub column: String,
    #[n(1)]
    pub mask: Mask,
}

impl ColumnMask {
    /// Whether a provider says that it has done this.
    pub fn is_done(&self, governed: &[Governed]) -> bool {
        let (mask, keyed) = (self.mask.to_string(), format!("{} key ", self.mask));
        let of_column = |done: &&Governed| done.column.as_ref() == Some(&self.column);
        governed.iter().filter(of_column).any(|done| done.what == mask || done.what.starts_with(&keyed))
    }
}

/// As it is typed: `phone=keep:3:4`.
impl fmt::Display for ColumnMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=", self.column)?;
        match &self.mask {
            Mask::Keep(first, last) => write!(f, "keep:{first}:{last}"),
            Mask::Constant(text) => write!(f, "constant:{text}"),
            mask @ (Mask::Null | Mask::Hash(_)) => write!(f, "{mask}"),
        }
    }
}

/// The column's name ends at the first `=`: a constant may hold more of them.
impl FromStr for ColumnMask {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parted = text.split_once('=').filter(|(column, _)| !column.trim().is_empty());
        let (column, mask) = parted.ok_or_else(|| format!("`{text}` is not COLUMN=MASK, such as phone=keep:3:4"))?;
        Ok(Self { column: column.trim().to_owned(), mask: mask.parse()? })
    }
}

impl Mask {
    /// Whether two different values always give two different ones: what a key has to be after it too.
    pub fn keeps_apart(&self) -> bool {
        matches!(self, Self::Hash(_))
    }
    pub fn needs_key(&self) -> bool {
        matches!(self, Self::Hash(algorithm) if algorithm.needs_key())
    }
    /// Whether it is one that may be: a text in place of values that is no longer than what a statement can carry.
    pub fn is_valid(&self) -> bool {
        match self {
            Self::Constant(text) => text.len() <= limits::MASK_CONSTANT_BYTES_MAX,
            Self::Keep(..) | Self::Null | Self::Hash(_) => true,
        }
    }
    /// The column as it is after it.
    pub(super) fn item(&self, item: &Item) -> Result<Item, GovernError> {
        let mut item = item.clone();
        match self {
            Self::Keep(..) if !matches!(item.r#type, ContractType::Text | ContractType::Char) => {
                return Err(GovernError::MaskType { column: item.name, mask: self.to_string(), is: item.r#type });
            }
            Self::Keep(..) => {}
            Self::Null => item.nullable = true,
            Self::Constant(_) | Self::Hash(_) => item.r#type = ContractType::Text,
        }
        Ok(item)
    }
}

/// In the words of a statement: `keep 3+4`, `null`, `constant`, `hmac-sm3`. What stands in place of values is told by
/// the rows themselves.
impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep(first, last) => write!(f, "keep {first}+{last}"),
            Self::Null => f.write_str("null"),
            Self::Constant(_) => f.write_str("constant"),
            Self::Hash(algorithm) => f.write_str(algorithm.name()),
        }
    }
}

/// As it is typed: `keep:3:4`, `null`, `constant:TEXT`, `hmac-sm3`, `sm3`, `blake3`.
impl FromStr for Mask {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("`{text}` is none of keep:FIRST:LAST, null, constant:TEXT, hmac-sm3, sm3, blake3");
        let mask = match text.split_once(':') {
            None if text == "null" => Self::Null,
            None => Self::Hash(Algorithm::parse(text).ok_or_else(unknown)?),
            Some(("constant", text)) => Self::Constant(text.to_owned()),
            Some(("keep", counts)) => {
                let (first, last) = counts.split_once(':').ok_or_else(unknown)?;
                match (first.parse(), last.parse()) {
                    (Ok(first), Ok(last)) => Self::Keep(first, last),
                    _ => return Err(unknown()),
                }
            }
            Some(_) => return Err(unknown()),
        };
        if mask.is_valid() { Ok(mask) } else { Err(format!("at most {} bytes", limits::MASK_CONSTANT_BYTES_MAX)) }
    }
}

/// A mask that is ready to be put on: a hash has its key.
#[derive(Clone)]
pub(super) enum Masker {
    Keep(usize, usize),
    Null(ContractType),
    Constant(String),
    Hash(Hasher),
}

impl Masker {
    /// For a column that has the type of `item` before it.
    pub(super) fn new(mask: &Mask, item: &Item, key: Option<&MaskKey>) -> Result<Self, GovernError> {
        Ok(match mask {
            Mask::Keep(first, last) => Self::Keep(usize::from(*first), usize::from(*last)),
            Mask::Null => Self::Null(item.r#type),
            Mask::Constant(text) => Self::Constant(text.clone()),
            Mask::Hash(algorithm) => {
                let hasher = Hasher::new(*algorithm, key);
                Self::Hash(hasher.ok_or_else(|| GovernError::NoKey { column: item.name.clone() })?)
            }
        })
    }

    /// The column's values as they are handed over.
    pub(super) fn put_on(&self, column: &Column, rows: usize) -> ArrayRef {
        let trimmed = matches!(column, Column::Char(_));
        let each = |value: &dyn Fn(Value<'_>) -> String| -> ArrayRef {
            let mut builder = StringBuilder::with_capacity(rows, rows.saturating_mul(32));
            for row in 0..rows {
                match column.value(row) {
                    Value::Null => builder.append_null(),
                    Value::Text(text) if trimmed => {
                        builder.append_value(value(Value::Text(text.trim_end_matches(' '))));
                    }
                    other => builder.append_value(value(other.normal())),
                }
            }
            Arc::new(builder.finish())
        };
        match self {
            Self::Keep(first, last) => each(&|found| match found {
                Value::Text(text) => keep(text, *first, *last),
                other => keep(&other.to_string(), *first, *last),
            }),
            Self::Null(r#type) => new_null_array(&arrow_type(*r#type), rows),
            Self::Constant(text) => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, rows))),
            Self::Hash(hasher) => each(&|found| match found {
                Value::Text(text) | Value::Number(text) => hasher.hex(text.as_bytes()),
                Value::Bytes(bytes) => hasher.hex(bytes),
                other => hasher.hex(other.to_string().as_bytes()),
            }),
        }
    }
}

fn keep(text: &str, first: usize, last: usize) -> String {
    let length = text.chars().count();
    let hidden = length.saturating_sub(first.saturating_add(last));
    // A value that is no longer than what would stay must not stay as it is.
    let (first, last) = if hidden == 0 { (0, length) } else { (first, first + hidden) };
    text.chars().enumerate().map(|(at, c)| if (first..last).contains(&at) { '*' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_and_the_last_stay_and_short_values_are_hidden_whole() {
        for (text, first, last, masked) in [
            ("13812345678", 3, 4, "138****5678"),
            ("11010519491231002X", 6, 4, "110105********002X"),
            ("张三丰", 1, 0, "张**"),
            ("张三", 1, 0, "张*"),
            ("张", 1, 0, "*"),
            ("1234567", 3, 4, "*******"),
            ("12345678", 3, 4, "123*5678"),
            ("abc", 0, 0, "***"),
            ("", 3, 4, ""),
        ] {
            assert_eq!(keep(text, first, last), masked, "{text}");
        }
    }

    #[test]
    fn what_is_typed_is_read_and_nothing_else() {
        assert_eq!("keep:3:4".parse(), Ok(Mask::Keep(3, 4)));
        assert_eq!("null".parse(), Ok(Mask::Null));
        assert_eq!("constant:不提供".parse(), Ok(Mask::Constant("不提供".to_owned())));
        assert_eq!("constant:a:b".parse(), Ok(Mask::Constant("a:b".to_owned())));
        assert_eq!("hmac-sm3".parse(), Ok(Mask::Hash(Algorithm::HmacSm3)));
        for text in ["phone=keep:3:4", "note=constant:a=b", "x=null", "id=hmac-sm3"] {
            assert_eq!(text.parse::<ColumnMask>().unwrap().to_string(), text);
        }
        assert!("=null".parse::<ColumnMask>().is_err() && "phone".parse::<ColumnMask>().is_err());
        let long = format!("constant:{}", "x".repeat(limits::MASK_CONSTANT_BYTES_MAX + 1));
        for wrong in ["", "keep", "keep:3", "keep:3:400", "keep:-1:2", "md5", "nul", "hash:sm3", long.as_str()] {
            assert!(wrong.parse::<Mask>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_mask_is_done_where_the_provider_says_so_of_its_column() {
        let said = |column: &str, what: &str| Governed { column: Some(column.to_owned()), what: what.to_owned() };
        let mask = |text: &str| text.parse::<ColumnMask>().unwrap();
        let governed = [said("id", "hmac-sm3 key 0011"), said("phone", "keep 3+4")];
        assert!(mask("id=hmac-sm3").is_done(&governed) && mask("phone=keep:3:4").is_done(&governed));
        for not in ["id=sm3", "phone=keep:3:5", "name=null", "phone=keep:3:44"] {
            assert!(!mask(not).is_done(&governed), "{not}");
        }
    }

    #[test]
    fn masks_change_what_a_column_is_only_where_they_must() {
        let item = |r#type| Item { name: "a".to_owned(), r#type, nullable: false, comment: None };
        let after = |mask: &Mask, r#type| mask.item(&item(r#type)).map(|item| (item.r#type, item.nullable));
        let (keep, hash) = (Mask::Keep(1, 1), Mask::Hash(Algorithm::Sm3));
        assert_eq!(after(&keep, ContractType::Char).unwrap(), (ContractType::Char, false));
        assert!(after(&keep, ContractType::Integer).is_err());
        assert_eq!(after(&Mask::Null, ContractType::Date).unwrap(), (ContractType::Date, true));
        assert_eq!(after(&hash, ContractType::Integer).unwrap(), (ContractType::Text, false));
        assert!(hash.keeps_apart() && !keep.keeps_apart() && !Mask::Null.keeps_apart());
    }

    proptest! {
        #[test]
        fn a_mask_never_tells_more_than_was_said(text in "[a-z张三丰]{0,40}", first in 0usize..10, last in 0usize..10) {
            let masked = keep(&text, first, last);
            prop_assert_eq!(masked.chars().count(), text.chars().count());
            let shown = masked.chars().filter(|c| *c != '*').count();
            prop_assert!(shown == 0 || (shown == first + last && shown < text.chars().count()));
        }
    }
}
