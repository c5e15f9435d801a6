//! Values of the contract as the driver sends them to a column: in the column's own type and with all their digits, or
//! the reason why the column has no place for one. Nothing here rounds, cuts or replaces; the driver, which would, is
//! given nothing that it could do that to.

use super::calendar;
use super::kind::Kind;
use super::reading::rescale;
use encoding_rs::Encoding;
use posthouse_protocol::batch::Value;
use std::borrow::Cow;
use tiberius::ColumnData;
use tiberius::numeric::Numeric;

/// What the target's column keeps, and how its staging column is loaded.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) name: String,
    /// The target's.
    pub(super) kind: Kind,
    /// The staging table's.
    pub(super) staged: Kind,
    pub(super) collation: Option<String>,
    pub(super) not_null: bool,
    pub(super) identity: bool,
    pub(super) is_key: bool,
}

impl Slot {
    /// NULL, as the driver sends it to this column.
    pub(super) fn null(&self) -> ColumnData<'static> {
        match self.staged {
            Kind::Bit => ColumnData::Bit(None),
            Kind::TinyInt => ColumnData::U8(None),
            Kind::SmallInt => ColumnData::I16(None),
            Kind::Int => ColumnData::I32(None),
            Kind::BigInt | Kind::RowVersion => ColumnData::I64(None),
            Kind::Decimal { .. } | Kind::Money | Kind::SmallMoney => ColumnData::Numeric(None),
            Kind::Real => ColumnData::F32(None),
            Kind::Float => ColumnData::F64(None),
            Kind::Date => ColumnData::Date(None),
            Kind::Time(_) => ColumnData::Time(None),
            Kind::DateTime2(_) => ColumnData::DateTime2(None),
            Kind::DateTimeOffset(_) => ColumnData::DateTimeOffset(None),
            Kind::DateTime => ColumnData::DateTime(None),
            Kind::SmallDateTime => ColumnData::SmallDateTime(None),
            Kind::Binary(_) | Kind::VarBinary(_) | Kind::Image => ColumnData::Binary(None),
            Kind::Guid => ColumnData::Guid(None),
            Kind::Char(..)
            | Kind::VarChar(..)
            | Kind::NChar(_)
            | Kind::NVarChar(_)
            | Kind::Text(_)
            | Kind::NText
            | Kind::Xml => ColumnData::String(None),
        }
    }

    /// A value for the column, or why it has no place for it.
    pub(super) fn write<'v>(&self, value: Value<'v>) -> Result<ColumnData<'v>, String> {
        Ok(match (value, self.kind) {
            (Value::Null, _) if self.is_key => return Err("a part of its key is NULL".to_owned()),
            (Value::Null, _) if self.not_null => return Err("the table takes no NULL there".to_owned()),
            (Value::Null, _) => self.null(),
            (Value::Boolean(value), Kind::Bit) => ColumnData::Bit(Some(value)),
            (Value::Integer(value), Kind::BigInt) => ColumnData::I64(Some(value)),
            (Value::Integer(value), Kind::Int) => ColumnData::I32(Some(narrow(value, self.kind)?)),
            (Value::Integer(value), Kind::SmallInt) => ColumnData::I16(Some(narrow(value, self.kind)?)),
            (Value::Integer(value), Kind::TinyInt) => ColumnData::U8(Some(narrow(value, self.kind)?)),
            (Value::Integer(value), _) => self.decimal(i128::from(value), 0)?,
            (Value::Decimal(unscaled, scale), _) => self.decimal(unscaled, scale)?,
            (Value::Float(value), Kind::Float) if value.is_finite() => ColumnData::F64(Some(value)),
            (Value::Float(_), Kind::Float) => return Err("SQL Server has neither infinity nor NaN".to_owned()),
            (Value::Bytes(bytes), Kind::VarBinary(length)) => match length {
                Some(length) if bytes.len() > usize::from(length) => return Err(too_long(self.kind)),
                _ => ColumnData::Binary(Some(bytes.into())),
            },
            (Value::Bytes(bytes), Kind::Binary(length)) if bytes.len() == usize::from(length) => {
                ColumnData::Binary(Some(bytes.into()))
            }
            (Value::Bytes(_), Kind::Binary(_)) => return Err(format!("{} would pad or cut it", self.kind.declare())),
            (Value::Date(days), Kind::Date) => {
                let date = calendar::date(days).ok_or("SQL Server has no date so far away")?;
                ColumnData::Date(Some(date))
            }
            (Value::Timestamp(us), _) => self.time(us)?,
            (Value::Text(text) | Value::Number(text), _) => ColumnData::String(Some(self.characters(text)?)),
            _ => return Err("it is of another type than its column".to_owned()),
        })
    }

    /// Whether the driver's bulk load sends a value as it is, where it takes the column for text in this encoding.
    pub(super) fn is_loadable(&self, data: &ColumnData<'_>, driver: Option<&'static Encoding>) -> bool {
        match (self.staged.page(), data) {
            (Some(page), ColumnData::String(Some(text))) => !is_long(data) && page.is_said_alike(driver, text),
            _ => !is_long(data),
        }
    }

    fn decimal(&self, unscaled: i128, from: i8) -> Result<ColumnData<'static>, String> {
        let (precision, scale) = match self.kind {
            Kind::Decimal { precision, scale } => (precision, scale),
            Kind::Money => (19, 4),
            Kind::SmallMoney => (10, 4),
            _ => return Err("it is of another type than its column".to_owned()),
        };
        let held = match self.kind {
            Kind::Money => i128::from(i64::MIN)..=i128::from(i64::MAX),
            Kind::SmallMoney => i128::from(i32::MIN)..=i128::from(i32::MAX),
            _ => i128::MIN..=i128::MAX,
        };
        let found = rescale(unscaled, from, precision, i8::try_from(scale).unwrap_or(i8::MAX));
        match found.filter(|value| held.contains(value)) {
            Some(value) => Ok(ColumnData::Numeric(Some(Numeric::new_with_scale(value, scale)))),
            None => Err(format!("it does not fit into {}", self.kind.declare())),
        }
    }

    fn time(&self, us: i64) -> Result<ColumnData<'static>, String> {
        let keeps = match self.kind {
            Kind::DateTime2(scale) | Kind::DateTimeOffset(scale) => calendar::datetime2(us, scale).is_some(),
            Kind::DateTime => calendar::datetime(us).is_some(),
            Kind::SmallDateTime => calendar::small(us).is_some(),
            _ => return Err("it is of another type than its column".to_owned()),
        };
        let staged = match self.staged {
            Kind::DateTime2(scale) => calendar::datetime2(us, scale).map(|value| ColumnData::DateTime2(Some(value))),
            Kind::DateTimeOffset(scale) => {
                calendar::offset(us, scale).map(|value| ColumnData::DateTimeOffset(Some(value)))
            }
            _ => calendar::datetime(us).map(|value| ColumnData::DateTime(Some(value))),
        };
        staged.filter(|_| keeps).ok_or_else(|| format!("{} keeps no such time", self.kind.declare()))
    }

    /// A text that the column keeps character by character, with the blanks that one of fixed length has.
    fn characters<'v>(&self, text: &'v str) -> Result<Cow<'v, str>, String> {
        let padded = |length: usize, limit: u16| {
            let limit = usize::from(limit);
            if length == limit {
                return Some(Cow::Borrowed(text));
            }
            if length < limit {
                return Some(Cow::Owned(format!("{text}{:1$}", "", limit - length)));
            }
            // Blanks at its end are no part of such a value.
            let over = length - limit;
            let (kept, cut) = text.split_at_checked(text.len().checked_sub(over)?)?;
            cut.bytes().all(|byte| byte == b' ').then_some(Cow::Borrowed(kept))
        };
        let units = |text: &str| if text.is_ascii() { text.len() } else { text.encode_utf16().count() };
        let whole = |fits: bool| fits.then_some(Cow::Borrowed(text));
        let found = match self.kind {
            Kind::NVarChar(None) => Some(Cow::Borrowed(text)),
            // A character has at most one unit for each of its bytes.
            Kind::NVarChar(Some(limit)) => whole(text.len() <= usize::from(limit) || units(text) <= usize::from(limit)),
            Kind::NChar(limit) => padded(units(text), limit),
            Kind::VarChar(limit, page) => {
                let length = page.encode(text).ok_or_else(unmapped)?.len();
                whole(limit.is_none_or(|limit| length <= usize::from(limit)))
            }
            Kind::Char(limit, page) => padded(page.encode(text).ok_or_else(unmapped)?.len(), limit),
            _ => return Err("it is of another type than its column".to_owned()),
        };
        found.ok_or_else(|| too_long(self.kind))
    }
}

