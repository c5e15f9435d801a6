//! The key of an unread row as bytes: equal keys, and no others, are equal. Also that of a row which its source could not
//! read, as far as what a person is shown of it tells: no later row of that key may go before it.

use posthouse_connectors::types::{parse_date, parse_timestamp};
use posthouse_protocol::batch::{Batch, Value};
use posthouse_protocol::schema::{Contract, ContractType};
use serde_json::Value as Shown;
use std::collections::BTreeMap;

/// What is known of the key of a row that could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// In the form of [`of_row`].
    Key(Vec<u8>),
    /// No row that can be read has it: a part of it is NULL, or is itself what cannot be read.
    NoOther,
    /// It may be any row's.
    Unknown,
}

/// None where a part of it is NULL. `key` are positions in `contract`.
pub(super) fn of_row(contract: &Contract, key: &[usize], batch: &Batch, row: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for at in key {
        let text = match batch.value(*at, row) {
            Value::Null => return None,
            value => value.normal().to_string(),
        };
        let is_padded = contract.items.get(*at).is_some_and(|item| item.r#type == ContractType::Char);
        append(if is_padded { text.trim_end_matches(' ') } else { text.as_str() }, &mut bytes);
    }
    Some(bytes)
}

/// By the original values, a JSON object of them by their columns' names.
pub(super) fn of_bad_row(contract: &Contract, key: &[usize], original: &str) -> Told {
    let Ok(values) = serde_json::from_str::<BTreeMap<String, Shown>>(original) else { return Told::Unknown };
    let (mut bytes, mut is_known) = (Vec::new(), true);
    for at in key {
        let item = contract.items.get(*at);
        let Some((item, value)) = item.and_then(|item| Some((item, values.get(&item.name)?))) else {
            return Told::Unknown;
        };
        match part(item.r#type, value) {
            Part::Is(text) => append(&text, &mut bytes),
            Part::Never => return Told::NoOther,
            Part::Maybe => is_known = false,
        }
    }
    if is_known { Told::Key(bytes) } else { Told::Unknown }
}

/// A value of a key as text.
enum Part {
    Is(String),
    /// It is no value that a row has which can be read.
    Never,
    Maybe,
}

/// What is shown is what the database has: a number or a time may be written in another way than where it is read.
fn part(r#type: ContractType, value: &Shown) -> Part {
    use ContractType::*;
    let text = match value {
        Shown::Null => return Part::Never,
        Shown::String(text) => text.clone(),
        Shown::Number(number) => number.to_string(),
        Shown::Bool(value) => value.to_string(),
        Shown::Object(bytes) => match (r#type, bytes.get("hex")) {
            // Its bytes are no characters.
            (Text | Char, _) => return Part::Never,
            (Bytes, Some(Shown::String(hex))) => return Part::Is(hex.clone()),
            _ => return Part::Maybe,
        },
        Shown::Array(_) => return Part::Maybe,
    };
    match r#type {
        Text => Part::Is(text),
        Date => Part::Is(match parse_date(&text) {
            // An endless one is written otherwise where it is read.
            Some(days) => Value::Date(days).to_string(),
            None => text,
        }),
        Char => Part::Is(text.trim_end_matches(' ').to_owned()),
        Integer | Decimal { .. } | Number => digits(&text),
        Timestamp => time(&text),
        Boolean => match text.as_str() {
            "true" | "1" => Part::Is("true".to_owned()),
            "false" | "0" => Part::Is("false".to_owned()),
            _ => Part::Maybe,
        },
        Bytes => match text.strip_prefix("\\x") {
            Some(hex) if hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => Part::Is(hex.to_owned()),
            // Bytes that are characters too may be shown as these.
            _ => Part::Is(hex::encode(text.as_bytes())),
        },
        Float | Json => Part::Maybe,
    }
}

/// A number in its one form.
fn digits(text: &str) -> Part {
    let text = text.strip_prefix('+').unwrap_or(text);
    let (sign, number) = text.strip_prefix('-').map_or(("", text), |number| ("-", number));
    if !number.bytes().any(|byte| byte.is_ascii_digit()) {
        return Part::Is(text.to_owned());
    }
    if number.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'))
        && number.contains(['e', 'E'])
    {
        // In powers of ten it may be any.
        return Part::Maybe;
    }
    let number = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    };
    let number = number.trim_start_matches('0');
    Part::Is(match number {
        "" => "0".to_owned(),
        number if number.starts_with('.') => format!("{sign}0{number}"),
        number => format!("{sign}{number}"),
    })
}

