//! The types of PostgreSQL's columns that this format carries, as text in a small grammar: `numeric(18,2)`,
//! `int4[]`, `range<timestamptz>`, `composite<text,date>`. A text has one type and a type one text; both are
//! bounded in length and depth when read. Domains travel as their base types.

use crate::limits::{NATIVE_BYTES_MAX, NATIVE_DEPTH_MAX};
use crate::schema::ContractType;
use std::fmt;
use std::str::FromStr;

/// A column's type in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NativeType {
    Plain(Plain),
    /// With precision and scale, where they are declared.
    Numeric(Option<(u16, i16)>),
    Varchar(Option<u32>),
    Bpchar(Option<u32>),
    Bit(u32),
    Varbit(Option<u32>),
    /// A time of any kind, or an interval, with so many digits of a second as are declared.
    Timed(Plain, u8),
    /// Of any dimension.
    Array(Box<NativeType>),
    Range(Box<NativeType>),
    Multirange(Box<NativeType>),
    Composite(Vec<NativeType>),
}

macro_rules! plain {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// A type without parameters.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Plain { $($name),* }

        impl Plain {
            /// All of them.
            pub const ALL: &[Plain] = &[$(Plain::$name),*];
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

plain! {
    Bool = "bool", Int2 = "int2", Int4 = "int4", Int8 = "int8", Float4 = "float4", Float8 = "float8", Money = "money",
    Text = "text", Char = "\"char\"", Name = "name", Bytea = "bytea", Date = "date", Time = "time", Timetz = "timetz",
    Timestamp = "timestamp", Timestamptz = "timestamptz", Interval = "interval", Uuid = "uuid", Json = "json",
    Jsonb = "jsonb", Xml = "xml", Inet = "inet", Cidr = "cidr", Macaddr = "macaddr", Macaddr8 = "macaddr8",
    Oid = "oid", PgLsn = "pg_lsn", Xid8 = "xid8", Point = "point", Line = "line", Lseg = "lseg", Box = "box",
    Path = "path", Polygon = "polygon", Circle = "circle", Tsvector = "tsvector", Tsquery = "tsquery",
    Jsonpath = "jsonpath", Enum = "enum",
}

impl NativeType {
    /// What the type means to a contract; where nothing else fits, the text that the server writes.
    pub fn contract_type(&self) -> ContractType {
        match self {
            Self::Plain(plain) | Self::Timed(plain, _) => match plain {
                Plain::Bool => ContractType::Boolean,
                Plain::Int2 | Plain::Int4 | Plain::Int8 | Plain::Oid => ContractType::Integer,
                Plain::Float4 | Plain::Float8 => ContractType::Float,
                Plain::Bytea => ContractType::Bytes,
                Plain::Date => ContractType::Date,
                Plain::Timestamp | Plain::Timestamptz => ContractType::Timestamp,
                Plain::Json | Plain::Jsonb => ContractType::Json,
                _ => ContractType::Text,
            },
            Self::Numeric(Some((precision, scale))) => match decimal(*precision, *scale) {
                Some((precision, scale)) => ContractType::Decimal { precision, scale },
                None => ContractType::Number,
            },
            Self::Numeric(None) => ContractType::Number,
            Self::Bpchar(_) => ContractType::Char,
            _ => ContractType::Text,
        }
    }
    /// The type without parameters that this is, whatever precision it has.
    pub fn plain(&self) -> Option<Plain> {
        match self {
            Self::Plain(plain) | Self::Timed(plain, _) => Some(*plain),
            _ => None,
        }
    }
    /// Levels of types within types; a plain type has one.
    fn depth(&self) -> usize {
        match self {
            Self::Array(inner) | Self::Range(inner) | Self::Multirange(inner) => 1 + inner.depth(),
            Self::Composite(fields) => 1 + fields.iter().map(Self::depth).max().unwrap_or(0),
            _ => 1,
        }
    }
}

/// Precision and scale that a contract's decimal has; none for what PostgreSQL has beyond.
fn decimal(precision: u16, scale: i16) -> Option<(u8, i8)> {
    let (precision, scale) = (u8::try_from(precision).ok()?, i8::try_from(scale).ok()?);
    let max = crate::batch::DECIMAL_DIGITS_MAX;
    (precision <= max && scale >= -(max as i8) && i16::from(scale) <= i16::from(precision))
        .then_some((precision, scale))
}

impl fmt::Display for NativeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sized = |f: &mut fmt::Formatter<'_>, name: &str, size: Option<u32>| match size {
            Some(size) => write!(f, "{name}({size})"),
            None => f.write_str(name),
        };
        match self {
            Self::Plain(plain) => f.write_str(plain.as_str()),
            Self::Numeric(None) => f.write_str("numeric"),
            Self::Numeric(Some((precision, scale))) => write!(f, "numeric({precision},{scale})"),
            Self::Varchar(size) => sized(f, "varchar", *size),
            Self::Bpchar(size) => sized(f, "bpchar", *size),
            Self::Bit(size) => sized(f, "bit", Some(*size)),
            Self::Varbit(size) => sized(f, "varbit", *size),
            Self::Timed(plain, digits) => write!(f, "{}({digits})", plain.as_str()),
            Self::Array(element) => write!(f, "{element}[]"),
            Self::Range(bound) => write!(f, "range<{bound}>"),
            Self::Multirange(bound) => write!(f, "multirange<{bound}>"),
            Self::Composite(fields) => {
                f.write_str("composite<")?;
                for (index, field) in fields.iter().enumerate() {
                    write!(f, "{}{field}", if index == 0 { "" } else { "," })?;
                }
                f.write_str(">")
            }
        }
    }
}

