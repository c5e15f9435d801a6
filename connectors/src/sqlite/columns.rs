//! What a table's columns are: SQLite's declared types as contract types, and contract types as the types
//! that a created table declares. The two agree: a table created from a contract reads back as that contract.

use super::{Faults, quote, quoted};
use crate::types;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::{Contract, ContractType, Item};
use rusqlite::Connection;

/// One column as SQLite has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    /// As written in the table's definition; empty for expressions.
    pub(super) declared: String,
    pub(super) not_null: bool,
    /// Place within the primary key, from 1; 0 outside of it.
    pub(super) key_place: i64,
}

/// How SQLite stores a value that is given to a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Affinity {
    Integer,
    Text,
    Blob,
    Real,
    Numeric,
}

impl Affinity {
    /// Whether a text that looks like a number becomes one.
    pub(super) fn makes_numbers(self) -> bool {
        matches!(self, Self::Integer | Self::Real | Self::Numeric)
    }
}

/// The visible columns of a table or view in order; none where there is no such table. Generated columns are
/// part of what is read; whether they can be written is the caller's question.
pub(super) fn of_table(connection: &Connection, table: &str) -> rusqlite::Result<Option<Vec<Column>>> {
    let mut statement = connection.prepare("SELECT name, type, \"notnull\", pk, hidden FROM pragma_table_xinfo(?1)")?;
    let rows = statement.query_map([table], |row| {
        let column = Column { name: row.get(0)?, declared: row.get(1)?, not_null: row.get(2)?, key_place: row.get(3)? };
        Ok((column, row.get::<_, i64>(4)?))
    })?;
    let mut columns = Vec::new();
    for row in rows {
        let (column, hidden) = row?;
        if hidden != HIDDEN_OF_VIRTUAL_TABLE {
            columns.push(column);
        }
    }
    Ok(if columns.is_empty() { None } else { Some(columns) })
}

/// Names of columns that are computed and cannot be written.
pub(super) fn generated(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_xinfo(?1) WHERE hidden IN (2, 3)")?;
    statement.query_map([table], |row| row.get(0))?.collect()
}

/// The affinity of a declared type, by SQLite's own five rules.
pub(super) fn affinity(declared: &str) -> Affinity {
    let declared = declared.to_ascii_uppercase();
    let has = |part: &str| declared.contains(part);
    if has("INT") {
        Affinity::Integer
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        Affinity::Text
    } else if has("BLOB") || declared.is_empty() {
        Affinity::Blob
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        Affinity::Real
    } else {
        Affinity::Numeric
    }
}

/// The contract type of a declared type; none where nothing is declared.
pub(super) fn contract_type(declared: &str) -> Option<ContractType> {
    let upper = declared.to_ascii_uppercase();
    let base = upper.split('(').next().unwrap_or("").trim();
    let has = |part: &str| base.contains(part);
    let word = |word: &str| base.split([' ', '_']).any(|part| part == word);
    Some(if base.is_empty() {
        return None;
    } else if has("JSON") {
        ContractType::Json
    } else if base == NUMBER {
        ContractType::Number
    } else if has("BOOL") {
        ContractType::Boolean
    } else if has("DEC") || has("NUMERIC") || has("MONEY") || word("NUMBER") {
        let (precision, scale) = decimal_of(&upper)?;
        ContractType::Decimal { precision, scale }
    } else if has("DATETIME") || has("TIMESTAMP") {
        ContractType::Timestamp
    } else if word("DATE") {
        ContractType::Date
    } else if has("INT") {
        ContractType::Integer
    } else if has("VARCHAR") || has("VARYING") || has("TEXT") || has("CLOB") {
        ContractType::Text
    } else if has("CHAR") {
        ContractType::Char
    } else if has("BLOB") || has("BINARY") || has("BYTEA") {
        ContractType::Bytes
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        ContractType::Float
    } else if word("NUM") {
        // What SQLite itself calls the affinity of an expression.
        ContractType::Decimal { precision: 38, scale: SCALE_DEFAULT }
    } else {
        // `TIME`, `UUID`, `ENUM` and whatever else a table says: text in practice, and checked value by value.
        ContractType::Text
    })
}

/// Precision and scale of `DECIMAL(p,s)`; without them wide enough for what SQLite keeps exactly.
fn decimal_of(upper: &str) -> Option<(u8, i8)> {
    let Some((_, rest)) = upper.split_once('(') else { return Some((38, SCALE_DEFAULT)) };
    let inside = rest.split(')').next()?;
    let mut parts = inside.split(',').map(str::trim);
    let precision: u8 = parts.next()?.parse().ok()?;
    let scale: i8 = parts.next().map_or(Some(0), |scale| scale.parse().ok())?;
    ((1..=38).contains(&precision) && scale <= precision as i8 && scale >= -38).then_some((precision, scale))
}