/// A time in its one form. Midnight may be shown as the day alone, and UTC as `+00`.
fn time(text: &str) -> Part {
    let whole = match text.strip_suffix("+00") {
        Some(time) => format!("{time}Z"),
        None if text.len() == "2026-11-28".len() => format!("{text} 00:00:00"),
        None => text.to_owned(),
    };
    parse_timestamp(&whole).map_or(Part::Maybe, |us| Part::Is(Value::Timestamp(us).to_string()))
}

fn append(text: &str, key: &mut Vec<u8>) {
    key.extend_from_slice(&(text.len() as u64).to_be_bytes());
    key.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use posthouse_protocol::batch::BatchBuilder;
    use posthouse_protocol::schema::Item;

    fn contract(types: &[ContractType]) -> Contract {
        let item = |(at, r#type): (usize, &ContractType)| Item {
            name: format!("k{at}"),
            r#type: *r#type,
            nullable: true,
            comment: None,
        };
        Contract { items: types.iter().enumerate().map(item).collect(), key: vec![] }
    }

    #[test]
    fn a_bad_row_has_the_key_of_the_good_ones_however_its_database_writes_it() {
        let decimal = ContractType::Decimal { precision: 10, scale: 2 };
        let cases: [(ContractType, Value<'_>, &[&str]); 12] = [
            (ContractType::Integer, Value::Integer(-120), &["-120", "\"-120\"", "-120.0"]),
            (ContractType::Integer, Value::Integer(0), &["0", "\"0\"", "0.0", "\"-0\""]),
            (decimal, Value::Decimal(1_250, 2), &["12.50", "\"12.50\"", "12.5", "\"012.5\""]),
            (decimal, Value::Decimal(-50, 2), &["-0.5", "\"-.50\""]),
            (ContractType::Text, Value::Text("a 1"), &["\"a 1\"", "\"a\\u0020\\u0031\""]),
            (ContractType::Char, Value::Text("a "), &["\"a\"", "\"a   \""]),
            (ContractType::Bytes, Value::Bytes(&[0xff, 1]), &["{\"hex\":\"ff01\"}", "\"\\\\xff01\""]),
            (ContractType::Bytes, Value::Bytes(b"ab"), &["{\"hex\":\"6162\"}", "\"ab\"", "\"\\\\x6162\""]),
            (ContractType::Date, Value::Date(0), &["\"1970-01-01\""]),
            (ContractType::Date, Value::Date(i32::MAX), &["\"infinity\""]),
            (ContractType::Boolean, Value::Boolean(true), &["true", "\"true\"", "1"]),
            (
                ContractType::Timestamp,
                Value::Timestamp(0),
                &[
                    "\"1970-01-01\"",
                    "\"1970-01-01 00:00:00\"",
                    "\"1970-01-01 00:00:00.000000\"",
                    "\"1970-01-01 00:00:00+00\"",
                    "\"1970-01-01T00:00:00Z\"",
                ],
            ),
        ];
        for (r#type, value, shown) in cases {
            let contract = contract(&[r#type]);
            let mut builder = BatchBuilder::new(&contract);
            builder.push(&[value]).unwrap();
            let batch = Batch::new(&contract, builder.finish().unwrap()).unwrap();
            let key = of_row(&contract, &[0], &batch, 0).unwrap();
            for shown in shown {
                let original = format!("{{\"x\":1,\"k0\":{shown}}}");
                assert_eq!(of_bad_row(&contract, &[0], &original), Told::Key(key.clone()), "{original}");
            }
        }
    }

    #[test]
    fn what_cannot_be_told_may_be_any_key_and_what_cannot_be_read_is_none() {
        let two = contract(&[ContractType::Text, ContractType::Float]);
        let told = |original: &str| of_bad_row(&two, &[0, 1], original);
        assert_eq!(told("{\"k0\":\"a\",\"k1\":0.1}"), Told::Unknown, "it is written in many ways");
        assert_eq!(told("{\"k0\":{\"hex\":\"ff\"},\"k1\":0.1}"), Told::NoOther);
        assert_eq!(told("{\"k0\":\"a\",\"k1\":null}"), Told::NoOther);
        assert_eq!(told("{\"k0\":\"a\"}"), Told::Unknown);
        assert_eq!(told("no object"), Told::Unknown);
        let number = contract(&[ContractType::Integer]);
        assert_eq!(of_bad_row(&number, &[0], "{\"k0\":1e3}"), Told::Unknown);
    }
}
