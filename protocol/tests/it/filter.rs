//! Filters: text and CBOR both ways, three-valued logic against a truth table, errors at their place.

use posthouse_protocol::codec;
use posthouse_protocol::filter::{Comparison, EvaluateError, Filter, Literal, Value};
use posthouse_protocol::limits;
use posthouse_protocol::schema::{Contract, ContractType, Item};
use proptest::prelude::*;

fn literal() -> impl Strategy<Value = Literal> {
    prop_oneof![
        any::<bool>().prop_map(Literal::Boolean),
        any::<i64>().prop_map(Literal::Integer),
        (any::<i64>(), 0..=999u32).prop_map(|(whole, part)| Literal::Decimal(format!("{whole}.{part:03}"))),
        ".{0,8}".prop_map(Literal::Text),
        (-700_000..2_900_000i32).prop_map(Literal::Date),
        (-60_000_000_000_000_000..250_000_000_000_000_000i64).prop_map(Literal::Timestamp),
    ]
}

fn column() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z_][a-z0-9_]{0,6}",
        Just("身份证号".to_owned()),
        Just("select".to_owned()),
        ".{1,6}",
        Just("not".to_owned())
    ]
}

fn comparison() -> impl Strategy<Value = Comparison> {
    use Comparison::*;
    prop::sample::select(vec![Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual])
}

fn filter() -> impl Strategy<Value = Filter> {
    let leaf = prop_oneof![
        (column(), comparison(), literal()).prop_map(|(c, o, l)| Filter::Compare(c, o, l)),
        (column(), prop::collection::vec(literal(), 1..4)).prop_map(|(c, l)| Filter::In(c, l)),
        (column(), literal(), literal()).prop_map(|(c, a, b)| Filter::Between(c, a, b)),
        column().prop_map(Filter::IsNull),
    ];
    leaf.prop_recursive(5, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Filter::And),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Filter::Or),
            inner.prop_map(|filter| Filter::Not(Box::new(filter))),
        ]
    })
}

proptest! {
    #[test]
    fn a_filter_written_as_text_is_read_back_the_same(filter in filter()) {
        let text = filter.to_string();
        let again = Filter::parse(&text);
        prop_assert_eq!(again, Ok(filter), "{}", text);
    }

    #[test]
    fn a_filter_written_as_cbor_is_read_back_the_same(filter in filter()) {
        let bytes = codec::encode(&filter);
        prop_assert_eq!(codec::decode_strict::<Filter>(&bytes, 1 << 20).unwrap(), filter);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,60}") {
        if let Ok(filter) = Filter::parse(&text) {
            prop_assert_eq!(Filter::parse(&filter.to_string()).unwrap(), filter);
        }
    }

    #[test]
    fn sql_binds_every_value_and_holds_none(filter in filter()) {
        let (sql, literals) = filter.to_sql(&|_| "c".to_owned(), &|n, _| format!("?{n}"));
        prop_assert!(sql.bytes().all(|b| b.is_ascii_alphanumeric() || b" ()<>=?,".contains(&b)), "{}", sql);
        prop_assert_eq!(sql.matches('?').count(), literals.len());
        prop_assert_eq!(sql.matches('(').count(), sql.matches(')').count());
    }

    #[test]
    fn numbers_compare_exactly_at_any_scale(a in any::<i64>(), b in any::<i64>(), scale in 0..18u8, more in 0..18u8) {
        // a and b at one scale, then a written with more zeros behind the point: the order stays.
        let lifted = i128::from(a) * 10i128.pow(u32::from(more));
        let sign = if b < 0 { "-" } else { "" };
        let digits = format!("{:0>width$}", b.unsigned_abs(), width = usize::from(scale) + 1);
        let (whole, part) = digits.split_at(digits.len() - usize::from(scale));
        let text = if scale == 0 { format!("{sign}{whole}.0") } else { format!("{sign}{whole}.{part}") };
        let value = Value::Decimal(lifted, (scale + more) as i8);
        let less = Filter::Compare("n".to_owned(), Comparison::Less, Literal::Decimal(text));
        prop_assert_eq!(less.evaluate(&|_| Some(value)).unwrap(), Some(a < b));
    }
}

const KNOWN: [Option<bool>; 3] = [Some(true), Some(false), None];

/// A part whose truth is given by a column: `x = 1` where x is 1, 0 or null.
fn part(column: &str) -> Filter {
    Filter::parse(&format!("{column} = 1")).unwrap()
}

