//! The statements that make tables: a type for each column, a table for a contract, and the script for the DBA
//! of a database in which the node's account may not create anything.

use super::catalog::{TableName, literal, quote, quoted};
use super::control;
use super::place::Place;
use crate::TableSpec;
use posthouse_protocol::pgcopy::NativeType;
use posthouse_protocol::pgcopy::native::Plain;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::{Contract, ContractType, Item};

/// A column that is to be made.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) name: String,
    /// As SQL has it.
    pub(super) r#type: String,
    pub(super) not_null: bool,
    pub(super) comment: Option<String>,
}

/// The type of a column that is made for rows in their native form, or none where the database has to know a
/// definition of the source's for it. A label of an enumeration is a text, in COPY's binary form too.
pub(super) fn sql_type(native: &NativeType, version: u32) -> Option<String> {
    let since = |first: u32, text: String| (version >= first).then_some(text);
    match native {
        NativeType::Plain(Plain::Enum) => Some("text".to_owned()),
        NativeType::Plain(Plain::Xid8) => since(130_000, native.to_string()),
        NativeType::Plain(Plain::Jsonpath) => since(120_000, native.to_string()),
        NativeType::Plain(Plain::Macaddr8) => since(100_000, native.to_string()),
        // Before 15 a scale lies within the precision; without either every such number has its place.
        NativeType::Numeric(Some((precision, scale)))
            if version < 150_000 && !(0..=*precision as i16).contains(scale) =>
        {
            Some("numeric".to_owned())
        }
        NativeType::Range(bound) => range(bound, "range").map(str::to_owned),
        NativeType::Multirange(bound) => range(bound, "multirange").and_then(|name| since(140_000, name.to_owned())),
        // In the binary form of an array stands the number of its element's type, which is the same everywhere
        // for what comes with the engine only. Arrays of arrays there are none, but of domains over arrays.
        NativeType::Array(element) if matches!(**element, NativeType::Plain(Plain::Enum) | NativeType::Array(_)) => {
            None
        }
        NativeType::Array(element) => sql_type(element, version).map(|element| format!("{element}[]")),
        NativeType::Composite(_) => None,
        plain => Some(plain.to_string()),
    }
}

/// The engine's own range over a type.
fn range(bound: &NativeType, kind: &str) -> Option<&'static str> {
    let NativeType::Plain(bound) = bound else {
        return match (bound, kind) {
            (NativeType::Numeric(_), "range") => Some("numrange"),
            (NativeType::Numeric(_), _) => Some("nummultirange"),
            _ => None,
        };
    };
    Some(match (bound, kind) {
        (Plain::Int4, "range") => "int4range",
        (Plain::Int8, "range") => "int8range",
        (Plain::Date, "range") => "daterange",
        (Plain::Timestamp, "range") => "tsrange",
        (Plain::Timestamptz, "range") => "tstzrange",
        (Plain::Int4, _) => "int4multirange",
        (Plain::Int8, _) => "int8multirange",
        (Plain::Date, _) => "datemultirange",
        (Plain::Timestamp, _) => "tsmultirange",
        (Plain::Timestamptz, _) => "tstzmultirange",
        _ => return None,
    })
}

/// The type that a created column has for a contract type. A time shows the digits that it has at its source,
/// whatever the reader's zone; `jsonb` can be compared.
pub(super) fn of_contract(r#type: ContractType) -> NativeType {
    match r#type {
        ContractType::Boolean => NativeType::Plain(Plain::Bool),
        ContractType::Integer => NativeType::Plain(Plain::Int8),
        ContractType::Decimal { precision, scale } => {
            NativeType::Numeric(Some((u16::from(precision), i16::from(scale))))
        }
        ContractType::Number => NativeType::Numeric(None),
        ContractType::Float => NativeType::Plain(Plain::Float8),
        ContractType::Text => NativeType::Plain(Plain::Text),
        ContractType::Char => NativeType::Bpchar(None),
        ContractType::Bytes => NativeType::Plain(Plain::Bytea),
        ContractType::Date => NativeType::Plain(Plain::Date),
        ContractType::Timestamp => NativeType::Plain(Plain::Timestamp),
        ContractType::Json => NativeType::Plain(Plain::Jsonb),
    }
}

/// How many columns of an index `i` are its key: others are only carried along.
pub(super) fn key_columns(version: u32) -> &'static str {
    if version >= 110_000 { "i.indnkeyatts" } else { "i.indnatts" }
}

/// The columns of a contract with these types, one for each of its items.
pub(super) fn made(contract: &Contract, natives: &[NativeType], version: u32) -> Vec<Made> {
    let column = |(item, native): (&Item, &NativeType)| Made {
        name: item.name.clone(),
        r#type: sql_type(native, version).unwrap_or_else(|| "text".to_owned()),
        not_null: !item.nullable || contract.key.contains(&item.name),
        comment: item.comment.clone(),
    };
    contract.items.iter().zip(natives).map(column).collect()
}

