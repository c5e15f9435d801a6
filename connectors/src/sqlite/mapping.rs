//! What the types that SQLite's tables declare mean elsewhere, and what other engines' types become here: one list, read
//! by the functions that tables are read and made with.

use super::columns;
use crate::mapping::{Edge, Made, Mapping, Native};
use posthouse_protocol::schema::ContractType;

pub(super) fn mapping() -> Mapping {
    let native = |(declared, holds): &(&str, &'static [Edge])| Native {
        declared: (*declared).to_owned(),
        r#type: columns::contract_type(declared),
        holds,
    };
    Mapping { native: NATIVE.iter().map(native).collect(), made }
}

fn made(r#type: ContractType) -> Made {
    let lacks: &'static [Edge] = match r#type {
        ContractType::Float => &[Edge::NotANumber],
        ContractType::Date | ContractType::Timestamp => &[Edge::BeforeYearZero, Edge::AfterYear9999],
        _ => &[],
    };
    Made { declared: Some(columns::declared(r#type)), lacks }
}

/// A column lets in values of any kind, whatever it declares.
const ANY: &[Edge] = &[Edge::OtherKind];
const TEXTS: &[Edge] = &[Edge::Nul, Edge::Undecodable, Edge::OtherKind];
const JSON: &[Edge] = &[Edge::JsonNul, Edge::JsonNumber, Edge::JsonTwice, Edge::OtherKind];

const NATIVE: &[(&str, &[Edge])] = &[
    ("BOOLEAN", ANY),
    ("INTEGER", ANY),
    ("BIGINT", ANY),
    ("DECIMAL(15,2)", ANY),
    ("DECIMAL_TEXT(38,10)", ANY),
    ("DECIMAL", ANY),
    ("NUMBER_TEXT", ANY),
    ("DOUBLE", &[Edge::Infinite, Edge::OtherKind]),
    ("REAL", &[Edge::Infinite, Edge::OtherKind]),
    ("TEXT", TEXTS),
    ("VARCHAR(50)", TEXTS),
    ("CLOB", TEXTS),
    ("TIME", TEXTS),
    ("UUID", TEXTS),
    ("CHAR(18)", &[Edge::Nul, Edge::LongChar, Edge::Undecodable, Edge::OtherKind]),
    ("BLOB", ANY),
    ("DATE", &[Edge::Endless, Edge::YearZero, Edge::OtherKind]),
    ("TIMESTAMP", &[Edge::Endless, Edge::YearZero, Edge::OtherKind, Edge::NoZone]),
    ("DATETIME", &[Edge::Endless, Edge::YearZero, Edge::OtherKind, Edge::NoZone]),
    ("JSON_TEXT", JSON),
    ("JSON", JSON),
    // More digits than a decimal has.
    ("DECIMAL(39,2)", &[]),
];

#[cfg(test)]
mod tests {
    use super::super::values;
    use super::*;
    use crate::charset::Charset;

    #[test]
    fn what_a_made_column_lacks_is_what_its_writer_refuses() {
        crate::mapping::tests::hold(made, &|r#type, value| {
            let affinity = columns::affinity(&columns::declared(r#type));
            values::write(value, affinity, Charset::Utf8, &mut values::Scratch::default()).is_ok()
        });
    }
}
