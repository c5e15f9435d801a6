//! The statements that make tables: a type for each column, a table for a contract, and the script for the DBA of a
//! server on which the node's account may not create anything.

use super::catalog::{Column, NUMBER, Relation};
use super::client::Server;
use super::control;
use super::place::{Place, TableName, literal, quote, quoted};
use crate::TableSpec;
use crate::types;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::{Contract, ContractType, Item};

/// The statement that makes a table for a contract, with its key.
pub(super) fn create_table(
    name: &TableName,
    contract: &Contract,
    server: &Server,
    more: &[String],
) -> Result<String, Problem> {
    create_within(name, contract, server, more, INDEX_BYTES_MAX)
}

/// The same, with so many bytes for the key's index.
fn create_within(
    name: &TableName,
    contract: &Contract,
    server: &Server,
    more: &[String],
    index_bytes: u64,
) -> Result<String, Problem> {
    let share = key_share(contract, index_bytes);
    let is_open_char = |item: &&Item| item.r#type == ContractType::Char && !contract.key.contains(&item.name);
    let is_crowded = contract.items.iter().filter(is_open_char).count() > CHARS_MAX;
    let column = |item: &Item| -> Result<String, Problem> {
        let is_key = contract.key.contains(&item.name);
        let r#type = match is_crowded && is_open_char(&item) {
            true => "longtext".to_owned(),
            false => column_type(item, is_key.then_some(share), server)?,
        };
        let null = if item.nullable && !is_key { "" } else { " NOT NULL" };
        let comment = item.comment.as_deref().filter(|text| !text.is_empty()).map(|text| {
            // What is longer is refused.
            let text: String = text.chars().take(COMMENT_CHARS_MAX).collect();
            format!(" COMMENT {}", literal(&text))
        });
        let check = match item.r#type {
            ContractType::Json => format!(" CHECK (json_valid({}))", quote(&item.name)),
            ContractType::Number => format!(" CHECK ({} REGEXP '{NUMBER}')", quote(&item.name)),
            _ => String::new(),
        };
        Ok(format!("{} {}{null}{}{check}", quote(&item.name), r#type, comment.unwrap_or_default()))
    };
    let mut lines = contract.items.iter().map(column).collect::<Result<Vec<_>, _>>()?;
    lines.extend(more.iter().cloned());
    if more.is_empty() && !contract.key.is_empty() {
        lines.push(format!("PRIMARY KEY ({})", quoted(contract.key.iter().map(String::as_str))));
    }
    Ok(format!("CREATE TABLE {name} (\n  {}\n){}", lines.join(",\n  "), options(server)))
}

/// Rows are kept by transactions; texts are compared byte by byte, since a key that two spellings share is two keys to
/// every other database.
pub(super) fn options(server: &Server) -> String {
    format!(" ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE={}", server.collation())
}