fn as_value(truth: Option<bool>) -> Value<'static> {
    truth.map_or(Value::Null, |truth| Value::Integer(i64::from(truth)))
}

#[test]
fn and_or_and_not_follow_the_truth_table_with_unknown() {
    for a in KNOWN {
        for b in KNOWN {
            let row = |column: &str| Some(as_value(if column == "a" { a } else { b }));
            let and = match (a, b) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            };
            let or = match (a, b) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            };
            assert_eq!(Filter::And(vec![part("a"), part("b")]).evaluate(&row), Ok(and), "{a:?} AND {b:?}");
            assert_eq!(Filter::Or(vec![part("a"), part("b")]).evaluate(&row), Ok(or), "{a:?} OR {b:?}");
        }
        let row = |_: &str| Some(as_value(a));
        assert_eq!(Filter::Not(Box::new(part("a"))).evaluate(&row), Ok(a.map(|a| !a)), "NOT {a:?}");
    }
}

#[test]
fn null_is_unknown_to_everything_but_is_null() {
    let row = |_: &str| Some(Value::Null);
    for text in ["a = 1", "a <> 1", "a < 1", "a IN (1, 2)", "a NOT IN (1)", "a BETWEEN 1 AND 2", "NOT a = 1"] {
        assert_eq!(Filter::parse(text).unwrap().evaluate(&row), Ok(None), "{text}");
    }
    assert_eq!(Filter::parse("a IS NULL").unwrap().evaluate(&row), Ok(Some(true)));
    assert_eq!(Filter::parse("a IS NOT NULL").unwrap().evaluate(&row), Ok(Some(false)));
}

#[test]
fn rows_are_told_apart() {
    let row = |column: &str| match column {
        "name" => Some(Value::Text("张三")),
        "age" => Some(Value::Integer(40)),
        "fee" => Some(Value::Decimal(1250, 2)),
        "share" => Some(Value::Float(0.25)),
        "born" => Some(Value::Date(5_000)),
        "seen" => Some(Value::Timestamp(1_700_000_000_000_000)),
        "ok" => Some(Value::Boolean(true)),
        "scan" => Some(Value::Opaque),
        _ => None,
    };
    for (text, expected) in [
        ("name = '张三'", true),
        ("name IN ('李四', '王五')", false),
        ("age BETWEEN 40 AND 41", true),
        ("age > 40.5", false),
        ("fee = 12.5", true),
        ("fee = 12.500", true),
        ("fee < 13", true),
        ("share = 0.25", true),
        ("share > 1", false),
        ("born = DATE '1983-09-10'", true),
        ("seen >= TIMESTAMP '2023-11-15T06:13:20+08:00'", true),
        ("seen < TIMESTAMP '2023-11-14T22:13:20Z'", false),
        ("ok = TRUE AND NOT (age < 18 OR fee <> 12.50)", true),
        ("scan IS NULL", false),
    ] {
        assert_eq!(Filter::parse(text).unwrap().evaluate(&row), Ok(Some(expected)), "{text}");
    }
    assert_eq!(
        Filter::parse("age = 1 OR sex = 1").unwrap().evaluate(&row),
        Err(EvaluateError::UnknownColumn("sex".to_owned())),
        "a column that is not there denies, whatever else is true"
    );
    assert!(matches!(Filter::parse("age = '40'").unwrap().evaluate(&row), Err(EvaluateError::Incomparable { .. })));
    assert!(Filter::parse("scan = 'x'").unwrap().evaluate(&row).is_err());
}

#[test]
fn a_filter_is_checked_against_the_contract() {
    let item = |name: &str, r#type| Item { name: name.to_owned(), r#type, nullable: true, comment: None };
    let contract = Contract {
        items: vec![
            item("district", ContractType::Text),
            item("area", ContractType::Decimal { precision: 10, scale: 2 }),
        ],
        key: Vec::new(),
    };
    let check = |text: &str| Filter::parse(text).unwrap().check(&contract);
    assert_eq!(check("district = '610102' AND area > 90 AND area < 100.5"), Ok(()));
    assert_eq!(check("area > 1 OR sex IS NULL"), Err(EvaluateError::UnknownColumn("sex".to_owned())));
    assert!(matches!(check("area = '90'"), Err(EvaluateError::Incomparable { .. })));
}

