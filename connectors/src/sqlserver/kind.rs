//! What a column is: the engine's type, the contract type that it means, how it is asked for, and how it is declared.
//! A table that is made from a contract reads back as that contract: types that the engine does not have are texts with
//! a mark, an extended property of the column.

use super::codepage::Page;
use super::name::quote;
use posthouse_protocol::schema::{Contract, ContractType, Item};

/// A type of the engine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Bit,
    TinyInt,
    SmallInt,
    Int,
    BigInt,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Money,
    SmallMoney,
    Real,
    Float,
    Date,
    /// These with the digits of a second that they keep.
    Time(u8),
    DateTime2(u8),
    DateTimeOffset(u8),
    DateTime,
    SmallDateTime,
    /// Bytes of a code page, padded.
    Char(u16, Page),
    /// Without a length: up to 2 GiB.
    VarChar(Option<u16>, Page),
    /// UTF-16, padded.
    NChar(u16),
    NVarChar(Option<u16>),
    Text(Page),
    NText,
    Xml,
    Guid,
    Binary(u16),
    VarBinary(Option<u16>),
    Image,
    RowVersion,
}

/// What a text column of ours means, where it is more than text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Char,
    Json,
    Number,
}

impl Mark {
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "char" => Self::Char,
            "json" => Self::Json,
            "number" => Self::Number,
            _ => return None,
        })
    }
    pub(super) fn of(r#type: ContractType) -> Option<&'static str> {
        Some(match r#type {
            ContractType::Char => "char",
            ContractType::Json => "json",
            ContractType::Number => "number",
            _ => return None,
        })
    }
}

/// A type as the catalogue describes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Described {
    /// `system_type_id`
    pub(super) id: i64,
    /// In bytes; −1 is no length.
    pub(super) length: i64,
    pub(super) precision: i64,
    pub(super) scale: i64,
    /// Of a text's collation.
    pub(super) page: Option<Page>,
}

impl Kind {
    /// None of a type that does not move.
    pub(super) fn of(described: Described) -> Option<Self> {
        let Described { id, length, precision, scale, page } = described;
        let scale = u8::try_from(scale).ok()?;
        let sized = |unit: i64| u16::try_from(length / unit).ok().filter(|length| *length > 0);
        let open = |unit: i64| if length < 0 { Some(None) } else { sized(unit).map(Some) };
        Some(match id {
            104 => Self::Bit,
            48 => Self::TinyInt,
            52 => Self::SmallInt,
            56 => Self::Int,
            127 => Self::BigInt,
            106 | 108 => Self::Decimal { precision: u8::try_from(precision).ok()?, scale },
            60 => Self::Money,
            122 => Self::SmallMoney,
            59 => Self::Real,
            62 => Self::Float,
            40 => Self::Date,
            41 => Self::Time(scale),
            42 => Self::DateTime2(scale),
            43 => Self::DateTimeOffset(scale),
            61 => Self::DateTime,
            58 => Self::SmallDateTime,
            175 => Self::Char(sized(1)?, page?),
            167 => Self::VarChar(open(1)?, page?),
            239 => Self::NChar(sized(2)?),
            231 => Self::NVarChar(open(2)?),
            35 => Self::Text(page?),
            99 => Self::NText,
            241 => Self::Xml,
            36 => Self::Guid,
            173 => Self::Binary(sized(1)?),
            165 => Self::VarBinary(open(1)?),
            34 => Self::Image,
            189 => Self::RowVersion,
            _ => return None,
        })
    }