fn narrow<T: TryFrom<i64>>(value: i64, kind: Kind) -> Result<T, String> {
    T::try_from(value).map_err(|_| format!("it does not fit into {}", kind.declare()))
}

fn too_long(kind: Kind) -> String {
    format!("it is too long for {}", kind.declare())
}

fn unmapped() -> String {
    "it has a character that the column's collation lacks".to_owned()
}

/// Whether the driver's bulk load would refuse a value for a column without a length: it takes 65,535 for the length.
fn is_long(data: &ColumnData<'_>) -> bool {
    match data {
        // UTF-16 takes at most twice the bytes of UTF-8.
        ColumnData::String(Some(text)) => {
            text.len() > LOADED_BYTES_MAX / 2 && text.encode_utf16().count() > LOADED_BYTES_MAX / 2
        }
        ColumnData::Binary(Some(bytes)) => bytes.len() > LOADED_BYTES_MAX,
        _ => false,
    }
}

const LOADED_BYTES_MAX: usize = 65_535;

#[cfg(test)]
mod tests {
    use super::super::codepage::Page;
    use super::*;
    use crate::types::parse_timestamp;

    fn slot(kind: Kind) -> Slot {
        let staged = kind.staged();
        Slot { name: "c".into(), kind, staged, collation: None, not_null: false, identity: false, is_key: false }
    }

