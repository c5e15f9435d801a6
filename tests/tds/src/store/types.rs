//! The types of SQL Server: what a column or an expression holds.

use super::{Collation, SqlError};

/// Lengths of `char` and `binary` are bytes, of `nchar` units of UTF-16; none stands for `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bit,
    TinyInt,
    SmallInt,
    Int,
    BigInt,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Numeric {
        precision: u8,
        scale: u8,
    },
    Money,
    SmallMoney,
    Real,
    Float,
    Char(u16),
    VarChar(Option<u16>),
    NChar(u16),
    NVarChar(Option<u16>),
    Text,
    NText,
    Image,
    Binary(u16),
    VarBinary(Option<u16>),
    Date,
    Time(u8),
    DateTime,
    SmallDateTime,
    DateTime2(u8),
    DateTimeOffset(u8),
    Guid,
    Xml,
    RowVersion,
    /// Known to the catalogue by name, and to nothing else: `sql_variant`, `hierarchyid`, `geometry`, `geography`.
    Foreign(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type {
    pub kind: Kind,
    pub collation: &'static Collation,
}

impl Type {
    pub fn of(kind: Kind) -> Type {
        Type { kind, collation: Collation::usual() }
    }

    pub fn collated(kind: Kind, collation: &'static Collation) -> Type {
        Type { kind, collation }
    }

    pub fn declared(&self) -> String {
        self.kind.declared()
    }

    /// The type that two sides are brought to before they are compared or joined into one column: the one that
    /// stands higher in SQL Server's order, wide enough for both.
    pub fn common(self, other: Type) -> Type {
        if self.kind == other.kind {
            return self;
        }
        let (low, high) = if self.kind.rank() <= other.kind.rank() { (self, other) } else { (other, self) };
        let kind = match (low.kind, high.kind) {
            (Kind::Decimal { .. } | Kind::Numeric { .. }, Kind::Decimal { .. } | Kind::Numeric { .. }) => {
                widest(low.kind, high.kind)
            }
            (below, Kind::Decimal { .. } | Kind::Numeric { .. }) if below.as_decimal().is_some() => {
                widest(below.as_decimal().unwrap_or(high.kind), high.kind)
            }
            (a, b) if a.is_text() && b.is_text() => joined_text(a, b),
            (a, b) if a.is_binary() && b.is_binary() => match (a.length(), b.length()) {
                (Some(a), Some(b)) => Kind::VarBinary(Some(a.max(b))),
                _ => Kind::VarBinary(None),
            },
            (Kind::Time(a), Kind::Time(b)) => Kind::Time(a.max(b)),
            (Kind::DateTime2(a), Kind::DateTime2(b)) => Kind::DateTime2(a.max(b)),
            (Kind::DateTimeOffset(a), Kind::DateTimeOffset(b)) => Kind::DateTimeOffset(a.max(b)),
            (Kind::DateTime, Kind::DateTime2(_)) => Kind::DateTime2(7),
            (_, Kind::DateTimeOffset(_)) => Kind::DateTimeOffset(7),
            (_, kind) => kind,
        };
        // Of two collations the one that was asked for wins; the usual one was asked for by nobody.
        let collation = if self.kind.is_text() && (!other.kind.is_text() || self.collation != Collation::usual()) {
            self.collation
        } else {
            other.collation
        };
        Type { kind, collation }
    }
}

impl Kind {
    fn rank(self) -> u8 {
        match self {
            Kind::Binary(_) => 0,
            Kind::VarBinary(_) | Kind::RowVersion | Kind::Image => 1,
            Kind::Char(_) => 2,
            Kind::VarChar(_) | Kind::Text => 3,
            Kind::NChar(_) => 4,
            Kind::NVarChar(_) | Kind::NText => 5,
            Kind::Guid => 6,
            Kind::Bit => 7,
            Kind::TinyInt => 8,
            Kind::SmallInt => 9,
            Kind::Int => 10,
            Kind::BigInt => 11,
            Kind::SmallMoney => 12,
            Kind::Money => 13,
            Kind::Numeric { .. } => 14,
            Kind::Decimal { .. } => 15,
            Kind::Real => 16,
            Kind::Float => 17,
            Kind::Time(_) => 18,
            Kind::Date => 19,
            Kind::SmallDateTime => 20,
            Kind::DateTime => 21,
            Kind::DateTime2(_) => 22,
            Kind::DateTimeOffset(_) => 23,
            Kind::Xml => 24,
            Kind::Foreign(_) => 25,
        }
    }

    pub fn is_text(self) -> bool {
        matches!(
            self,
            Kind::Char(_)
                | Kind::VarChar(_)
                | Kind::NChar(_)
                | Kind::NVarChar(_)
                | Kind::Text
                | Kind::NText
                | Kind::Xml
        )
    }

    pub fn is_unicode(self) -> bool {
        matches!(self, Kind::NChar(_) | Kind::NVarChar(_) | Kind::NText | Kind::Xml)
    }

    pub fn is_binary(self) -> bool {
        matches!(self, Kind::Binary(_) | Kind::VarBinary(_) | Kind::RowVersion | Kind::Image)
    }

    pub fn is_integer(self) -> bool {
        matches!(self, Kind::Bit | Kind::TinyInt | Kind::SmallInt | Kind::Int | Kind::BigInt)
    }

    pub fn is_number(self) -> bool {
        (Kind::Bit.rank()..=Kind::Float.rank()).contains(&self.rank())
    }

    pub fn is_money(self) -> bool {
        matches!(self, Kind::Money | Kind::SmallMoney)
    }

    /// Bytes or units that it may have, for texts and bytes; none for `max` and for other kinds.
    pub fn length(self) -> Option<u16> {
        match self {
            Kind::Char(n) | Kind::NChar(n) | Kind::Binary(n) => Some(n),
            Kind::VarChar(n) | Kind::NVarChar(n) | Kind::VarBinary(n) => n,
            Kind::RowVersion => Some(8),
            _ => None,
        }
    }

    /// The decimal that holds every value of an exact number.
    pub fn as_decimal(self) -> Option<Kind> {
        let (precision, scale) = match self {
            Kind::Bit => (1, 0),
            Kind::TinyInt => (3, 0),
            Kind::SmallInt => (5, 0),
            Kind::Int => (10, 0),
            Kind::BigInt => (19, 0),
            Kind::Money => (19, 4),
            Kind::SmallMoney => (10, 4),
            Kind::Decimal { precision, scale } | Kind::Numeric { precision, scale } => (precision, scale),
            _ => return None,
        };
        Some(Kind::Decimal { precision, scale })
    }

    pub fn precision(self) -> u8 {
        match self.as_decimal() {
            Some(Kind::Decimal { precision, .. }) => precision,
            _ => match self {
                Kind::Real => 24,
                Kind::Float => 53,
                Kind::Date => 10,
                Kind::Time(0) => 8,
                Kind::Time(scale) => 9 + scale,
                Kind::DateTime => 23,
                Kind::SmallDateTime => 16,
                Kind::DateTime2(0) => 19,
                Kind::DateTime2(scale) => 20 + scale,
                Kind::DateTimeOffset(0) => 26,
                Kind::DateTimeOffset(scale) => 27 + scale,
                _ => 0,
            },
        }
    }

    pub fn scale(self) -> u8 {
        match self {
            Kind::Decimal { scale, .. } | Kind::Numeric { scale, .. } => scale,
            Kind::Money | Kind::SmallMoney => 4,
            Kind::Time(scale) | Kind::DateTime2(scale) | Kind::DateTimeOffset(scale) => scale,
            Kind::DateTime => 3,
            _ => 0,
        }
    }

    /// As `sys.columns.max_length` tells it.
    pub fn max_length(self) -> i64 {
        match self {
            Kind::Bit | Kind::TinyInt => 1,
            Kind::SmallInt => 2,
            Kind::Int | Kind::Real | Kind::SmallMoney | Kind::SmallDateTime => 4,
            Kind::BigInt | Kind::Float | Kind::Money | Kind::DateTime | Kind::RowVersion => 8,
            Kind::Decimal { precision, .. } | Kind::Numeric { precision, .. } => decimal_bytes(precision) as i64,
            Kind::Char(n) | Kind::Binary(n) => i64::from(n),
            Kind::NChar(n) => i64::from(n) * 2,
            Kind::VarChar(n) | Kind::VarBinary(n) => n.map_or(-1, i64::from),
            Kind::NVarChar(n) => n.map_or(-1, |n| i64::from(n) * 2),
            Kind::Text | Kind::NText | Kind::Image | Kind::Guid => 16,
            Kind::Xml => -1,
            Kind::Date => 3,
            Kind::Time(scale) => i64::from(time_bytes(scale)),
            Kind::DateTime2(scale) => i64::from(time_bytes(scale)) + 3,
            Kind::DateTimeOffset(scale) => i64::from(time_bytes(scale)) + 5,
            Kind::Foreign("hierarchyid") => 892,
            Kind::Foreign("sql_variant") => 8016,
            Kind::Foreign(_) => -1,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Bit => "bit",
            Kind::TinyInt => "tinyint",
            Kind::SmallInt => "smallint",
            Kind::Int => "int",
            Kind::BigInt => "bigint",
            Kind::Decimal { .. } => "decimal",
            Kind::Numeric { .. } => "numeric",
            Kind::Money => "money",
            Kind::SmallMoney => "smallmoney",
            Kind::Real => "real",
            Kind::Float => "float",
            Kind::Char(_) => "char",
            Kind::VarChar(_) => "varchar",
            Kind::NChar(_) => "nchar",
            Kind::NVarChar(_) => "nvarchar",
            Kind::Text => "text",
            Kind::NText => "ntext",
            Kind::Image => "image",
            Kind::Binary(_) => "binary",
            Kind::VarBinary(_) => "varbinary",
            Kind::Date => "date",
            Kind::Time(_) => "time",
            Kind::DateTime => "datetime",
            Kind::SmallDateTime => "smalldatetime",
            Kind::DateTime2(_) => "datetime2",
            Kind::DateTimeOffset(_) => "datetimeoffset",
            Kind::Guid => "uniqueidentifier",
            Kind::Xml => "xml",
            Kind::RowVersion => "timestamp",
            Kind::Foreign(name) => name,
        }
    }

    pub fn declared(self) -> String {
        let name = self.name();
        match self {
            Kind::Decimal { precision, scale } | Kind::Numeric { precision, scale } => {
                format!("{name}({precision},{scale})")
            }
            Kind::Char(n) | Kind::NChar(n) | Kind::Binary(n) => format!("{name}({n})"),
            Kind::VarChar(n) | Kind::NVarChar(n) | Kind::VarBinary(n) => match n {
                Some(n) => format!("{name}({n})"),
                None => format!("{name}(max)"),
            },
            Kind::Time(scale) | Kind::DateTime2(scale) | Kind::DateTimeOffset(scale) => format!("{name}({scale})"),
            _ => name.to_owned(),
        }
    }

    /// Number of the type in `sys.types`.
    pub fn system_id(self) -> i64 {
        match self {
            Kind::Image => 34,
            Kind::Text => 35,
            Kind::Guid => 36,
            Kind::Date => 40,
            Kind::Time(_) => 41,
            Kind::DateTime2(_) => 42,
            Kind::DateTimeOffset(_) => 43,
            Kind::TinyInt => 48,
            Kind::SmallInt => 52,
            Kind::Int => 56,
            Kind::SmallDateTime => 58,
            Kind::Real => 59,
            Kind::Money => 60,
            Kind::DateTime => 61,
            Kind::Float => 62,
            Kind::Foreign("sql_variant") => 98,
            Kind::NText => 99,
            Kind::Bit => 104,
            Kind::Decimal { .. } => 106,
            Kind::Numeric { .. } => 108,
            Kind::SmallMoney => 122,
            Kind::BigInt => 127,
            Kind::VarBinary(_) => 165,
            Kind::VarChar(_) => 167,
            Kind::Binary(_) => 173,
            Kind::Char(_) => 175,
            Kind::RowVersion => 189,
            Kind::NVarChar(_) => 231,
            Kind::NChar(_) => 239,
            Kind::Foreign(_) => 240,
            Kind::Xml => 241,
        }
    }

    /// As it is kept apart among types of one system type.
    pub fn user_id(self) -> i64 {
        match self {
            Kind::Foreign("hierarchyid") => 128,
            Kind::Foreign("geometry") => 129,
            Kind::Foreign("geography") => 130,
            kind => kind.system_id(),
        }
    }

    /// Every type, once, for `sys.types`.
    pub fn all() -> Vec<Kind> {
        vec![
            Kind::Image,
            Kind::Text,
            Kind::Guid,
            Kind::Date,
            Kind::Time(7),
            Kind::DateTime2(7),
            Kind::DateTimeOffset(7),
            Kind::TinyInt,
            Kind::SmallInt,
            Kind::Int,
            Kind::SmallDateTime,
            Kind::Real,
            Kind::Money,
            Kind::DateTime,
            Kind::Float,
            Kind::Foreign("sql_variant"),
            Kind::NText,
            Kind::Bit,
            Kind::Decimal { precision: 38, scale: 38 },
            Kind::Numeric { precision: 38, scale: 38 },
            Kind::SmallMoney,
            Kind::BigInt,
            Kind::Foreign("hierarchyid"),
            Kind::Foreign("geometry"),
            Kind::Foreign("geography"),
            Kind::VarBinary(Some(8000)),
            Kind::VarChar(Some(8000)),
            Kind::Binary(8000),
            Kind::Char(8000),
            Kind::RowVersion,
            Kind::NVarChar(Some(4000)),
            Kind::NChar(4000),
            Kind::Xml,
        ]
    }

    /// A type by its name and what stands in brackets behind it; `max` is −1.
    pub fn named(name: &str, arguments: &[i64]) -> Result<Kind, SqlError> {
        let first = arguments.first().copied();
        let length = |most: i64, usual: u16| -> Result<Option<u16>, SqlError> {
            match first {
                None => Ok(Some(usual)),
                Some(-1) => Ok(None),
                Some(n) if (1..=most).contains(&n) => Ok(u16::try_from(n).ok()),
                Some(n) => {
                    Err(SqlError::new(131, format!("The size ({n}) given to the type '{name}' exceeds {most}.")))
                }
            }
        };
        let fixed = |most: i64| -> Result<u16, SqlError> {
            length(most, 1)?.ok_or_else(|| SqlError::new(102, format!("Incorrect syntax near 'max' of {name}.")))
        };
        let scale = || -> Result<u8, SqlError> {
            match first.unwrap_or(7) {
                n @ 0..=7 => Ok(n as u8),
                n => Err(SqlError::new(1002, format!("Line 1: Specified scale {n} is invalid."))),
            }
        };
        let decimal = || -> Result<(u8, u8), SqlError> {
            let precision = first.unwrap_or(18);
            let scale = arguments.get(1).copied().unwrap_or(0);
            if !(1..=38).contains(&precision) || !(0..=precision).contains(&scale) {
                return Err(SqlError::new(
                    2750,
                    format!("Column or parameter: Specified column precision {precision} or scale {scale} is invalid."),
                ));
            }
            Ok((precision as u8, scale as u8))
        };
        Ok(match name.to_ascii_lowercase().as_str() {
            "bit" => Kind::Bit,
            "tinyint" => Kind::TinyInt,
            "smallint" => Kind::SmallInt,
            "int" | "integer" => Kind::Int,
            "bigint" => Kind::BigInt,
            "decimal" | "dec" => decimal().map(|(precision, scale)| Kind::Decimal { precision, scale })?,
            "numeric" => decimal().map(|(precision, scale)| Kind::Numeric { precision, scale })?,
            "money" => Kind::Money,
            "smallmoney" => Kind::SmallMoney,
            "real" => Kind::Real,
            "float" => {
                if first.is_some_and(|bits| bits <= 24) {
                    Kind::Real
                } else {
                    Kind::Float
                }
            }
            "char" | "character" => Kind::Char(fixed(8000)?),
            "varchar" => Kind::VarChar(length(8000, 1)?),
            "nchar" => Kind::NChar(fixed(4000)?),
            "nvarchar" => Kind::NVarChar(length(4000, 1)?),
            "sysname" => Kind::NVarChar(Some(128)),
            "text" => Kind::Text,
            "ntext" => Kind::NText,
            "image" => Kind::Image,
            "binary" => Kind::Binary(fixed(8000)?),
            "varbinary" => Kind::VarBinary(length(8000, 1)?),
            "date" => Kind::Date,
            "time" => Kind::Time(scale()?),
            "datetime" => Kind::DateTime,
            "smalldatetime" => Kind::SmallDateTime,
            "datetime2" => Kind::DateTime2(scale()?),
            "datetimeoffset" => Kind::DateTimeOffset(scale()?),
            "uniqueidentifier" => Kind::Guid,
            "xml" => Kind::Xml,
            "rowversion" | "timestamp" => Kind::RowVersion,
            "sql_variant" => Kind::Foreign("sql_variant"),
            "hierarchyid" => Kind::Foreign("hierarchyid"),
            "geometry" => Kind::Foreign("geometry"),
            "geography" => Kind::Foreign("geography"),
            other => return Err(SqlError::new(2715, format!("Cannot find data type {other}."))),
        })
    }
}

/// Bytes of a decimal on the line, its sign among them.
pub fn decimal_bytes(precision: u8) -> u8 {
    match precision {
        0..=9 => 5,
        10..=19 => 9,
        20..=28 => 13,
        _ => 17,
    }
}

pub fn time_bytes(scale: u8) -> u8 {
    match scale {
        0..=2 => 3,
        3 | 4 => 4,
        _ => 5,
    }
}

fn widest(a: Kind, b: Kind) -> Kind {
    let whole = (a.precision() - a.scale()).max(b.precision() - b.scale());
    let scale = a.scale().max(b.scale());
    let precision = (whole + scale).min(38);
    Kind::Decimal { precision, scale: scale.min(precision) }
}

fn joined_text(a: Kind, b: Kind) -> Kind {
    let unicode = a.is_unicode() || b.is_unicode();
    let length = match (a.length(), b.length()) {
        (Some(a), Some(b)) => Some(a.max(b).min(if unicode { 4000 } else { 8000 })),
        _ => None,
    };
    if unicode { Kind::NVarChar(length) } else { Kind::VarChar(length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_declared_as_they_are_named() {
        for (name, arguments, declared) in [
            ("DECIMAL", vec![38, 10], "decimal(38,10)"),
            ("nvarchar", vec![-1], "nvarchar(max)"),
            ("varchar", vec![], "varchar(1)"),
            ("datetime2", vec![], "datetime2(7)"),
            ("rowversion", vec![], "timestamp"),
        ] {
            assert_eq!(Kind::named(name, &arguments).expect("a type").declared(), declared);
        }
        for (name, arguments) in [("nvarchar", vec![4001]), ("decimal", vec![39]), ("time", vec![8]), ("json", vec![])]
        {
            assert!(Kind::named(name, &arguments).is_err(), "{name} {arguments:?}");
        }
    }

    #[test]
    fn two_sides_meet_in_a_type_that_holds_both() {
        let meet = |a: Kind, b: Kind| Type::of(a).common(Type::of(b)).kind;
        let decimal = |precision, scale| Kind::Decimal { precision, scale };
        assert_eq!(meet(Kind::Int, Kind::BigInt), Kind::BigInt);
        assert_eq!(meet(Kind::BigInt, decimal(5, 2)), decimal(21, 2));
        assert_eq!(meet(decimal(10, 8), decimal(10, 0)), decimal(18, 8));
        assert_eq!(meet(Kind::VarChar(Some(5)), Kind::NVarChar(None)), Kind::NVarChar(None));
        assert_eq!(meet(Kind::NVarChar(Some(5)), Kind::Int), Kind::Int);
    }
}