    /// What it means.
    pub(super) fn contract_type(self, mark: Option<Mark>) -> ContractType {
        match self {
            Self::Bit => ContractType::Boolean,
            Self::TinyInt | Self::SmallInt | Self::Int | Self::BigInt | Self::RowVersion => ContractType::Integer,
            Self::Decimal { precision, scale } => ContractType::Decimal { precision, scale: scale as i8 },
            Self::Money => ContractType::Decimal { precision: 19, scale: 4 },
            Self::SmallMoney => ContractType::Decimal { precision: 10, scale: 4 },
            Self::Real | Self::Float => ContractType::Float,
            Self::Date => ContractType::Date,
            Self::DateTime2(_) | Self::DateTimeOffset(_) | Self::DateTime | Self::SmallDateTime => {
                ContractType::Timestamp
            }
            Self::Char(..) | Self::NChar(_) => ContractType::Char,
            Self::VarChar(..) | Self::NVarChar(_) => match mark {
                None => ContractType::Text,
                Some(Mark::Char) => ContractType::Char,
                Some(Mark::Json) => ContractType::Json,
                Some(Mark::Number) => ContractType::Number,
            },
            Self::Text(_) | Self::NText | Self::Xml | Self::Guid | Self::Time(_) => ContractType::Text,
            Self::Binary(_) | Self::VarBinary(_) | Self::Image => ContractType::Bytes,
        }
    }

    /// The expression by which a column is read. Money comes as the decimal that it is, for the driver would make a
    /// double of it; a text as its bytes.
    pub(super) fn select(self, column: &str) -> String {
        let cast = |r#type: &str| format!("CAST({column} AS {type})");
        let bytes = |length: Option<u16>| match length {
            Some(length) if length <= BYTES_SHORT => cast(&format!("varbinary({length})")),
            _ => cast("varbinary(max)"),
        };
        match self {
            Self::Money => cast("decimal(19,4)"),
            Self::SmallMoney => cast("decimal(10,4)"),
            Self::RowVersion => cast("bigint"),
            Self::Char(length, _) => bytes(Some(length)),
            Self::VarChar(length, _) => bytes(length),
            Self::NChar(length) => bytes(length.checked_mul(2)),
            Self::NVarChar(length) => bytes(length.and_then(|length| length.checked_mul(2))),
            Self::Text(_) => format!("CAST({} AS varbinary(max))", cast("varchar(max)")),
            Self::NText | Self::Xml => format!("CAST({} AS varbinary(max))", cast("nvarchar(max)")),
            Self::Image => cast("varbinary(max)"),
            _ => column.to_owned(),
        }
    }

    /// As a created column declares it, without its collation.
    pub(super) fn declare(self) -> String {
        let open = |name: &str, length: Option<u16>| match length {
            Some(length) => format!("{name}({length})"),
            None => format!("{name}(max)"),
        };
        match self {
            Self::Bit => "bit".to_owned(),
            Self::TinyInt => "tinyint".to_owned(),
            Self::SmallInt => "smallint".to_owned(),
            Self::Int => "int".to_owned(),
            Self::BigInt => "bigint".to_owned(),
            Self::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
            Self::Money => "money".to_owned(),
            Self::SmallMoney => "smallmoney".to_owned(),
            Self::Real => "real".to_owned(),
            Self::Float => "float(53)".to_owned(),
            Self::Date => "date".to_owned(),
            Self::Time(scale) => format!("time({scale})"),
            Self::DateTime2(scale) => format!("datetime2({scale})"),
            Self::DateTimeOffset(scale) => format!("datetimeoffset({scale})"),
            Self::DateTime => "datetime".to_owned(),
            Self::SmallDateTime => "smalldatetime".to_owned(),
            Self::Char(length, _) => format!("char({length})"),
            Self::VarChar(length, _) => open("varchar", length),
            Self::NChar(length) => format!("nchar({length})"),
            Self::NVarChar(length) => open("nvarchar", length),
            Self::Text(_) => "text".to_owned(),
            Self::NText => "ntext".to_owned(),
            Self::Xml => "xml".to_owned(),
            Self::Guid => "uniqueidentifier".to_owned(),
            Self::Binary(length) => format!("binary({length})"),
            Self::VarBinary(length) => open("varbinary", length),
            Self::Image => "image".to_owned(),
            Self::RowVersion => "rowversion".to_owned(),
        }
    }

    /// Whether it is compared by a collation: such columns are compared by their bytes instead.
    pub(super) fn is_text(self) -> bool {
        matches!(self, Self::Char(..) | Self::VarChar(..) | Self::NChar(_) | Self::NVarChar(_))
    }

    pub(super) fn page(self) -> Option<Page> {
        match self {
            Self::Char(_, page) | Self::VarChar(_, page) | Self::Text(page) => Some(page),
            _ => None,
        }
    }