pub(super) fn create_table(name: &TableName, columns: &[Made], more: &[String]) -> String {
    let column = |made: &Made| {
        let null = if made.not_null { " NOT NULL" } else { "" };
        format!("{} {}{null}", quote(&made.name), made.r#type)
    };
    let lines: Vec<String> = columns.iter().map(column).chain(more.iter().cloned()).collect();
    format!("CREATE TABLE {name} (\n  {}\n)", lines.join(",\n  "))
}

pub(super) fn comments(name: &TableName, columns: &[Made]) -> Vec<String> {
    let comment = |made: &Made| {
        let text = made.comment.as_deref().filter(|text| !text.is_empty())?;
        Some(format!("COMMENT ON COLUMN {name}.{} IS {}", quote(&made.name), literal(text)))
    };
    columns.iter().filter_map(comment).collect()
}

pub(super) fn primary_key(key: &[String]) -> Option<String> {
    (!key.is_empty()).then(|| format!("PRIMARY KEY ({})", quoted(key.iter().map(String::as_str))))
}

/// The columns of the table that a landing makes where there is none.
pub(super) fn final_columns(place: &Place, version: u32) -> Vec<Made> {
    let contract = &place.landing.contract;
    let of_contract = || contract.items.iter().map(|item| of_contract(item.r#type)).collect();
    let natives = place.natives.clone().unwrap_or_else(of_contract);
    made(contract, &natives, version)
}

/// The columns of a staging table that is made for all transfers: those of the target, and what a row does.
fn staged_columns(place: &Place, mut columns: Vec<Made>) -> Vec<Made> {
    let more = place.staged.items.iter().skip(columns.len());
    columns.extend(more.map(|item| Made {
        name: item.name.clone(),
        r#type: "text".to_owned(),
        // A transfer whose rows do not say it shares the table.
        not_null: false,
        comment: None,
    }));
    columns
}

/// What a DBA runs, so that an account can read these tables and land those with no right to create anything: the
/// rights on what it reads; of each landing the target, a staging table for the job, the two tables beside it, and
/// the rights on them.
pub(super) fn script(account: &str, reads: &[TableSpec], places: &[Place]) -> Result<String, Problem> {
    let account = quote(account);
    let mut lines: Vec<String> = Vec::new();
    let mut say = |line: String| {
        if !lines.contains(&line) {
            lines.push(line);
        }
    };
    for read in reads {
        match read.table.as_deref().map(|table| TableName::parse(table).ok_or(table)) {
            Some(Ok(name)) => {
                say(format!("GRANT USAGE ON SCHEMA {} TO {account};", quote(&name.schema)));
                say(format!("GRANT SELECT ON {name} TO {account};"));
            }
            Some(Err(table)) => {
                let cause = format!("`{table}` is no table's name: write `schema.table`");
                return Err(Problem::new(Code::SourceFailed).with("resource", &read.resource).cause(cause));
            }
            None => say(format!(
                "-- {} is a query: GRANT SELECT on each table it names. 该资源为查询，请对其涉及的每张表授予 SELECT。",
                read.resource
            )),
        }
    }
    for place in places {
        landing(place, &account).into_iter().for_each(|line| say(format!("{line};")));
    }
    Ok(lines.into_iter().map(|line| line + "\n").collect())
}

fn landing(place: &Place, account: &str) -> Vec<String> {
    let contract = &place.landing.contract;
    let columns = final_columns(place, NEWEST);
    let mut lines = vec![format!("CREATE SCHEMA IF NOT EXISTS {}", quote(&place.control))];
    let again = |create: String| create.replacen("CREATE TABLE ", "CREATE TABLE IF NOT EXISTS ", 1);
    let key: Vec<String> = primary_key(&contract.key).into_iter().collect();
    lines.push(again(create_table(&place.target, &columns, &key)));
    lines.extend(comments(&place.target, &columns));
    let staging = place.premade();
    let own = format!("{TRANSFER} text NOT NULL DEFAULT pg_catalog.current_setting('posthouse.transfer')");
    lines.push(again(create_table(&staging, &staged_columns(place, columns), &[own])));
    lines.extend(control::create(place).into_iter().map(again));
    // An earlier version's script made it without.
    lines.push(control::add_xid(place).replacen("ADD COLUMN ", "ADD COLUMN IF NOT EXISTS ", 1));
    let mut schemas = vec![&place.target.schema];
    if place.control != place.target.schema {
        schemas.push(&place.control);
    }
    lines.extend(schemas.into_iter().map(|schema| format!("GRANT USAGE ON SCHEMA {} TO {account}", quote(schema))));
    let [applied, quarantine] = control::names(place);
    for table in [&place.target, &staging, &applied, &quarantine] {
        lines.push(format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {account}"));
    }
    lines
}

/// A script is read before it is run: types that an old server lacks are seen there.
const NEWEST: u32 = u32::MAX;
/// The column by which transfers share a staging table that was made beforehand.
pub(super) const TRANSFER: &str = "posthouse_transfer";