/// Why a text is no type of this grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no type that can be carried")]
pub struct NativeError(String);

impl FromStr for NativeType {
    type Err = NativeError;

    fn from_str(text: &str) -> Result<Self, NativeError> {
        let wrong = || NativeError(text.chars().take(SHOWN_CHARS).collect());
        if text.len() > NATIVE_BYTES_MAX {
            return Err(wrong());
        }
        let mut parser = Parser { rest: text };
        let native = parser.native(NATIVE_DEPTH_MAX).filter(|native| native.depth() <= NATIVE_DEPTH_MAX);
        native.filter(|_| parser.rest.is_empty()).ok_or_else(wrong)
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn native(&mut self, depth: usize) -> Option<NativeType> {
        let depth = depth.checked_sub(1)?;
        let mut native = match self.word() {
            "numeric" if self.take("(") => {
                let (precision, _) = (self.number(1, 1_000)?, self.expect(",")?);
                let scale = self.number(-1_000, 1_000)?;
                self.expect(")")?;
                NativeType::Numeric(Some((precision as u16, scale as i16)))
            }
            "numeric" => NativeType::Numeric(None),
            "varchar" => NativeType::Varchar(self.size(CHARS_MAX)?),
            "bpchar" => NativeType::Bpchar(self.size(CHARS_MAX)?),
            "bit" => NativeType::Bit(self.size(BITS_MAX)??),
            "varbit" => NativeType::Varbit(self.size(BITS_MAX)?),
            "range" => NativeType::Range(Box::new(self.inner(depth)?)),
            "multirange" => NativeType::Multirange(Box::new(self.inner(depth)?)),
            "composite" => {
                self.expect("<")?;
                let mut fields = vec![self.native(depth)?];
                while self.take(",") {
                    fields.push(self.native(depth)?);
                }
                self.expect(">")?;
                NativeType::Composite(fields)
            }
            word => {
                let plain = Plain::ALL.iter().copied().find(|plain| plain.as_str() == word)?;
                match plain {
                    Plain::Time | Plain::Timetz | Plain::Timestamp | Plain::Timestamptz | Plain::Interval
                        if self.take("(") =>
                    {
                        let digits = self.number(0, SECOND_DIGITS_MAX)?;
                        self.expect(")")?;
                        NativeType::Timed(plain, digits as u8)
                    }
                    plain => NativeType::Plain(plain),
                }
            }
        };
        let mut left = depth;
        while self.take("[]") {
            left = left.checked_sub(1)?;
            native = NativeType::Array(Box::new(native));
        }
        Some(native)
    }
    fn inner(&mut self, depth: usize) -> Option<NativeType> {
        self.expect("<")?;
        let inner = self.native(depth)?;
        self.expect(">")?;
        Some(inner)
    }
    /// A size in parentheses, or none; fails where there is something else between them.
    fn size(&mut self, max: i32) -> Option<Option<u32>> {
        if !self.take("(") {
            return Some(None);
        }
        let size = self.number(1, max)?;
        self.expect(")")?;
        u32::try_from(size).ok().map(Some)
    }
    fn word(&mut self) -> &'a str {
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '"')));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }
    /// A number written in the one way that numbers are written.
    fn number(&mut self, min: i32, max: i32) -> Option<i32> {
        let end = self.rest.find(|c: char| !(c.is_ascii_digit() || c == '-')).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        let number: i32 = digits.parse().ok()?;
        self.rest = rest;
        ((min..=max).contains(&number) && number.to_string() == digits).then_some(number)
    }
    fn take(&mut self, mark: &str) -> bool {
        let rest = self.rest.strip_prefix(mark);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }
    fn expect(&mut self, mark: &str) -> Option<()> {
        self.take(mark).then_some(())
    }
}

