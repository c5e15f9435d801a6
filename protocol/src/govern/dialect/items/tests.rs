//! What each item takes, value by value, at its bounds.

use super::*;
use ContractType as T;

fn cast<'v>(item: &str, from: ContractType, value: Value<'v>, text: &'v mut String) -> Option<Value<'v>> {
    let item: ItemType = item.parse().unwrap();
    Cast::new(item, item.of(from).unwrap()).value(value, text).ok()
}

#[test]
fn what_a_catalogue_declares_reads_back_and_nothing_else_does() {
    for item in ItemType::ALL {
        assert_eq!(item.to_string().parse(), Ok(item), "{item}");
    }
    for (text, item) in [
        ("C", ItemType::Character(None)),
        ("C(1048576)", ItemType::Character(Some(1 << 20))),
        ("N", ItemType::Numeric(None)),
        ("N(38)", ItemType::Numeric(Some((38, 0)))),
        ("N(38,38)", ItemType::Numeric(Some((38, 38)))),
        ("N( 10 , 2 )", ItemType::Numeric(Some((10, 2)))),
    ] {
        assert_eq!(text.parse(), Ok(item), "{text}");
    }
    for wrong in [
        "",
        "c",
        "C()",
        "C(0)",
        "C(1048577)",
        "C(-1)",
        "C(+1)",
        "C(5",
        "C(5))",
        "N(0)",
        "N(39)",
        "N(2,3)",
        "N(2,)",
        "N(,2)",
        "N(2,1,0)",
        "D(8)",
        "F(10,2)",
        "X",
        "数值型",
    ] {
        assert!(wrong.parse::<ItemType>().is_err(), "{wrong}");
    }
}

#[test]
fn a_column_of_another_kind_fills_no_item() {
    let decimal = T::Decimal { precision: 18, scale: 2 };
    let all = [
        T::Boolean,
        T::Integer,
        decimal,
        T::Number,
        T::Float,
        T::Text,
        T::Char,
        T::Json,
        T::Bytes,
        T::Date,
        T::Timestamp,
    ];
    let fills = |item: &str| -> Vec<ContractType> {
        let item: ItemType = item.parse().unwrap();
        all.into_iter().filter(|found| item.of(*found).is_some()).collect()
    };
    let numbers = vec![T::Integer, decimal, T::Number];
    assert_eq!(fills("C(9)"), [T::Integer, decimal, T::Number, T::Text, T::Char, T::Json]);
    assert_eq!(fills("M"), fills("C(9)"));
    for item in ["N", "N(9,2)", "Y", "I"] {
        assert_eq!(fills(item), numbers, "{item}");
    }
    assert_eq!(fills("L"), [T::Boolean, T::Integer, decimal, T::Number]);
    // A double is no decimal, and a decimal no double.
    assert_eq!(fills("B"), [T::Integer, T::Float]);
    assert_eq!(fills("F"), fills("B"));
    assert_eq!(fills("D"), [T::Date, T::Timestamp]);
    assert_eq!(fills("T"), [T::Date, T::Timestamp]);
    assert_eq!(fills("G"), [T::Bytes]);
}

#[test]
fn a_number_keeps_every_digit_or_has_no_place() {
    let decimal = |unscaled, scale| Value::Decimal(unscaled, scale);
    let of = T::Decimal { precision: 38, scale: 10 };
    for (item, value, kept) in [
        ("N(5,2)", Value::Integer(999), Some(decimal(99_900, 2))),
        ("N(5,2)", Value::Integer(1_000), None),
        ("N(5,2)", decimal(12_500_000_000, 10), Some(decimal(125, 2))),
        ("N(5,2)", decimal(12_550_000_000, 10), None),
        ("N(5,2)", decimal(-99_999, 2), Some(decimal(-99_999, 2))),
        ("N(5,2)", Value::Number("-12.5"), Some(decimal(-1_250, 2))),
        ("N(5,2)", Value::Number("NaN"), None),
        ("N(38,38)", decimal(0, 10), Some(decimal(0, 38))),
        ("N(38,38)", decimal(1, 0), None),
        ("Y", decimal(12_345, 4), Some(decimal(12_345, 4))),
        ("Y", decimal(12_345, 5), None),
        ("I", decimal(70_000_000_000, 10), Some(Value::Integer(7))),
        ("I", decimal(75_000_000_000, 10), None),
        ("I", decimal(i128::from(i64::MIN), 0), Some(Value::Integer(i64::MIN))),
        ("I", decimal(i128::from(u64::MAX), 0), None),
        ("L", Value::Integer(1), Some(Value::Boolean(true))),
        ("L", decimal(0, 0), Some(Value::Boolean(false))),
        ("L", Value::Integer(2), None),
    ] {
        let mut text = String::new();
        assert_eq!(cast(item, of, value, &mut text), kept, "{item} {value:?}");
    }
    let mut text = String::new();
    assert_eq!(cast("B", T::Integer, Value::Integer(1 << 53), &mut text), Some(Value::Float(9_007_199_254_740_992.0)));
    let mut text = String::new();
    assert_eq!(cast("B", T::Integer, Value::Integer((1 << 53) + 1), &mut text), None);
}

#[test]
fn texts_are_counted_by_their_characters_and_numbers_written_in_one_form() {
    for (item, of, value, kept) in [
        ("C(2)", T::Text, Value::Text("驿站"), Some(Value::Text("驿站"))),
        ("C(2)", T::Text, Value::Text("𠮷站 "), None),
        ("C(2)", T::Char, Value::Text("𠮷站  "), Some(Value::Text("𠮷站  "))),
        ("C", T::Text, Value::Text("驿站"), Some(Value::Text("驿站"))),
        ("M", T::Json, Value::Text("{ }"), Some(Value::Text("{ }"))),
        ("C(6)", T::Integer, Value::Integer(610_102), Some(Value::Text("610102"))),
        ("C(6)", T::Integer, Value::Integer(-610_102), None),
        ("C(9)", T::Number, Value::Decimal(1_250, 3), Some(Value::Text("1.25"))),
        ("C(9)", T::Number, Value::Decimal(12, -3), Some(Value::Text("12000"))),
        ("N", T::Integer, Value::Integer(-7), Some(Value::Number("-7"))),
        ("N", T::Number, Value::Decimal(-500, 3), Some(Value::Number("-0.5"))),
        ("C(2)", T::Text, Value::Null, Some(Value::Null)),
    ] {
        let mut text = String::new();
        assert_eq!(cast(item, of, value, &mut text), kept, "{item} {value:?}");
    }
}

#[test]
fn a_time_is_a_day_at_its_first_instant_only() {
    for (item, of, value, kept) in [
        ("D", T::Timestamp, Value::Timestamp(-DAY_US), Some(Value::Date(-1))),
        ("D", T::Timestamp, Value::Timestamp(DAY_US + 1), None),
        ("D", T::Timestamp, Value::Timestamp(i64::MAX), Some(Value::Date(i32::MAX))),
        ("T", T::Date, Value::Date(-1), Some(Value::Timestamp(-DAY_US))),
        ("T", T::Date, Value::Date(i32::MIN), Some(Value::Timestamp(i64::MIN))),
        ("T", T::Date, Value::Date(i32::MAX - 1), None),
        ("D", T::Date, Value::Date(7), Some(Value::Date(7))),
    ] {
        let mut text = String::new();
        assert_eq!(cast(item, of, value, &mut text), kept, "{item} {value:?}");
    }
}