    /// The same with other bytes.
    pub(super) fn with_page(self, page: Page) -> Self {
        match self {
            Self::Char(length, _) => Self::Char(length, page),
            Self::VarChar(length, _) => Self::VarChar(length, page),
            Self::Text(_) => Self::Text(page),
            other => other,
        }
    }

    /// The column of the staging table beside a target's: one that the driver can load and that keeps the same values.
    /// Of the driver's declarations a longer `nvarchar` would be twice its length; money it takes as a double's equal.
    pub(super) fn staged(self) -> Self {
        let wide = |length: u16| Self::NVarChar(Some(length).filter(|length| *length <= STAGED_UNITS_MAX));
        match self {
            Self::Money => Self::Decimal { precision: 19, scale: 4 },
            Self::SmallMoney => Self::Decimal { precision: 10, scale: 4 },
            // These it declares without their digits.
            Self::DateTimeOffset(_) => Self::DateTimeOffset(7),
            Self::SmallDateTime => Self::DateTime2(0),
            Self::NChar(length) | Self::NVarChar(Some(length)) => wide(length),
            // The driver knows no collation of UTF-8.
            Self::Char(length, page) | Self::VarChar(Some(length), page) if page.is_utf8() => wide(length),
            Self::VarChar(None, page) if page.is_utf8() => Self::NVarChar(None),
            other => other,
        }
    }
}

/// Whether a column of this kind keeps every value of a contract type, or says of each that it does not. A value that
/// would be rounded, padded or cut without a word has no such column.
pub(super) fn carries(wanted: ContractType, kind: Kind) -> bool {
    let fits = |precision: u8, scale: u8, p: u8, s: i8| {
        i16::from(scale) >= i16::from(s) && i16::from(precision) - i16::from(scale) >= i16::from(p) - i16::from(s)
    };
    match (wanted, kind) {
        (ContractType::Boolean, Kind::Bit)
        | (ContractType::Integer, Kind::BigInt | Kind::Int | Kind::SmallInt | Kind::TinyInt)
        | (ContractType::Float, Kind::Float)
        | (ContractType::Date, Kind::Date)
        | (
            ContractType::Timestamp,
            Kind::DateTime2(_) | Kind::DateTimeOffset(_) | Kind::DateTime | Kind::SmallDateTime,
        )
        | (ContractType::Bytes, Kind::VarBinary(_) | Kind::Binary(_))
        | (ContractType::Char, Kind::Char(..) | Kind::NChar(_))
        | (
            ContractType::Text | ContractType::Char | ContractType::Json | ContractType::Number,
            Kind::NVarChar(_) | Kind::VarChar(..),
        ) => true,
        (ContractType::Integer, Kind::Decimal { precision, scale }) => fits(precision, scale, 19, 0),
        (ContractType::Decimal { precision: p, scale: s }, Kind::Decimal { precision, scale }) => {
            fits(precision, scale, p, s)
        }
        // The bounds of both lie within 19 and 10 digits: what is beyond them is a bad row.
        (ContractType::Decimal { precision: p, scale: s }, Kind::Money) => fits(19, 4, p, s),
        (ContractType::Decimal { precision: p, scale: s }, Kind::SmallMoney) => fits(10, 4, p, s),
        _ => false,
    }
}