const CHARS_MAX: i32 = 10_485_760;
const BITS_MAX: i32 = 83_886_080;
/// A server of PostgreSQL's family counts in microseconds.
const SECOND_DIGITS_MAX: i32 = 6;
const SHOWN_CHARS: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_reads_back_from_its_own_text() {
        let plain = Plain::ALL.iter().map(|plain| plain.as_str().to_owned());
        let others = [
            "numeric",
            "numeric(1000,-1000)",
            "varchar(18)",
            "varchar",
            "bpchar(2)",
            "bit(1)",
            "varbit",
            "varbit(83886080)",
            "int4[]",
            "\"char\"[]",
            "range<numeric>",
            "multirange<timestamptz>",
            "composite<text,numeric(3,1),box[]>",
            "composite<composite<composite<composite<composite<composite<composite<int4>>>>>>>",
            "range<composite<int4>>[]",
            "timestamp(0)",
            "timestamptz(6)[]",
            "interval(3)",
        ];
        for text in plain.chain(others.map(str::to_owned)) {
            assert_eq!(text.parse::<NativeType>().map(|native| native.to_string()), Ok(text));
        }
    }

    #[test]
    fn what_is_not_written_in_the_one_way_is_no_type() {
        let deep = format!("{}int4{}", "range<".repeat(8), ">".repeat(8));
        let wide = format!("composite<{}int4>", "int4,".repeat(NATIVE_BYTES_MAX));
        for text in [
            "",
            "int",
            "INT4",
            " int4",
            "int4 ",
            "numeric(3)",
            "numeric(03,1)",
            "numeric(3, 1)",
            "numeric(0,0)",
            "numeric(1001,0)",
            "numeric(3,-0)",
            "varchar(0)",
            "varchar()",
            "bit",
            "bit(-1)",
            "bit(99999999999)",
            "range",
            "range<>",
            "range<int4",
            "composite<>",
            "composite<int4,>",
            "char",
            "int4[][][][][][][][]",
            "domain<int4>",
            "timestamp(7)",
            "timestamp()",
            "date(3)",
            deep.as_str(),
            wide.as_str(),
        ] {
            assert!(text.parse::<NativeType>().is_err(), "{text}");
        }
    }

    #[test]
    fn decimals_are_those_that_38_digits_hold() {
        let contract = |text: &str| text.parse::<NativeType>().unwrap().contract_type();
        assert_eq!(contract("numeric(38,-38)"), ContractType::Decimal { precision: 38, scale: -38 });
        for text in ["numeric", "numeric(39,0)", "numeric(3,4)", "numeric(3,-39)"] {
            assert_eq!(contract(text), ContractType::Number, "{text}");
        }
        assert_eq!(contract("bpchar"), ContractType::Char);
        assert_eq!(contract("int4[]"), ContractType::Text);
    }
}
