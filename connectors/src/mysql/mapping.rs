//! What this family's types mean elsewhere, and what other engines' types become here: one list, read by the functions
//! that tables are read and made with. Tables are shown as MariaDB 10.11 makes them.

use super::catalog::{Check, Column};
use super::client::Server;
use super::ddl;
use crate::mapping::{Edge, Made, Mapping, Native};
use posthouse_protocol::schema::{ContractType, Item};

pub(super) fn mapping() -> Mapping {
    Mapping { native: NATIVE.iter().map(native).collect(), made }
}

fn native(declared: &Declared) -> Native {
    let (declared, (precision, scale), check, holds) = *declared;
    let r#type = name(declared).to_owned();
    let column = Column { r#type, declared: declared.to_owned(), precision, scale, check, ..Column::default() };
    Native { declared: checked(declared, check), r#type: column.contract_type(), holds }
}

/// The type's name alone.
fn name(declared: &str) -> &str {
    declared.split([' ', '(']).next().unwrap_or_default()
}

/// With what a CHECK says of a text.
fn checked(declared: &str, check: Option<Check>) -> String {
    match check {
        None => declared.to_owned(),
        Some(Check::Json) => format!("{declared} CHECK (json_valid(…))"),
        Some(Check::Number) => format!("{declared} CHECK (… REGEXP …)"),
    }
}

fn made(r#type: ContractType) -> Made {
    let item = Item { name: String::new(), r#type, nullable: true, comment: None };
    let lacks: &'static [Edge] = match r#type {
        ContractType::Float => &[Edge::Infinite, Edge::NotANumber],
        ContractType::Char => &[Edge::LongChar],
        ContractType::Date | ContractType::Timestamp => &[Edge::Endless, Edge::BeforeYearZero, Edge::AfterYear9999],
        _ => &[],
    };
    let check = match r#type {
        ContractType::Json => Some(Check::Json),
        ContractType::Number => Some(Check::Number),
        _ => None,
    };
    let declared = ddl::column_type(&item, None, &SERVER).ok();
    Made { declared: declared.map(|declared| checked(&declared, check)), lacks }
}

const SERVER: Server = Server { mariadb: true, version: (10, 11, 0), packet_max: 16 << 20 };

/// As it is declared; digits, and those behind the point; what a CHECK says of it; what it holds.
type Declared = (&'static str, (u64, u64), Option<Check>, &'static [Edge]);

const TEXTS: &[Edge] = &[Edge::Nul, Edge::Undecodable];
const SHOWN: &[Edge] = &[Edge::AsText];
const JSON: &[Edge] = &[Edge::JsonNul, Edge::JsonNumber, Edge::JsonTwice];
const PLAIN: (u64, u64) = (0, 0);

const NATIVE: &[Declared] = &[
    ("bit(1)", (1, 0), None, &[]),
    ("tinyint(1)", PLAIN, None, &[]),
    ("smallint", PLAIN, None, &[]),
    ("mediumint", PLAIN, None, &[]),
    ("int", PLAIN, None, &[]),
    ("int unsigned", PLAIN, None, &[]),
    ("bigint", PLAIN, None, &[]),
    ("year", PLAIN, None, &[]),
    ("bit(63)", (63, 0), None, &[]),
    ("bigint unsigned", PLAIN, None, &[]),
    ("bit(64)", (64, 0), None, &[]),
    ("decimal(18,2)", (18, 2), None, &[]),
    ("decimal(65,30)", (65, 30), None, &[]),
    ("longtext", PLAIN, Some(Check::Number), &[]),
    ("float", PLAIN, None, &[]),
    ("double", PLAIN, None, &[]),
    ("varchar(50)", PLAIN, None, TEXTS),
    ("tinytext", PLAIN, None, TEXTS),
    ("text", PLAIN, None, TEXTS),
    ("mediumtext", PLAIN, None, TEXTS),
    ("longtext", PLAIN, None, TEXTS),
    ("char(18)", PLAIN, None, TEXTS),
    ("binary(16)", PLAIN, None, &[]),
    ("varbinary(50)", PLAIN, None, &[]),
    ("tinyblob", PLAIN, None, &[]),
    ("blob", PLAIN, None, &[]),
    ("mediumblob", PLAIN, None, &[]),
    ("longblob", PLAIN, None, &[]),
    ("vector(3)", PLAIN, None, &[]),
    ("geometry", PLAIN, None, &[Edge::Spatial]),
    ("point", PLAIN, None, &[Edge::Spatial]),
    ("date", PLAIN, None, &[Edge::YearZero, Edge::ZeroDate]),
    ("datetime(6)", PLAIN, None, &[Edge::YearZero, Edge::ZeroDate, Edge::NoZone]),
    ("timestamp(6)", PLAIN, None, &[Edge::ZeroDate]),
    ("json", PLAIN, None, JSON),
    ("longtext", PLAIN, Some(Check::Json), JSON),
    ("time(6)", PLAIN, None, SHOWN),
    ("enum('a','b')", PLAIN, None, SHOWN),
    ("set('a','b')", PLAIN, None, SHOWN),
    ("uuid", PLAIN, None, SHOWN),
    ("inet4", PLAIN, None, SHOWN),
    ("inet6", PLAIN, None, SHOWN),
];

#[cfg(test)]
mod tests {
    use super::super::encode::Encoder;
    use super::*;
    use posthouse_protocol::batch::{Batch, BatchBuilder};
    use posthouse_protocol::schema::Contract;

    /// A made column, as the catalogue has it.
    fn column(declared: &str) -> Column {
        let inside = declared.split_once('(').map_or("", |(_, inside)| inside.trim_end_matches(')'));
        let digits: u32 = inside.parse().unwrap_or(0);
        let (r#type, declared) = (name(declared).to_owned(), declared.to_owned());
        let fraction = if r#type == "datetime" { digits } else { 0 };
        let (precision, length) = (u64::from(digits), u64::from(digits));
        Column { r#type, declared, precision, length, fraction, ..Column::default() }
    }

    #[test]
    fn what_a_made_column_lacks_is_what_its_encoder_refuses() {
        crate::mapping::tests::hold(made, &|r#type, value| {
            let contract = Contract { items: vec![crate::contract::item("c", r#type)], key: vec![] };
            let mut builder = BatchBuilder::new(&contract);
            builder.push(&[value]).unwrap();
            let batch = Batch::new(&contract, builder.finish().unwrap()).unwrap();
            let columns = [column(&made(r#type).declared.unwrap())];
            let encoder = Encoder::new(&contract, &columns, 16 << 20);
            let mut line = Vec::new();
            let taken = encoder.literals(&batch, 0, &mut line).is_ok();
            // The server itself is strict about a length, and says so of the row.
            let text = batch.value(0, 0).to_string();
            taken
                && !(r#type == ContractType::Char
                    && text.trim_end_matches(' ').chars().count() as u64 > columns[0].length)
        });
    }

    #[test]
    fn a_row_has_room_for_all_of_its_chars() {
        let create = |chars: usize| {
            let item = |at: usize| crate::contract::item(&format!("c{at}"), ContractType::Char);
            let contract = Contract { items: (0..chars).map(item).collect(), key: vec!["c0".to_owned()] };
            let name = super::super::place::TableName { schema: "d".to_owned(), table: "t".to_owned() };
            ddl::create_table(&name, &contract, &SERVER, &[]).unwrap()
        };
        let count = |create: &str| (create.matches(" char(").count(), create.matches(" longtext").count());
        assert_eq!(count(&create(41)), (41, 0));
        assert_eq!(count(&create(42)), (1, 41), "but for the key, which is shorter");
    }

    #[test]
    fn decimals_that_the_server_has_no_column_for_are_refused_by_name() {
        let declared = |precision, scale| made(ContractType::Decimal { precision, scale }).declared;
        assert_eq!(declared(38, 38).as_deref(), Some("decimal(38,38)"));
        assert_eq!(declared(5, -3).as_deref(), Some("decimal(8,0)"));
        assert_eq!((declared(38, -27).as_deref(), declared(38, -28)), (Some("decimal(65,0)"), None));
    }
}
