//! Whether a table's columns can hold what a contract promises, and how each value has to be given to its column so that
//! it is read back as the same. What a server would round, pad, shorten or take for something else without a word is
//! known here, and refused where it is written.

use super::catalog::{Column, Relation, is_bytes, is_spatial};
use crate::types;
use posthouse_protocol::problem::Problem;
use posthouse_protocol::schema::{Contract, ContractType, Item};

/// How a column keeps what it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Keep {
    Plain,
    /// So many bits, as one number.
    Bits(u64),
    /// Only what 24 bits of a fraction hold.
    Single,
    /// Blanks at the end are cut off.
    Unpadded,
    /// Bytes are filled up to this length.
    Filled(u64),
    /// Digits of a second's fraction; more would be rounded.
    Fraction(u32),
    /// A time of day or a span, with its digits.
    Time(u32),
    /// Numbers of two digits are taken for others.
    Year,
    /// Numbers within a JSON text are kept as doubles.
    Doubles,
    /// One of these, as it is written here.
    Labels(Vec<String>),
    /// Some of these, in this order.
    Set(Vec<String>),
    /// Digits before and behind the point; more would be rounded.
    Digits(u64, u64),
}

impl Keep {
    pub(super) fn of(item: &Item, column: &Column) -> Self {
        match (column.r#type.as_str(), item.r#type) {
            ("bit", _) => Self::Bits(column.precision.max(1)),
            ("float", _) => Self::Single,
            ("char", ContractType::Text | ContractType::Json | ContractType::Number) => Self::Unpadded,
            ("binary", _) => Self::Filled(column.length),
            ("datetime" | "timestamp", _) => Self::Fraction(column.fraction),
            ("time", _) => Self::Time(column.fraction),
            ("year", _) => Self::Year,
            ("json", _) => Self::Doubles,
            ("enum", _) => Self::Labels(column.labels()),
            ("set", _) => Self::Set(column.labels()),
            ("decimal" | "numeric", ContractType::Number) => {
                Self::Digits(column.precision.saturating_sub(column.scale), column.scale)
            }
            _ => Self::Plain,
        }
    }
}

/// Refuses a target whose columns cannot hold the contract's.
pub(super) fn check_drift(contract: &Contract, target: &Relation) -> Result<(), Problem> {
    let mut why = Vec::new();
    for item in &contract.items {
        match target.column(&item.name) {
            None => why.push(format!("`{}` is missing in the table", item.name)),
            Some(column) if column.generated => why.push(format!("`{}` is computed by the table", item.name)),
            Some(column) if !carries(item.r#type, column) => why.push(format!(
                "`{}` is {} in the resource and {} in the table",
                item.name,
                types::type_name(item.r#type),
                column.declared
            )),
            Some(_) => {}
        }
    }
    for column in target.columns.iter().filter(|column| contract.position(&column.name).is_none()) {
        if column.not_null && !column.has_default && !column.auto_increment && !column.generated {
            why.push(format!("`{}` is in the table only, and takes neither NULL nor a default", column.name));
        }
    }
    if why.is_empty() {
        return Ok(());
    }
    Err(types::drift(&target.name.to_string(), &types::schema_text(contract), &text(target), &why.join("; ")))
}

/// Whether a column keeps every value that it takes of a type; one that it does not take is refused by itself.
fn carries(wanted: ContractType, column: &Column) -> bool {
    let r#type = column.r#type.as_str();
    let is_whole = matches!(r#type, "tinyint" | "smallint" | "mediumint" | "int" | "integer" | "bigint");
    match wanted {
        ContractType::Boolean => r#type == "tinyint" || (r#type == "bit" && column.precision <= 1),
        ContractType::Integer => is_whole || matches!(r#type, "year" | "bit"),
        ContractType::Decimal { precision, scale } => match r#type {
            "decimal" | "numeric" => {
                let (there, behind) = (column.precision as i64, column.scale as i64);
                behind >= i64::from(scale) && there - behind >= i64::from(precision) - i64::from(scale)
            }
            "bigint" | "bit" => scale <= 0 && i64::from(precision) - i64::from(scale) <= 20,
            _ => false,
        },
        // One that declares digits, `double(10,2)`, rounds to them without a word.
        ContractType::Float => matches!(r#type, "double" | "real" | "float") && !column.declared.contains('('),
        ContractType::Text => column.is_text() || matches!(r#type, "enum" | "set" | "time"),
        ContractType::Char => column.is_text(),
        ContractType::Bytes => is_bytes(r#type) || is_spatial(r#type),
        ContractType::Date => r#type == "date",
        ContractType::Timestamp => matches!(r#type, "datetime" | "timestamp"),
        ContractType::Json => r#type == "json" || column.is_text(),
        ContractType::Number => matches!(r#type, "decimal" | "numeric") || column.is_text(),
    }
}

/// Columns on one line, as the table declares them.
fn text(target: &Relation) -> String {
    let column = |column: &Column| {
        let null = if column.not_null { " not null" } else { "" };
        format!("{} {}{null}", column.name, column.declared)
    };
    target.columns.iter().map(column).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_that_would_round_carries_nothing() {
        let column = |r#type: &str, declared: &str| Column {
            r#type: r#type.to_owned(),
            declared: declared.to_owned(),
            ..Column::default()
        };
        assert!(carries(ContractType::Float, &column("double", "double")));
        assert!(carries(ContractType::Float, &column("double", "double unsigned")));
        assert!(!carries(ContractType::Float, &column("double", "double(10,2)")));
        assert!(!carries(ContractType::Float, &column("float", "float(7,3) unsigned")));
        assert!(!carries(ContractType::Float, &column("decimal", "decimal(38,10)")));
    }
}
