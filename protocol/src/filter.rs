//! Posthouse's own small row-filter language, as it stands in a grant: column, `= <> < <= > >=`,
//! IN, BETWEEN, IS NULL, AND, OR, NOT, typed literals. Never SQL text from a peer.
//! A filter is within its limits and well formed however it was made: parsed from text or read as CBOR.
//! Reading text is `parse`; what a row makes of it is `evaluate`; SQL with bound parameters is `sql`.

mod evaluate;
mod parse;
mod sql;

pub use evaluate::{EvaluateError, Value};
pub use parse::FilterError;

use crate::limits;
use crate::schema::{Contract, ContractType};
use minicbor::{Decode, Encode};
use std::fmt;

/// A typed literal.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Literal {
    #[n(0)]
    Boolean(#[n(0)] bool),
    #[n(1)]
    Integer(#[n(0)] i64),
    /// Exact, as written: `-12.50`.
    #[n(2)]
    Decimal(#[n(0)] String),
    #[n(3)]
    Text(#[n(0)] String),
    /// days since 1970-01-01
    #[n(4)]
    Date(#[n(0)] i32),
    /// µs UTC
    #[n(5)]
    Timestamp(#[n(0)] i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Comparison {
    #[n(0)]
    Equal,
    #[n(1)]
    NotEqual,
    #[n(2)]
    Less,
    #[n(3)]
    LessOrEqual,
    #[n(4)]
    Greater,
    #[n(5)]
    GreaterOrEqual,
}

impl Comparison {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

/// A filter; depth and size are bounded by `limits`. What it says of a row is true, false or unknown;
/// only rows for which it is true pass.
#[derive(Debug, Clone, PartialEq, Eq, Encode)]
pub enum Filter {
    #[n(0)]
    Compare(#[n(0)] String, #[n(1)] Comparison, #[n(2)] Literal),
    #[n(1)]
    In(#[n(0)] String, #[n(1)] Vec<Literal>),
    #[n(2)]
    Between(#[n(0)] String, #[n(1)] Literal, #[n(2)] Literal),
    #[n(3)]
    IsNull(#[n(0)] String),
    #[n(4)]
    And(#[n(0)] Vec<Filter>),
    #[n(5)]
    Or(#[n(0)] Vec<Filter>),
    #[n(6)]
    Not(#[n(0)] Box<Filter>),
}

impl Filter {
    /// Reads the language; the error names the place.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        parse::parse(text)
    }

    /// The columns it names, sorted, each once.
    pub fn columns(&self) -> Vec<&str> {
        let mut columns = std::collections::BTreeSet::new();
        self.visit(&mut |filter| {
            if let Self::Compare(column, ..) | Self::In(column, _) | Self::Between(column, ..) | Self::IsNull(column) =
                filter
            {
                columns.insert(column.as_str());
            }
        });
        columns.into_iter().collect()
    }

    /// The same over columns that are called otherwise.
    #[must_use]
    pub fn renamed(&self, name: &dyn Fn(&str) -> String) -> Self {
        let each = |all: &[Self]| all.iter().map(|filter| filter.renamed(name)).collect();
        match self {
            Self::Compare(column, comparison, literal) => Self::Compare(name(column), *comparison, literal.clone()),
            Self::In(column, literals) => Self::In(name(column), literals.clone()),
            Self::Between(column, low, high) => Self::Between(name(column), low.clone(), high.clone()),
            Self::IsNull(column) => Self::IsNull(name(column)),
            Self::And(all) => Self::And(each(all)),
            Self::Or(all) => Self::Or(each(all)),
            Self::Not(inner) => Self::Not(Box::new(inner.renamed(name))),
        }
    }

    /// Whether it can be applied to rows of this contract: its columns exist and have comparable types.
    pub fn check(&self, contract: &Contract) -> Result<(), EvaluateError> {
        let mut result = Ok(());
        self.visit(&mut |filter| {
            let found = match filter {
                Self::Compare(column, _, literal) => check_column(contract, column, std::slice::from_ref(literal)),
                Self::In(column, literals) => check_column(contract, column, literals),
                Self::Between(column, low, high) => check_column(contract, column, &[low.clone(), high.clone()]),
                Self::IsNull(column) => check_column(contract, column, &[]),
                Self::And(_) | Self::Or(_) | Self::Not(_) => Ok(()),
            };
            if result.is_ok() {
                result = found;
            }
        });
        result
    }

    /// Levels of the tree; a comparison alone has one.
    fn depth(&self) -> usize {
        match self {
            Self::And(all) | Self::Or(all) => 1 + all.iter().map(Self::depth).max().unwrap_or(0),
            Self::Not(inner) => 1 + inner.depth(),
            Self::Compare(..) | Self::In(..) | Self::Between(..) | Self::IsNull(_) => 1,
        }
    }

    fn visit<'a>(&'a self, see: &mut dyn FnMut(&'a Self)) {
        see(self);
        match self {
            Self::And(all) | Self::Or(all) => all.iter().for_each(|filter| filter.visit(see)),
            Self::Not(inner) => inner.visit(see),
            Self::Compare(..) | Self::In(..) | Self::Between(..) | Self::IsNull(_) => {}
        }
    }

    /// How tightly it binds when written: a part that binds less tightly than its place needs parentheses.
    fn binding(&self) -> u8 {
        match self {
            Self::Or(_) => 0,
            Self::And(_) => 1,
            Self::Not(_) => 2,
            Self::Compare(..) | Self::In(..) | Self::Between(..) | Self::IsNull(_) => 3,
        }
    }

    fn fmt_at(&self, place: u8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.binding() < place {
            f.write_str("(")?;
            self.fmt_at(0, f)?;
            return f.write_str(")");
        }
        match self {
            Self::Compare(column, comparison, literal) => {
                write!(f, "{} {} {literal}", Column(column), comparison.as_str())
            }
            Self::In(column, literals) => {
                write!(f, "{} IN (", Column(column))?;
                for (i, literal) in literals.iter().enumerate() {
                    write!(f, "{}{literal}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str(")")
            }
            Self::Between(column, low, high) => write!(f, "{} BETWEEN {low} AND {high}", Column(column)),
            Self::IsNull(column) => write!(f, "{} IS NULL", Column(column)),
            Self::And(all) => fmt_joined(all, " AND ", 2, f),
            Self::Or(all) => fmt_joined(all, " OR ", 1, f),
            Self::Not(inner) => {
                f.write_str("NOT ")?;
                inner.fmt_at(2, f)
            }
        }
    }

    fn decode_at(d: &mut minicbor::Decoder<'_>, depth: usize) -> Result<Self, minicbor::decode::Error> {
        let wrong = minicbor::decode::Error::message;
        if depth > limits::FILTER_DEPTH_MAX {
            return Err(wrong("the filter is nested too deeply"));
        }
        if d.array()? != Some(2) {
            return Err(wrong("no filter"));
        }
        let (variant, fields) = (d.u32()?, d.array()?);
        let column = |d: &mut minicbor::Decoder<'_>| match d.str()? {
            "" => Err(wrong("a column has a name")),
            name => Ok(name.to_owned()),
        };
        let filter = match (variant, fields) {
            (0, Some(3)) => Self::Compare(column(d)?, d.decode()?, d.decode()?),
            (1, Some(2)) => Self::In(column(d)?, d.decode()?),
            (2, Some(3)) => Self::Between(column(d)?, d.decode()?, d.decode()?),
            (3, Some(1)) => Self::IsNull(column(d)?),
            (4 | 5, Some(1)) => {
                let count = d.array()?.filter(|n| *n >= 2).ok_or_else(|| wrong("AND and OR join two or more"))?;
                let mut all = Vec::new();
                for _ in 0..count {
                    all.push(Self::decode_at(d, depth + 1)?);
                }
                if variant == 4 { Self::And(all) } else { Self::Or(all) }
            }
            (6, Some(1)) => Self::Not(Box::new(Self::decode_at(d, depth + 1)?)),
            _ => return Err(wrong("an unknown kind of filter")),
        };
        match &filter {
            Self::In(_, literals) if literals.is_empty() => Err(wrong("IN names no values")),
            Self::Compare(_, _, literal) if !literal.is_valid() => Err(wrong("the literal is not valid")),
            Self::Between(_, low, high) if !low.is_valid() || !high.is_valid() => {
                Err(wrong("the literal is not valid"))
            }
            Self::In(_, literals) if !literals.iter().all(Literal::is_valid) => Err(wrong("the literal is not valid")),
            _ => Ok(filter),
        }
    }
}

impl<'b, C> Decode<'b, C> for Filter {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::decode_at(d, 1)
    }
}

impl fmt::Display for Filter {
    /// Text that parses back to the same filter.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_at(0, f)
    }
}

fn fmt_joined(all: &[Filter], joint: &str, place: u8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (i, filter) in all.iter().enumerate() {
        if i > 0 {
            f.write_str(joint)?;
        }
        filter.fmt_at(place, f)?;
    }
    Ok(())
}

impl Literal {
    /// A decimal is digits with one point, and dates and times are ones that can be written.
    pub(crate) fn is_valid(&self) -> bool {
        match self {
            Self::Decimal(text) => parse::is_decimal(text),
            Self::Date(days) => parse::date(*days).is_some(),
            Self::Timestamp(us) => jiff::Timestamp::from_microsecond(*us).is_ok(),
            Self::Boolean(_) | Self::Integer(_) | Self::Text(_) => true,
        }
    }
    fn kind(&self) -> &'static str {
        match self {
            Self::Boolean(_) => "boolean",
            Self::Integer(_) => "integer",
            Self::Decimal(_) => "decimal",
            Self::Text(_) => "text",
            Self::Date(_) => "date",
            Self::Timestamp(_) => "timestamp",
        }
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => f.write_str(if *value { "TRUE" } else { "FALSE" }),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Decimal(text) => f.write_str(text),
            Self::Text(text) => write!(f, "'{}'", text.replace('\'', "''")),
            Self::Date(days) => match parse::date(*days) {
                Some(date) => write!(f, "DATE '{date}'"),
                None => write!(f, "DATE '{days}'"),
            },
            Self::Timestamp(us) => match jiff::Timestamp::from_microsecond(*us) {
                Ok(time) => write!(f, "TIMESTAMP '{time}'"),
                Err(_) => write!(f, "TIMESTAMP '{us}'"),
            },
        }
    }
}

/// A column's name as it must be written to be read back.
struct Column<'a>(&'a str);

impl fmt::Display for Column<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if parse::is_plain_name(self.0) {
            f.write_str(self.0)
        } else {
            write!(f, "\"{}\"", self.0.replace('"', "\"\""))
        }
    }
}

fn check_column(contract: &Contract, column: &str, literals: &[Literal]) -> Result<(), EvaluateError> {
    let item = contract
        .items
        .iter()
        .find(|item| item.name == column)
        .ok_or_else(|| EvaluateError::UnknownColumn(column.to_owned()))?;
    for literal in literals {
        let comparable = matches!(
            (item.r#type, literal),
            (ContractType::Boolean, Literal::Boolean(_))
                | (
                    ContractType::Integer | ContractType::Decimal { .. } | ContractType::Number | ContractType::Float,
                    Literal::Integer(_) | Literal::Decimal(_)
                )
                | (ContractType::Text | ContractType::Char, Literal::Text(_))
                | (ContractType::Date, Literal::Date(_))
                | (ContractType::Timestamp, Literal::Timestamp(_))
        );
        if !comparable {
            return Err(EvaluateError::Incomparable { column: column.to_owned(), literal: literal.kind() });
        }
    }
    Ok(())
}