/// The type that a created table declares for a contract type.
pub(super) fn declared(r#type: ContractType) -> String {
    match r#type {
        ContractType::Boolean => "BOOLEAN".to_owned(),
        ContractType::Integer => "INTEGER".to_owned(),
        // Beyond 15 digits SQLite would keep a double: as text every digit stays.
        ContractType::Decimal { precision, scale } if precision <= EXACT_DIGITS && scale >= 0 => {
            format!("DECIMAL({precision},{scale})")
        }
        ContractType::Decimal { precision, scale } => format!("DECIMAL_TEXT({precision},{scale})"),
        ContractType::Float => "DOUBLE".to_owned(),
        ContractType::Text => "TEXT".to_owned(),
        ContractType::Char => "CHAR".to_owned(),
        ContractType::Bytes => "BLOB".to_owned(),
        ContractType::Date => "DATE".to_owned(),
        ContractType::Timestamp => "TIMESTAMP".to_owned(),
        ContractType::Json => "JSON_TEXT".to_owned(),
        ContractType::Number => NUMBER.to_owned(),
    }
}

/// Whether a column that declares `found` keeps every value of `wanted`.
fn carries(wanted: ContractType, found: &str) -> bool {
    let Some(r#type) = contract_type(found) else { return false };
    match (wanted, r#type) {
        (ContractType::Decimal { precision, scale }, ContractType::Decimal { precision: p, scale: s }) => {
            s >= scale && i16::from(p) - i16::from(s) >= i16::from(precision) - i16::from(scale)
        }
        (ContractType::Text | ContractType::Char, ContractType::Text | ContractType::Char)
        | (ContractType::Boolean, ContractType::Integer)
        | (ContractType::Decimal { .. } | ContractType::Date | ContractType::Timestamp, ContractType::Text)
        | (ContractType::Json | ContractType::Number, ContractType::Text) => true,
        (wanted, found) => wanted == found,
    }
}

/// Refuses a target whose columns are not the contract's.
pub(super) fn check_drift(table: &str, contract: &Contract, columns: &[Column]) -> Result<(), Problem> {
    let mut why = Vec::new();
    for item in &contract.items {
        match columns.iter().find(|column| column.name == item.name) {
            None => why.push(format!("`{}` is missing in the table", item.name)),
            Some(column) if !carries(item.r#type, &column.declared) => why.push(format!(
                "`{}` is {} in the resource and {} in the table",
                item.name,
                types::type_name(item.r#type),
                if column.declared.is_empty() { "without a type" } else { &column.declared }
            )),
            Some(_) => {}
        }
    }
    for column in columns.iter().filter(|column| contract.position(&column.name).is_none()) {
        why.push(format!("`{}` is in the table only", column.name));
    }
    if why.is_empty() {
        return Ok(());
    }
    Err(types::drift(table, &types::schema_text(contract), &text(columns), &why.join("; ")))
}

/// Columns on one line, as the table declares them.
pub(super) fn text(columns: &[Column]) -> String {
    let column = |column: &Column| {
        let null = if column.not_null { " not null" } else { "" };
        format!("{} {}{null}", column.name, column.declared)
    };
    columns.iter().map(column).collect::<Vec<_>>().join(", ")
}

/// The statement that creates a table for a contract.
pub(super) fn create_table(table: &str, contract: &Contract) -> String {
    let item = |item: &Item| {
        let null = if item.nullable && !contract.key.contains(&item.name) { "" } else { " NOT NULL" };
        format!("{} {}{null}", quote(&item.name), declared(item.r#type))
    };
    let mut lines: Vec<String> = contract.items.iter().map(item).collect();
    if !contract.key.is_empty() {
        lines.push(format!("PRIMARY KEY ({})", quoted(contract.key.iter().map(String::as_str))));
    }
    format!("CREATE TABLE {} (\n  {}\n)", quote(table), lines.join(",\n  "))
}

/// Whether exactly these columns are unique in the table, by its primary key or a unique index over all rows.
pub(super) fn is_unique(connection: &Connection, table: &str, key: &[String]) -> rusqlite::Result<bool> {
    let same = |mut columns: Vec<String>| {
        let mut key = key.to_vec();
        columns.sort();
        key.sort();
        columns == key
    };
    let columns = of_table(connection, table)?.unwrap_or_default();
    let primary = columns.iter().filter(|column| column.key_place > 0).map(|column| column.name.clone()).collect();
    if same(primary) {
        return Ok(true);
    }
    let mut indexes =
        connection.prepare("SELECT name FROM pragma_index_list(?1) WHERE \"unique\" = 1 AND partial = 0")?;
    let names: Vec<String> = indexes.query_map([table], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    for name in names {
        let mut columns = connection.prepare("SELECT name FROM pragma_index_info(?1)")?;
        let columns: Vec<Option<String>> =
            columns.query_map([name], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        if columns.into_iter().collect::<Option<Vec<_>>>().is_some_and(same) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The contract type of a column without a declared type, from the values that are there.
pub(super) fn infer(
    connection: &Connection,
    from: &str,
    column: &str,
    faults: &Faults,
) -> Result<ContractType, Problem> {
    let sql = format!("SELECT DISTINCT typeof({0}) FROM {from} WHERE {0} IS NOT NULL ORDER BY 1", quote(column));
    let read = |e| faults.read(e);
    let mut statement = connection.prepare(&sql).map_err(read)?;
    let kinds = statement.query_map([], |row| row.get(0)).map_err(read)?;
    let kinds: Vec<String> = kinds.collect::<rusqlite::Result<_>>().map_err(read)?;
    let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
    match kinds.as_slice() {
        ["integer"] => Ok(ContractType::Integer),
        ["real"] | ["integer", "real"] => Ok(ContractType::Float),
        ["text"] | [] => Ok(ContractType::Text),
        ["blob"] => Ok(ContractType::Bytes),
        mixed => Err(Problem::new(Code::TypeUnsupported)
            .with("column", column)
            .with("type", format!("none declared, values are {}", mixed.join(" and ")))
            .cause("give it one type, in a query with CAST(… AS …)")),
    }
}

/// Digits that a double keeps of any decimal.
pub(super) const EXACT_DIGITS: u8 = 15;
/// Digits behind the point of a decimal column that declares none.
const SCALE_DEFAULT: i8 = 10;
/// Declares a number of any length: by its name SQLite keeps it as text, every digit.
const NUMBER: &str = "NUMBER_TEXT";
const HIDDEN_OF_VIRTUAL_TABLE: i64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_types_are_what_people_mean_by_them() {
        use ContractType::*;
        for (declared, expected) in [
            ("INTEGER", Integer),
            ("bigint unsigned", Integer),
            ("DECIMAL(10,2)", Decimal { precision: 10, scale: 2 }),
            ("numeric( 18 )", Decimal { precision: 18, scale: 0 }),
            ("DECIMAL", Decimal { precision: 38, scale: 10 }),
            ("VARCHAR(18)", Text),
            ("character varying(5)", Text),
            ("nchar(2)", Char),
            ("CHAR(18)", Char),
            ("DATE", Date),
            ("DateTime", Timestamp),
            ("TIMESTAMP", Timestamp),
            ("TIME", Text),
            ("boolean", Boolean),
            ("double precision", Float),
            ("JSON", Json),
            ("BLOB", Bytes),
        ] {
            assert_eq!(contract_type(declared), Some(expected), "{declared}");
        }
        assert_eq!(contract_type(""), None);
        assert_eq!(contract_type("DECIMAL(99,2)"), None);
    }

    #[test]
    fn a_created_table_reads_back_as_its_contract_and_keeps_every_digit() {
        use ContractType::*;
        let decimals = [(15, 2), (16, 2), (38, 38), (38, -5), (1, 0)];
        let decimals = decimals.map(|(precision, scale)| Decimal { precision, scale });
        for r#type in
            [Boolean, Integer, Float, Text, Char, Bytes, Date, Timestamp, Json, Number].into_iter().chain(decimals)
        {
            let declared = declared(r#type);
            assert_eq!(contract_type(&declared), Some(r#type), "{declared}");
            assert!(carries(r#type, &declared));
        }
        assert_eq!(affinity("DECIMAL_TEXT(38,2)"), Affinity::Text);
        assert_eq!(affinity("JSON_TEXT"), Affinity::Text);
        assert_eq!(affinity(NUMBER), Affinity::Text);
    }

    #[test]
    fn a_narrower_decimal_does_not_carry_a_wider_one() {
        let wanted = ContractType::Decimal { precision: 10, scale: 2 };
        assert!(carries(wanted, "DECIMAL(12,3)"));
        assert!(!carries(wanted, "DECIMAL(10,3)"));
        assert!(!carries(wanted, "DECIMAL(12,1)"));
        assert!(!carries(ContractType::Integer, "BOOLEAN"));
    }
}
