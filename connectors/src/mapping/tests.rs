//! The mappings against what encodes values, and the documents against the mappings.

mod crossing;

use super::*;
use posthouse_protocol::batch::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// The first day of the year 0, from 1970-01-01, and the last of the year 9999.
const FIRST_DAY: i32 = -719_528;
const LAST_DAY: i32 = 2_932_896;

fn midnight(days: i32) -> i64 {
    i64::from(days) * 86_400_000_000
}

/// Holds what a made column is said to lack against what `takes` a value for it: the values at the edges, and those that
/// every column of the type has a place for.
pub(crate) fn hold(made: fn(ContractType) -> Made, takes: &dyn Fn(ContractType, Value<'_>) -> bool) {
    use ContractType::*;
    let long = "驿".repeat(256);
    let decimal = Decimal { precision: 18, scale: 2 };
    let cases = [
        (Date, Some(Edge::Endless), Value::Date(i32::MAX)),
        (Date, Some(Edge::Endless), Value::Date(i32::MIN)),
        (Date, Some(Edge::BeforeYearZero), Value::Date(FIRST_DAY - 1)),
        (Date, Some(Edge::YearZero), Value::Date(FIRST_DAY)),
        (Date, Some(Edge::YearZero), Value::Date(FIRST_DAY + 365)),
        (Date, None, Value::Date(FIRST_DAY + 366)),
        (Date, None, Value::Date(LAST_DAY)),
        (Date, Some(Edge::AfterYear9999), Value::Date(LAST_DAY + 1)),
        (Timestamp, Some(Edge::Endless), Value::Timestamp(i64::MAX)),
        (Timestamp, Some(Edge::Endless), Value::Timestamp(i64::MIN)),
        (Timestamp, Some(Edge::BeforeYearZero), Value::Timestamp(midnight(FIRST_DAY) - 1)),
        (Timestamp, Some(Edge::YearZero), Value::Timestamp(midnight(FIRST_DAY))),
        (Timestamp, None, Value::Timestamp(midnight(FIRST_DAY + 366))),
        (Timestamp, None, Value::Timestamp(midnight(LAST_DAY + 1) - 1)),
        (Timestamp, Some(Edge::AfterYear9999), Value::Timestamp(midnight(LAST_DAY + 1))),
        (Float, Some(Edge::Infinite), Value::Float(f64::INFINITY)),
        (Float, Some(Edge::Infinite), Value::Float(f64::NEG_INFINITY)),
        (Float, Some(Edge::NotANumber), Value::Float(f64::NAN)),
        (Float, None, Value::Float(f64::MIN)),
        (Float, None, Value::Float(5e-324)),
        (Text, Some(Edge::Nul), Value::Text("a\0b")),
        (Text, None, Value::Text(" 驿站 ")),
        (Char, Some(Edge::Nul), Value::Text("a\0b")),
        (Char, Some(Edge::LongChar), Value::Text(&long)),
        (Char, None, Value::Text("驿站  ")),
        (Json, Some(Edge::JsonNul), Value::Text("[\"\\u0000\"]")),
        (Json, Some(Edge::JsonNumber), Value::Text("1e200000")),
        (Json, None, Value::Text("{\"a\": 12345678901234567890.5}")),
        (Boolean, None, Value::Boolean(true)),
        (Integer, None, Value::Integer(i64::MIN)),
        (Integer, None, Value::Integer(i64::MAX)),
        (decimal, None, Value::Decimal(999_999_999_999_999_999, 2)),
        (Number, None, Value::Number("NaN")),
        (Number, None, Value::Number("12345678901234567890123456789012345678901234567890.5")),
        (Bytes, None, Value::Bytes(&[0, 255])),
    ];
    let mut seen = BTreeSet::new();
    for (r#type, edge, value) in cases {
        let lacks = made(r#type).lacks;
        let expected = edge.is_none_or(|edge| !lacks.contains(&edge));
        assert_eq!(takes(r#type, value), expected, "{} {edge:?} {value:?}", crate::types::type_name(r#type));
        seen.extend(edge);
    }
    // There is a value for each edge that a destination may lack.
    let asked = Edge::ALL.into_iter().filter(|edge| edge.becomes() == Becomes::ByDestination);
    assert!(asked.clone().all(|edge| seen.contains(&edge)), "{:?}", asked.collect::<Vec<_>>());
}

#[test]
fn a_column_moves_is_refused_or_moves_but_for_values_that_are_named() {
    let engines = engines();
    let find = |name: &str| &engines.iter().find(|(engine, _)| *engine == name).unwrap().1;
    let of = |from: &str, declared: &str, to: &str| {
        let native = find(from).native.iter().find(|native| native.declared == declared);
        verdict(native.unwrap_or_else(|| panic!("{from} has no {declared}")), find(to))
    };
    let moves = |declared: &str, but: &[Edge]| Verdict::Moves { declared: declared.to_owned(), but: but.to_vec() };
    assert_eq!(of("postgres", "numeric", "mysql"), moves("longtext CHECK (… REGEXP …)", &[]));
    assert_eq!(of("postgres", "numeric(18,2)", "mysql"), moves("decimal(18,2)", &[Edge::DecimalNaN]));
    assert_eq!(of("postgres", "regclass", "mysql"), Verdict::Refused);
    assert_eq!(of("postgres", "numeric(5,-3)", "parquet"), Verdict::Refused);
    assert_eq!(of("postgres", "numeric(5,-3)", "sqlserver"), moves("decimal(8,0)", &[Edge::DecimalNaN]));
    let days = [Edge::Endless, Edge::BeforeYearZero, Edge::YearZero, Edge::AfterYear9999];
    assert_eq!(of("postgres", "timestamptz", "sqlserver"), moves("datetime2(6)", &days));
    assert_eq!(of("postgres", "timestamptz", "postgres"), moves("timestamp", &[]));
    assert_eq!(of("mysql", "bigint unsigned", "postgres"), moves("numeric(20,0)", &[]));
    assert_eq!(of("mysql", "datetime(6)", "sqlite"), moves("TIMESTAMP", &[Edge::ZeroDate, Edge::NoZone]));
    assert_eq!(of("mysql", "varchar(50)", "postgres"), moves("text", &[Edge::Nul, Edge::Undecodable]));
    assert_eq!(of("sqlserver", "datetime2(7)", "mysql"), moves("datetime(6)", &[Edge::Finer, Edge::NoZone]));
    assert_eq!(of("sqlserver", "geography", "postgres"), Verdict::Refused);
    assert_eq!(of("sqlserver", "bigint", "sqlite"), moves("INTEGER", &[]));
    assert_eq!(of("sqlite", "DOUBLE", "sqlserver"), moves("float(53)", &[Edge::Infinite, Edge::OtherKind]));
}

#[test]
fn what_is_made_reads_back_as_what_it_was_made_for() {
    use ContractType::*;
    let decimals = [(18, 2), (38, 38), (1, 0)].map(|(precision, scale)| Decimal { precision, scale });
    for (engine, mapping) in engines() {
        for r#type in
            [Boolean, Integer, Number, Float, Text, Char, Bytes, Date, Timestamp, Json].into_iter().chain(decimals)
        {
            let declared = (mapping.made)(r#type).declared;
            let declared =
                declared.unwrap_or_else(|| panic!("{engine} has nothing for {}", crate::types::type_name(r#type)));
            let mut same = mapping.native.iter().filter(|native| native.declared == declared);
            // Where the list has just that declaration, it has it with that meaning.
            let (found, wanted) = (same.next().map(|native| native.r#type), Some(Some(r#type)));
            assert!(found.is_none() || found == wanted, "{engine}: {declared} is {found:?}");
        }
    }
}

#[test]
fn every_edge_has_a_letter_of_its_own_and_is_held_by_a_type() {
    let letters: BTreeSet<char> = Edge::ALL.iter().map(|edge| edge.letter()).collect();
    assert!(letters.len() == Edge::ALL.len() && letters.iter().all(char::is_ascii_lowercase), "{letters:?}");
    let held: BTreeSet<Edge> = engines()
        .iter()
        .flat_map(|(_, mapping)| mapping.native.iter().flat_map(|native| native.holds))
        .copied()
        .collect();
    assert_eq!(held.into_iter().collect::<Vec<_>>(), Edge::ALL);
}

#[test]
fn the_documents_are_what_the_code_says() {
    for (name, lang) in [("TYPES.md", document::Lang::En), ("TYPES.zh-CN.md", document::Lang::Zh)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
        let made = document::render(lang);
        if std::env::var_os("POSTHOUSE_WRITE_DOCS").is_some() {
            std::fs::write(&path, &made).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        let lines = || found.lines().chain(std::iter::repeat("")).zip(made.lines().chain(std::iter::repeat("")));
        let most = found.lines().count().max(made.lines().count());
        let other = lines().take(most).enumerate().find(|(_, (found, made))| found != made);
        assert!(
            found == made,
            "docs/{name} is not what the code says, at {other:?}: POSTHOUSE_WRITE_DOCS=1 cargo test -p posthouse-connectors \
             the_documents_are_what_the_code_says writes it"
        );
    }
}