/// The type that a created column has. `share`: the bytes that it may take in the key's index.
pub(super) fn column_type(item: &Item, share: Option<u64>, server: &Server) -> Result<String, Problem> {
    let cannot = |why: &str| {
        let problem = Problem::new(Code::TypeUnsupported).with("column", &item.name);
        problem.with("type", types::type_name(item.r#type)).cause(why)
    };
    Ok(match item.r#type {
        ContractType::Boolean => "bit(1)".to_owned(),
        ContractType::Integer => "bigint".to_owned(),
        ContractType::Decimal { precision, scale } => {
            let digits = i16::from(precision) - i16::from(scale.min(0));
            if digits > DIGITS_MAX || scale > server.scale_max() {
                return Err(cannot("this server's decimals have fewer digits: make the table beforehand"));
            }
            format!("decimal({digits},{})", scale.max(0))
        }
        ContractType::Float => "double".to_owned(),
        ContractType::Text | ContractType::Json => match share {
            Some(bytes) => format!("varchar({})", bytes / CHARACTER_BYTES),
            None => "longtext".to_owned(),
        },
        ContractType::Number if !server.has_checks() => {
            return Err(cannot("this server cannot say of a column that it holds numbers of any length"));
        }
        ContractType::Number => match share {
            Some(bytes) => format!("varchar({})", bytes / CHARACTER_BYTES),
            None => "longtext".to_owned(),
        },
        ContractType::Char => format!("char({})", share.map_or(255, |bytes| (bytes / CHARACTER_BYTES).min(255))),
        ContractType::Bytes => match share {
            Some(bytes) => format!("varbinary({bytes})"),
            None => "longblob".to_owned(),
        },
        ContractType::Date => "date".to_owned(),
        ContractType::Timestamp => "datetime(6)".to_owned(),
    })
}

/// Bytes of the key's index for each of its texts. A longer one is refused, and never cut.
fn key_share(contract: &Contract, index_bytes: u64) -> u64 {
    let is_long = |item: &Item| {
        use ContractType::*;
        matches!(item.r#type, Text | Char | Json | Number | Bytes)
    };
    let key: Vec<&Item> = contract.items.iter().filter(|item| contract.key.contains(&item.name)).collect();
    let long = key.iter().filter(|item| is_long(item)).count() as u64;
    let others = key.len() as u64 - long;
    (index_bytes.saturating_sub(others * FIXED_BYTES_MAX) / long.max(1)).max(CHARACTER_BYTES)
}

/// A staging table whose rows are numbered: with the target's own types where it stands, so that what does not fit is
/// found when it is staged. `marks`: it has a place for the keys of refused rows.
pub(super) fn create_numbered(
    name: &TableName,
    contract: &Contract,
    target: &Relation,
    is_unique: bool,
    marks: bool,
) -> String {
    let column = |item: &Item| {
        // The target has no column for what a row does.
        let declared = target.column(&item.name).map_or_else(|| OPERATION_TYPE.to_owned(), as_declared);
        format!("{} {declared} NULL", quote(&item.name))
    };
    let mut lines = vec![format!("{NUMBER_COLUMN} bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY")];
    if marks {
        lines.push(refused_column());
    }
    lines.extend(contract.items.iter().map(column));
    if is_unique {
        lines.push(format!("UNIQUE KEY posthouse_key ({})", quoted(contract.key.iter().map(String::as_str))));
    }
    format!("CREATE TABLE {name} (\n  {}\n) ENGINE=InnoDB ROW_FORMAT=DYNAMIC", lines.join(",\n  "))
}

fn refused_column() -> String {
    format!("{REFUSED_COLUMN} tinyint NOT NULL DEFAULT 0")
}

fn as_declared(column: &Column) -> String {
    match (&column.charset, &column.collation) {
        (Some(charset), Some(collation)) => {
            format!("{} CHARACTER SET {charset} COLLATE {collation}", column.declared)
        }
        _ => column.declared.clone(),
    }
}

/// What a DBA runs, so that an account can read these tables and land those with no right to create anything. The
/// account as a GRANT names it.
pub(super) fn script(account: &str, database: &str, reads: &[TableSpec], places: &[Place]) -> Result<String, Problem> {
    let mut lines: Vec<String> = Vec::new();
    let mut say = |line: String| {
        if !lines.contains(&line) {
            lines.push(line);
        }
    };
    for read in reads {
        match read.table.as_deref().map(|table| TableName::parse(table, database).ok_or(table)) {
            Some(Ok(name)) => say(format!("GRANT SELECT, SHOW VIEW ON {name} TO {account};")),
            Some(Err(table)) => {
                let cause = format!("`{table}` is no table's name: write `database.table`");
                return Err(Problem::new(Code::SourceFailed).with("resource", &read.resource).cause(cause));
            }
            None => say(format!(
                "-- {} is a query: GRANT SELECT on each table it names. 该资源为查询，请对其涉及的每张表授予 SELECT。",
                read.resource
            )),
        }
    }
    for place in places {
        landing(place, account)?.into_iter().for_each(|line| say(format!("{line};")));
    }
    Ok(lines.into_iter().map(|line| line + "\n").collect())
}

fn landing(place: &Place, account: &str) -> Result<Vec<String>, Problem> {
    let (contract, server) = (&place.landing.contract, &Server::UNKNOWN);
    let again = |create: String| create.replacen("CREATE TABLE ", "CREATE TABLE IF NOT EXISTS ", 1);
    let mut lines = vec![format!("CREATE DATABASE IF NOT EXISTS {}", quote(&place.control))];
    // The transfer stands in the staging table's index too.
    let create = create_within(&place.target, contract, server, &[], INDEX_BYTES_MAX - TRANSFER_BYTES)?;
    lines.push(again(create));
    let staging = place.premade();
    lines.push(premade(place, &staging));
    lines.extend(control::create(place, server).into_iter().map(again));
    let [applied, quarantine] = control::names(place);
    for table in [&place.target, &staging, &applied, &quarantine] {
        lines.push(format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {account}"));
    }
    Ok(lines)
}

/// The staging table of a job has the target's own types, as they stand when the script is run: a column of the side of
/// a join that has no rows takes NULL and is the same otherwise.
fn premade(place: &Place, staging: &TableName) -> String {
    let contract = &place.landing.contract;
    let mut own = vec![
        format!("{NUMBER_COLUMN} bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY"),
        format!("{TRANSFER_COLUMN} varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT ''"),
        refused_column(),
        format!("KEY posthouse_transfer ({TRANSFER_COLUMN}, {NUMBER_COLUMN})"),
    ];
    own.extend(place.landing.operation.iter().map(|name| format!("{} {OPERATION_TYPE} NULL", quote(name))));
    if !contract.key.is_empty() {
        let key = quoted(contract.key.iter().map(String::as_str));
        own.push(format!("UNIQUE KEY posthouse_key ({TRANSFER_COLUMN}, {key})"));
    }
    let columns = contract.items.iter().map(|item| format!("t.{}", quote(&item.name))).collect::<Vec<_>>();
    format!(
        "CREATE TABLE IF NOT EXISTS {staging} (\n  {}\n) ENGINE=InnoDB ROW_FORMAT=DYNAMIC\n\
         AS SELECT {} FROM (SELECT 1 AS one) x LEFT JOIN {} t ON 1 = 0 LIMIT 0",
        own.join(",\n  "),
        columns.join(", "),
        place.target
    )
}

/// The column that numbers the rows of a staging table.
pub(super) const NUMBER_COLUMN: &str = "posthouse_number";
/// The column by which transfers share a staging table that was made beforehand.
pub(super) const TRANSFER_COLUMN: &str = "posthouse_transfer";
/// The column that says of a row that it was refused, and that only its key is here.
pub(super) const REFUSED_COLUMN: &str = "posthouse_refused";
/// Of the column that says what a row of a front-end table does: a letter.
const OPERATION_TYPE: &str = "varchar(1) CHARACTER SET ascii COLLATE ascii_bin";
const COMMENT_CHARS_MAX: usize = 1024;
const DIGITS_MAX: i16 = 65;
/// A row has 65,535 bytes for what is kept in it, 1,020 of them for a char; of more of these than this, each is kept
/// beside it.
const CHARS_MAX: usize = 40;
/// Of utf8mb4.
const CHARACTER_BYTES: u64 = 4;
/// What an index of InnoDB holds of a row.
const INDEX_BYTES_MAX: u64 = 3072;
/// What a transfer's name takes of it, with some to spare.
const TRANSFER_BYTES: u64 = 72;
/// The longest of the types that have a length of their own: a decimal.
const FIXED_BYTES_MAX: u64 = 32;