/// The kinds of a created table's columns, one for each item; none where the engine has no column for one, told by its
/// position. Texts of a key are as long as its index lets them be.
pub(super) fn created(contract: &Contract) -> Result<Vec<Kind>, usize> {
    let is_key = |item: &Item| contract.key.contains(&item.name);
    let key: Vec<&Item> = contract.items.iter().filter(|item| is_key(item)).collect();
    let fixed: u16 = key.iter().filter_map(|item| key_bytes(item.r#type)).sum();
    let open = key.iter().filter(|item| key_bytes(item.r#type).is_none()).count();
    let share = KEY_BYTES_MAX.saturating_sub(fixed) / u16::try_from(open.max(1)).unwrap_or(u16::MAX);
    let kind = |(at, item): (usize, &Item)| {
        let text = || Kind::NVarChar(is_key(item).then_some((share / 2).max(1)));
        Ok(match item.r#type {
            ContractType::Boolean => Kind::Bit,
            ContractType::Integer => Kind::BigInt,
            ContractType::Decimal { precision, scale } => {
                // Zeros before the point are digits here.
                let more = if scale < 0 { scale.unsigned_abs() } else { 0 };
                let precision = precision.checked_add(more).filter(|precision| *precision <= 38).ok_or(at)?;
                Kind::Decimal { precision, scale: u8::try_from(scale).unwrap_or(0) }
            }
            ContractType::Float => Kind::Float,
            ContractType::Text | ContractType::Char | ContractType::Json | ContractType::Number => text(),
            ContractType::Bytes => Kind::VarBinary(is_key(item).then_some(share.max(1))),
            ContractType::Date => Kind::Date,
            ContractType::Timestamp => Kind::DateTime2(6),
        })
    };
    contract.items.iter().enumerate().map(kind).collect()
}

/// What a part of a key takes of its index; none of one that takes what there is.
fn key_bytes(r#type: ContractType) -> Option<u16> {
    Some(match r#type {
        ContractType::Boolean => 1,
        ContractType::Integer | ContractType::Float | ContractType::Timestamp => 8,
        ContractType::Decimal { .. } => 17,
        ContractType::Date => 3,
        _ => return None,
    })
}

/// A column's declaration within CREATE TABLE.
pub(super) fn column(name: &str, kind: Kind, collation: Option<&str>, not_null: bool) -> String {
    let collate = match collation.filter(|_| kind.is_text()) {
        Some(collation) => format!(" COLLATE {collation}"),
        None => String::new(),
    };
    let null = if not_null { "NOT NULL" } else { "NULL" };
    format!("{} {}{collate} {null}", quote(name), kind.declare())
}

/// Texts of tables that we make are told apart character by character.
pub(super) const BINARY: &str = "Latin1_General_100_BIN2";
/// Longer values have a form of their own.
const BYTES_SHORT: u16 = 8_000;
/// Twice as many are what `nvarchar(n)` can declare.
const STAGED_UNITS_MAX: u16 = 2_000;
/// An entry of a clustered index in every version.
const KEY_BYTES_MAX: u16 = 900;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::item;

    fn described(id: i64, length: i64, precision: i64, scale: i64) -> Option<Kind> {
        Kind::of(Described { id, length, precision, scale, page: Page::of(936) })
    }

    #[test]
    fn the_catalogues_numbers_are_types() {
        assert_eq!(described(231, 40, 0, 0), Some(Kind::NVarChar(Some(20))));
        assert_eq!(described(231, -1, 0, 0), Some(Kind::NVarChar(None)));
        assert_eq!(described(167, 8_000, 0, 0).map(Kind::declare).as_deref(), Some("varchar(8000)"));
        assert_eq!(described(108, 17, 38, 10), Some(Kind::Decimal { precision: 38, scale: 10 }));
        assert_eq!(described(42, 8, 27, 7), Some(Kind::DateTime2(7)));
        // sql_variant, and types of the CLR: hierarchyid, geometry, geography.
        assert_eq!((described(98, 8_016, 0, 0), described(240, 892, 0, 0)), (None, None));
        let unknown = Described { id: 167, length: 10, precision: 0, scale: 0, page: None };
        assert_eq!(Kind::of(unknown), None, "a code page that cannot be read exactly");
    }

    #[test]
    fn money_leaves_as_a_decimal_and_texts_as_their_bytes() {
        let gbk = Page::of(936).unwrap();
        for (kind, select) in [
            (Kind::Money, "CAST(t.[c] AS decimal(19,4))"),
            (Kind::SmallMoney, "CAST(t.[c] AS decimal(10,4))"),
            (Kind::RowVersion, "CAST(t.[c] AS bigint)"),
            (Kind::NVarChar(Some(20)), "CAST(t.[c] AS varbinary(40))"),
            (Kind::NVarChar(None), "CAST(t.[c] AS varbinary(max))"),
            (Kind::Char(8_000, gbk), "CAST(t.[c] AS varbinary(8000))"),
            (Kind::Text(gbk), "CAST(CAST(t.[c] AS varchar(max)) AS varbinary(max))"),
            (Kind::Xml, "CAST(CAST(t.[c] AS nvarchar(max)) AS varbinary(max))"),
            (Kind::DateTime2(7), "t.[c]"),
        ] {
            assert_eq!(kind.select("t.[c]"), select);
        }
    }

    #[test]
    fn a_created_column_means_what_its_item_means() {
        use ContractType::*;
        let decimals = [(15, 2), (38, 38), (38, 0), (1, 0)].map(|(precision, scale)| Decimal { precision, scale });
        let types =
            [Boolean, Integer, Float, Text, Char, Bytes, Date, Timestamp, Json, Number].into_iter().chain(decimals);
        for r#type in types {
            let contract = Contract { items: vec![item("c", r#type)], key: vec![] };
            let kind = created(&contract).unwrap()[0];
            let mark = Mark::of(r#type).and_then(Mark::parse);
            assert_eq!(kind.contract_type(mark), r#type);
            assert!(carries(r#type, kind) && carries(r#type, kind.staged()));
        }
        let wide =
            Contract { items: vec![item("a", Integer), item("b", Decimal { precision: 38, scale: -5 })], key: vec![] };
        assert_eq!(created(&wide), Err(1));
    }

    #[test]
    fn a_key_fits_into_its_index() {
        use ContractType::*;
        let key = |types: &[ContractType]| {
            let items: Vec<Item> =
                types.iter().enumerate().map(|(at, r#type)| item(&format!("k{at}"), *r#type)).collect();
            let key = items.iter().map(|item| item.name.clone()).collect();
            created(&Contract { items, key }).unwrap()
        };
        assert_eq!(key(&[Text]), [Kind::NVarChar(Some(450))]);
        assert_eq!(key(&[Integer, Text, Char]), [Kind::BigInt, Kind::NVarChar(Some(223)), Kind::NVarChar(Some(223))]);
        assert_eq!(key(&[Bytes, Date]), [Kind::VarBinary(Some(897)), Kind::Date]);
    }

    #[test]
    fn a_column_that_would_round_or_pad_carries_nothing() {
        let decimal = |precision, scale| ContractType::Decimal { precision, scale };
        let column = |precision, scale| Kind::Decimal { precision, scale };
        assert!(carries(decimal(10, 2), column(12, 3)) && carries(decimal(10, -2), column(12, 0)));
        assert!(!carries(decimal(10, 2), column(10, 3)), "fewer digits before the point");
        assert!(!carries(decimal(10, 4), column(38, 3)), "the driver would round the fourth");
        assert!(carries(decimal(18, 4), Kind::Money) && !carries(decimal(18, 2), Kind::Money));
        assert!(carries(ContractType::Integer, column(19, 0)) && !carries(ContractType::Integer, column(18, 0)));
        for (r#type, kind) in [
            (ContractType::Float, Kind::Real),
            (ContractType::Text, Kind::NChar(10)),
            (ContractType::Text, Kind::NText),
            (ContractType::Integer, Kind::RowVersion),
            (ContractType::Date, Kind::DateTime),
            (ContractType::Text, Kind::Guid),
        ] {
            assert!(!carries(r#type, kind), "{kind:?}");
        }
    }

    #[test]
    fn what_is_staged_is_what_the_driver_can_load() {
        let utf8 = Page::of(65_001).unwrap();
        let gbk = Page::of(936).unwrap();
        assert_eq!(Kind::Money.staged(), Kind::Decimal { precision: 19, scale: 4 });
        assert_eq!(Kind::NChar(10).staged(), Kind::NVarChar(Some(10)));
        assert_eq!(Kind::NVarChar(Some(4_000)).staged(), Kind::NVarChar(None));
        assert_eq!(Kind::VarChar(Some(30), utf8).staged(), Kind::NVarChar(Some(30)));
        assert_eq!(Kind::VarChar(Some(30), gbk).staged(), Kind::VarChar(Some(30), gbk));
        assert_eq!(
            column("a]b", Kind::NVarChar(None), Some(BINARY), true),
            "[a]]b] nvarchar(max) COLLATE Latin1_General_100_BIN2 NOT NULL"
        );
        assert_eq!(column("n", Kind::BigInt, Some(BINARY), false), "[n] bigint NULL");
    }
}