    #[test]
    fn a_decimal_keeps_its_digits_or_is_refused() {
        let column = slot(Kind::Decimal { precision: 10, scale: 3 });
        for (value, kept) in [
            (Value::Decimal(12_345, 2), true),
            (Value::Decimal(12_340, 4), true),
            (Value::Decimal(12_345, 4), false),
            (Value::Decimal(99_999_999, 0), false),
        ] {
            assert_eq!(column.write(value).is_ok(), kept, "{value:?}");
        }
        let money = slot(Kind::Money);
        assert!(money.write(Value::Decimal(9_223_372_036_854_775_807, 4)).is_ok());
        assert!(money.write(Value::Decimal(9_223_372_036_854_775_808, 4)).unwrap_err().contains("money"));
        let (least, small) = (-9_223_372_036_854_775_808, slot(Kind::SmallMoney));
        assert!(money.write(Value::Decimal(least, 4)).is_ok() && money.write(Value::Decimal(least - 1, 4)).is_err());
        assert!(small.write(Value::Decimal(-2_147_483_648, 4)).is_ok());
        assert!(small.write(Value::Decimal(-2_147_483_649, 4)).is_err());
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        assert!(slot(Kind::TinyInt).write(Value::Integer(255)).is_ok());
        for (kind, value) in [(Kind::TinyInt, -1), (Kind::SmallInt, 32_768), (Kind::Int, 1 << 31)] {
            assert!(slot(kind).write(Value::Integer(value)).is_err(), "{kind:?}");
        }
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(slot(Kind::Float).write(Value::Float(value)).is_err());
        }
        assert!(slot(Kind::Date).write(Value::Date(i32::MAX)).is_err());
        let third = Value::Timestamp(parse_timestamp("2026-11-22 05:09:25.005").unwrap());
        assert!(slot(Kind::DateTime).write(third).is_err() && slot(Kind::DateTime2(3)).write(third).is_ok());
    }

    #[test]
    fn a_text_of_fixed_length_is_padded_before_it_is_sent() {
        let gbk = Page::of(936).unwrap();
        let text = |kind: Kind, text: &str| match slot(kind).write(Value::Text(text)) {
            Ok(ColumnData::String(Some(text))) => Some(text.into_owned()),
            _ => None,
        };
        assert_eq!(text(Kind::Char(6, gbk), "驿站").as_deref(), Some("驿站  "));
        assert_eq!(text(Kind::NChar(4), "驿站").as_deref(), Some("驿站  "));
        assert_eq!(text(Kind::NChar(4), "𠮷").as_deref(), Some("𠮷  "), "two units of UTF-16");
        assert_eq!(text(Kind::NChar(2), "驿站  ").as_deref(), Some("驿站"));
        assert_eq!((text(Kind::NChar(2), "驿站x"), text(Kind::Char(3, gbk), "驿站")), (None, None));
        assert_eq!(text(Kind::Char(4, gbk), "驿𠮷"), None, "GBK lacks it");
        assert_eq!(text(Kind::VarChar(Some(4), gbk), "驿站").as_deref(), Some("驿站"));
        assert_eq!((text(Kind::VarChar(Some(3), gbk), "驿站"), text(Kind::NVarChar(Some(1)), "𠮷")), (None, None));
        assert_eq!(text(Kind::NVarChar(Some(1)), "驿").as_deref(), Some("驿"));
    }

    #[test]
    fn what_the_driver_cannot_load_is_known_beforehand() {
        let string = |length: usize, part: &str| ColumnData::String(Some(part.repeat(length).into()));
        assert!(!is_long(&string(32_767, "a")) && is_long(&string(32_768, "a")));
        assert!(!is_long(&string(32_767, "长")) && is_long(&string(32_768, "长")));
        assert!(is_long(&string(16_384, "𠮷")) && !is_long(&string(16_383, "𠮷")));
        let bytes = |length: usize| ColumnData::Binary(Some(vec![0; length].into()));
        assert!(!is_long(&bytes(65_535)) && is_long(&bytes(65_536)) && is_long(&bytes(1 << 20)));
    }

    #[test]
    fn what_the_driver_would_say_otherwise_goes_another_way() {
        let column = slot(Kind::VarChar(None, Page::of(936).unwrap()));
        let text = |text: &'static str| ColumnData::String(Some(text.into()));
        let driver = Some(encoding_rs::GB18030);
        assert!(column.is_loadable(&text("驿站"), driver) && !column.is_loadable(&text("€"), driver));
        assert!(slot(Kind::NVarChar(None)).is_loadable(&text("€"), None));
        // A time is looked at by the target's type and sent in the staging column's.
        let minute = Value::Timestamp(parse_timestamp("2026-11-22 05:09:00").unwrap());
        let small = slot(Kind::SmallDateTime);
        assert!(matches!(small.write(minute), Ok(ColumnData::DateTime2(Some(time))) if time.time().scale() == 0));
        assert!(small.write(Value::Timestamp(1_000_000)).is_err());
        let offset = slot(Kind::DateTimeOffset(3));
        assert!(matches!(offset.write(minute), Ok(ColumnData::DateTimeOffset(Some(_)))));
        assert!(offset.write(Value::Timestamp(1)).is_err());
    }

    #[test]
    fn null_has_a_place_where_one_may_be() {
        let strict = Slot { not_null: true, ..slot(Kind::BigInt) };
        let key = Slot { is_key: true, ..slot(Kind::BigInt) };
        assert_eq!(slot(Kind::BigInt).write(Value::Null), Ok(ColumnData::I64(None)));
        assert!(strict.write(Value::Null).unwrap_err().contains("NULL"));
        assert!(key.write(Value::Null).unwrap_err().contains("key"));
    }
}
