//! What each rule takes and what it does not, and how rows are counted.

use super::*;
use crate::batch::BatchBuilder;

fn contract(types: &[(&str, ContractType)]) -> Contract {
    let item = |(name, r#type): &(&str, ContractType)| Item {
        name: (*name).to_owned(),
        r#type: *r#type,
        nullable: true,
        comment: None,
    };
    Contract { items: types.iter().map(item).collect(), key: Vec::new() }
}

fn batch(contract: &Contract, rows: &[&[Value<'_>]]) -> Batch {
    let mut builder = BatchBuilder::new(contract);
    rows.iter().for_each(|row| builder.push(row).unwrap());
    Batch::new(contract, builder.finish().unwrap()).unwrap()
}

fn check(column: &str, severity: Severity, rules: Vec<Rule>) -> Check {
    Check { column: column.to_owned(), rules, severity }
}

/// Why one value of a type does not pass one rule.
fn fails(rule: Rule, r#type: ContractType, value: Value<'_>) -> Option<&'static str> {
    let contract = contract(&[("a", r#type)]);
    Ready::new(&rule, &contract.items[0]).unwrap().fails(value, r#type)
}

#[test]
fn each_rule_takes_what_it_says_and_nothing_else() {
    use ContractType::{Char, Date, Decimal, Integer, Text};
    let codes = || Rule::Codes(Arc::new(["1", "2", "9"].map(str::to_owned).into()));
    let range = |min: &str, max: &str| {
        let bound = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Rule::Range(bound(min), bound(max))
    };
    let pattern = || Rule::Pattern(Pattern::new("1[3-9]\\d{9}|-").unwrap());
    let decimal = Decimal { precision: 10, scale: 2 };
    let day = |text: &str| crate::batch::days_of(text.parse().unwrap());
    for (rule, r#type, value) in [
        (Rule::Required, Text, Value::Text("x")),
        (Rule::Required, Integer, Value::Integer(0)),
        (Rule::Length(2, 3), Text, Value::Text("张三")),
        (Rule::Length(2, 3), Char, Value::Text("ab    ")),
        (range("0", "150"), Integer, Value::Integer(150)),
        (range("-0.5", ""), decimal, Value::Decimal(-50, 2)),
        (range("", "2026-01-01"), Date, Value::Date(day("2026-01-01"))),
        (pattern(), Text, Value::Text("13812345678")),
        (pattern(), Text, Value::Text("-")),
        (codes(), Text, Value::Text("9")),
        (codes(), Char, Value::Text("2  ")),
        (codes(), Integer, Value::Integer(1)),
        (Rule::IdCard, Char, Value::Text("11010519491231002X  ")),
        (Rule::CreditCode, Text, Value::Text("91350100M000100Y43")),
    ] {
        assert_eq!(fails(rule.clone(), r#type, value), None, "{rule:?} {value:?}");
        // NULL is the matter of `required` alone.
        let of_null = fails(rule.clone(), r#type, Value::Null);
        assert_eq!(of_null.is_some(), matches!(rule, Rule::Required), "{rule:?}");
    }
    for (rule, r#type, value) in [
        (Rule::Required, Text, Value::Text("  ")),
        (Rule::Length(2, 3), Text, Value::Text("张")),
        (Rule::Length(2, 3), Text, Value::Text("abcd")),
        (range("0", "150"), Integer, Value::Integer(151)),
        (range("0", ""), Integer, Value::Integer(-1)),
        (range("-0.5", ""), decimal, Value::Decimal(-51, 2)),
        (range("", "2026-01-01"), Date, Value::Date(day("2026-01-02"))),
        (pattern(), Text, Value::Text("138123456789")),
        (pattern(), Text, Value::Text("x-")),
        (pattern(), Text, Value::Text("13812345678\n")),
        (codes(), Text, Value::Text("3")),
        (Rule::IdCard, Text, Value::Text("110105194912310021")),
        (Rule::CreditCode, Text, Value::Text("91350100M000100Y44")),
    ] {
        assert!(fails(rule.clone(), r#type, value).is_some(), "{rule:?} {value:?}");
    }
}

#[test]
fn rules_that_do_not_fit_their_column_are_refused() {
    let range = |min: &str| Rule::Range(Some(min.to_owned()), None);
    for (rule, r#type) in [
        (Rule::Length(1, 2), ContractType::Integer),
        (range("x"), ContractType::Integer),
        (range("1 OR value = 2"), ContractType::Integer),
        (range("1"), ContractType::Date),
        (range("2026-02-30"), ContractType::Date),
        (range("a"), ContractType::Text),
        (Rule::IdCard, ContractType::Bytes),
    ] {
        let contract = contract(&[("a", r#type)]);
        assert!(Ready::new(&rule, &contract.items[0]).is_err(), "{rule:?} {:?}", r#type);
    }
    let absent = [check("b", Severity::Count, vec![Rule::Required])];
    let contract = contract(&[("a", ContractType::Text)]);
    assert!(Checker::new(&absent, &contract, true).is_err());
    assert!(Checker::new(&absent, &contract, false).unwrap().is_empty());
}

#[test]
fn a_pattern_is_bounded_and_matches_in_linear_time() {
    assert!(Pattern::new("(").is_err() && Pattern::new("a)|(b").is_err());
    assert!(Pattern::new(&"a".repeat(limits::PATTERN_BYTES_MAX + 1)).is_err());
    assert!(Pattern::new("(?:(?:a{1000}){1000}){1000}").is_err());
    // The classic that others take ages for.
    assert!(!Pattern::new("(a+)+b").unwrap().matches(&"a".repeat(100_000)));
}

#[test]
fn rows_are_counted_once_and_rules_each_time() {
    let contract = contract(&[("id", ContractType::Text), ("age", ContractType::Integer)]);
    let checks = [
        check("id", Severity::Quarantine, vec![Rule::Required, Rule::IdCard]),
        check("age", Severity::Count, vec![Rule::Range(Some("0".to_owned()), Some("150".to_owned()))]),
    ];
    let mut checker = Checker::new(&checks, &contract, true).unwrap();
    let good = Value::Text("11010519491231002X");
    let rows = batch(
        &contract,
        &[
            &[good, Value::Integer(30)],
            &[good, Value::Integer(200)],
            &[Value::Null, Value::Integer(-1)],
            &[Value::Text("123"), Value::Null],
        ],
    );
    let refused = checker.look(&rows);
    let places: Vec<usize> = refused.iter().map(|refused| refused.row).collect();
    assert_eq!(places, [2, 3]);
    assert_eq!(refused[0].reason, "`id`: it is NULL (required)");
    assert_eq!(refused[1].reason, "`id`: it has neither 18 nor 15 characters (id_card)");
    let quality = checker.take(&|name| name.to_uppercase());
    assert_eq!((quality.rows, quality.qualified), (4, 1));
    let failed: Vec<(&str, &str, u64)> =
        quality.failed.iter().map(|failed| (failed.column.as_str(), failed.rule.as_str(), failed.rows)).collect();
    assert_eq!(failed, [("ID", "required", 1), ("ID", "id_card", 1), ("AGE", "range", 2)]);
    assert_eq!(checker.take(&|name| name.to_owned()), Quality::default());
}

#[test]
fn bounds_that_are_none_are_told_before_there_is_a_column() {
    let range = |min: &str, max: &str| {
        let bound = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Rule::range(bound(min), bound(max)).map(|_| ())
    };
    for (min, max) in [
        ("0", "150"),
        ("-0.50", "-0.5"),
        ("", "999999999999999999999999999999999999.5"),
        ("1900-01-01", "2026-01-01"),
        ("2026-01-01T00:00:00Z", ""),
        ("2026-01-01T08:00:00+08:00", "2026-01-01T00:00:00Z"),
    ] {
        assert_eq!(range(min, max), Ok(()), "{min} {max}");
    }
    for (min, max) in [("1e3", ""), ("nan", ""), ("0", "2026-01-01"), ("", "2026-02-30"), ("x", "y")] {
        assert!(range(min, max).is_err_and(|why| why.contains("bounds are")), "{min} {max}");
    }
    for (min, max) in [("2", "1.5"), ("-0.5", "-0.51"), ("2026-01-02", "2026-01-01"), ("10", "9")] {
        assert!(range(min, max).is_err_and(|why| why.contains("above")), "{min} {max}");
    }
}