#[test]
fn numbers_of_any_length_are_compared_exactly() {
    let long = format!("1{}.0000000000000000000000000000000000000001", "0".repeat(60));
    let passes = |text: &str, value: &str| {
        let filter = Filter::parse(text).unwrap();
        filter.evaluate(&|name| (name == "n").then_some(Value::Number(value))).unwrap()
    };
    for (text, value, expected) in [
        ("n = 12.50", "12.5", true),
        ("n < 0.1", "0.09999999999999999999999999999999999999999999", true),
        ("n > 9223372036854775807", long.as_str(), true),
        ("n BETWEEN -1 AND 1", "-1.0000000000000000000000000000000000000000001", false),
        ("n IN (0, 3.0)", "3", true),
        ("n > 0", "Infinity", true),
        ("n > 0", "NaN", false),
        ("n <> 0", "NaN", true),
    ] {
        assert_eq!(passes(text, value), Some(expected), "{text} of {value}");
    }
    let item = Item { name: "n".to_owned(), r#type: ContractType::Number, nullable: true, comment: None };
    let contract = Contract { items: vec![item], key: Vec::new() };
    assert_eq!(Filter::parse("n = 1 OR n = 1.5").unwrap().check(&contract), Ok(()));
    assert!(Filter::parse("n = '1'").unwrap().check(&contract).is_err());
}

#[test]
fn a_wrong_text_is_refused_at_its_place() {
    for (text, at, what) in [
        ("", 1, "expected a column's name, found the end"),
        ("a", 2, "expected a comparison"),
        ("a = ", 5, "expected a value"),
        ("a = 1 b", 7, "expected AND, OR or the end, found `b`"),
        ("a = 'x", 5, "never closed"),
        ("a == 1", 4, "expected a value"),
        ("(a = 1", 7, "expected `)`"),
        ("a IN ()", 7, "expected a value"),
        ("a BETWEEN 1 OR 2", 13, "expected AND"),
        ("a NOT = 1", 7, "expected IN or BETWEEN"),
        ("a = 1; DROP TABLE x", 6, "`;` has no meaning here"),
        ("a = 01", 5, "no number"),
        ("a = 1e5", 5, "no number"),
        ("a = DATE '2026-02-30'", 5, "no date"),
        ("a = TIMESTAMP '2026-01-01T00:00:00'", 5, "no time with its zone"),
        ("NULL = 1", 1, "expected a column's name"),
        ("姓名 LIKE '张%'", 4, "expected a comparison"),
    ] {
        let error = Filter::parse(text).unwrap_err();
        assert_eq!(error.at, at, "{text}: {error}");
        assert!(error.what.contains(what), "{text}: {error}");
    }
}

#[test]
fn depth_and_length_are_bounded_without_a_deep_stack() {
    let nested = |n: usize| format!("{}a = 1{}", "(".repeat(n), ")".repeat(n));
    assert!(Filter::parse(&nested(limits::FILTER_DEPTH_MAX)).is_ok());
    assert!(Filter::parse(&nested(limits::FILTER_DEPTH_MAX + 1)).is_err());
    let negated = |n: usize| format!("{}a = 1", "NOT ".repeat(n));
    assert!(Filter::parse(&negated(limits::FILTER_DEPTH_MAX - 1)).is_ok());
    assert!(Filter::parse(&negated(limits::FILTER_DEPTH_MAX)).is_err());
    assert!(Filter::parse(&negated(4000)).is_err());
    let long = format!("a = '{}'", "x".repeat(limits::FILTER_BYTES_MAX));
    assert!(Filter::parse(&long).is_err());
    let mut deep = Filter::IsNull("a".to_owned());
    for _ in 0..limits::FILTER_DEPTH_MAX {
        deep = Filter::Not(Box::new(deep));
    }
    assert!(codec::decode_strict::<Filter>(&codec::encode(&deep), 1 << 20).is_err());
}

#[test]
fn sql_keeps_the_shape() {
    let filter = Filter::parse("a = 1 AND (b IS NULL OR NOT c IN ('x', 'y')) AND d BETWEEN 1 AND 2").unwrap();
    let (sql, literals) = filter.to_sql(&|name| format!("\"{name}\""), &|n, _| format!("${n}"));
    assert_eq!(sql, "((\"a\" = $1) AND ((\"b\" IS NULL) OR (NOT (\"c\" IN ($2, $3)))) AND (\"d\" BETWEEN $4 AND $5))");
    assert_eq!(literals.len(), 5);
    assert_eq!(filter.columns(), ["a", "b", "c", "d"]);
}
