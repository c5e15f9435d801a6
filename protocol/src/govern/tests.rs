//! A resource's rules on real rows, and the ones that must not be accepted.

use super::*;
use crate::batch::{BatchBuilder, Value};
use crate::schema::Item;
use proptest::prelude::*;

fn contract() -> Contract {
    let item = |(name, r#type): (&str, ContractType)| Item {
        name: name.to_owned(),
        r#type,
        nullable: name != "sfzh",
        comment: None,
    };
    let columns = [
        ("sfzh", ContractType::Char),
        ("xm", ContractType::Text),
        ("phone", ContractType::Text),
        ("born", ContractType::Date),
        ("updated", ContractType::Timestamp),
    ];
    Contract { items: columns.map(item).to_vec(), key: vec!["sfzh".to_owned()] }
}

fn rows(contract: &Contract, rows: &[[Value<'_>; 5]]) -> RecordBatch {
    let mut builder = BatchBuilder::new(contract);
    rows.iter().for_each(|row| builder.push(row).unwrap());
    builder.finish().unwrap()
}

fn governing() -> Governing {
    let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let mask = |(column, mask): (&str, &str)| (column.to_owned(), mask.parse().unwrap());
    Governing {
        columns: Some(contract().items.iter().map(|item| item.name.clone()).collect()),
        rename: map(&[("xm", "name"), ("sfzh", "id_number")]),
        masks: [("sfzh", "hmac-sm3"), ("phone", "keep:3:4"), ("born", "null")].map(mask).into(),
        checks: vec![
            Check { column: "sfzh".to_owned(), rules: vec![Rule::IdCard], severity: Severity::Quarantine },
            Check { column: "xm".to_owned(), rules: vec![Rule::Required], severity: Severity::Count },
        ],
        dialect: Dialect::default(),
    }
}

fn key() -> MaskKey {
    MaskKey::new(b"0123456789abcdef".to_vec()).unwrap()
}

fn granted(column: &str, mask: &str) -> ColumnMask {
    ColumnMask { column: column.to_owned(), mask: mask.parse().unwrap() }
}

const GOOD: &str = "11010519491231002X";

#[test]
fn a_row_is_checked_as_it_was_and_handed_over_masked_under_other_names() {
    let source = contract();
    let mut steps = governing().steps(&source, &[], Some("updated"), Some(&key())).unwrap();
    let [date, time] = [Value::Date(1), Value::Timestamp(2)];
    let passed = steps
        .pass(rows(
            &source,
            &[
                [Value::Text(GOOD), Value::Text("张三"), Value::Text("13812345678"), date, time],
                [Value::Text("110105194912310021"), Value::Text("李四"), Value::Text("13912345678"), date, time],
                [Value::Text("440524188001010014"), Value::Null, Value::Null, Value::Null, Value::Null],
            ],
        ))
        .unwrap();
    let batch = Batch::new(steps.contract(), passed.rows.unwrap()).unwrap();
    let names: Vec<&str> = steps.contract().items.iter().map(|item| item.name.as_str()).collect();
    assert_eq!(names, ["id_number", "name", "phone", "born", "updated"]);
    assert_eq!(steps.contract().key, ["id_number"]);
    assert_eq!(steps.contract().items[0].r#type, ContractType::Text);
    assert_eq!(batch.rows(), 2);
    // printf %s 11010519491231002X | openssl dgst -sm3 -hmac 0123456789abcdef
    let hashed = "82a850949bc4a2d1c04325d5aad941b2a131908feb5f09f3bbb0e18289f5662e";
    assert_eq!(batch.value(0, 0), Value::Text(hashed));
    assert_eq!(batch.value(1, 0), Value::Text("张三"));
    assert_eq!(batch.value(2, 0), Value::Text("138****5678"));
    assert_eq!(batch.value(2, 1), Value::Null);
    assert_eq!((batch.value(3, 0), batch.value(4, 0)), (Value::Null, Value::Timestamp(2)));
    // The row that stays behind is kept as it was.
    let [refused] = passed.refused.as_slice() else { panic!("one row is refused") };
    assert_eq!(refused.key, "110105194912310021");
    assert_eq!(refused.reason, "`sfzh`: its check digit is wrong (id_card)");
    assert!(refused.original.contains("李四") && refused.original.contains("13912345678"), "{}", refused.original);
    let quality = steps.take_quality().unwrap();
    assert_eq!((quality.rows, quality.qualified), (3, 1));
    assert_eq!(quality.failed[0], FailedRule { column: "id_number".to_owned(), rule: "id_card".to_owned(), rows: 1 });
    assert_eq!(quality.failed[1], FailedRule { column: "name".to_owned(), rule: "required".to_owned(), rows: 1 });
    let said: Vec<String> = steps
        .governed()
        .iter()
        .map(|governed| format!("{}: {}", governed.column.as_deref().unwrap_or("*"), governed.what))
        .collect();
    let tag = key().tag();
    assert_eq!(
        said,
        [
            format!("id_number: hmac-sm3 key {tag}"),
            "phone: keep 3+4".to_owned(),
            "born: null".to_owned(),
            "id_number: check id_card (quarantine)".to_owned(),
            "name: check required (count)".to_owned(),
        ]
    );
}

#[test]
fn a_batch_of_which_nothing_is_left_gives_no_batch() {
    let source = contract();
    let mut steps = governing().steps(&source, &[], None, Some(&key())).unwrap();
    let bad = [Value::Text("1"), Value::Null, Value::Null, Value::Null, Value::Null];
    let passed = steps.pass(rows(&source, &[bad, bad])).unwrap();
    assert!(passed.rows.is_none());
    assert_eq!(passed.refused.len(), 2);
}

#[test]
fn a_mask_that_leaves_the_type_as_it_is_still_masks() {
    let source = contract();
    let governing = Governing { masks: [("xm".to_owned(), Mask::Keep(1, 0))].into(), ..Governing::default() };
    let mut steps = governing.steps(&source, &[], None, None).unwrap();
    assert_eq!(*steps.contract(), source);
    let row = [Value::Text(GOOD), Value::Text("张三"), Value::Null, Value::Null, Value::Null];
    let batch = Batch::new(&source, steps.pass(rows(&source, &[row])).unwrap().rows.unwrap()).unwrap();
    assert_eq!(batch.value(1, 0), Value::Text("张*"));
    assert_eq!(batch.value(0, 0), Value::Text(GOOD));
}

#[test]
fn names_alone_leave_rows_as_they_are() {
    let source = contract();
    let governing = Governing { rename: [("xm".to_owned(), "name".to_owned())].into(), ..Governing::default() };
    assert!(!governing.looks_at_rows() && !governing.is_empty() && Governing::default().is_empty());
    let mut steps = governing.steps(&source, &[], None, None).unwrap();
    let row = [Value::Text(GOOD), Value::Text("张三"), Value::Null, Value::Null, Value::Null];
    let passed = steps.pass(rows(&source, &[row])).unwrap().rows.unwrap();
    assert_eq!(passed.schema().field(1).name(), "name");
    let batch = Batch::new(steps.contract(), passed).unwrap();
    assert_eq!(batch.value(1, 0), Value::Text("张三"));
    assert!(steps.governed().is_empty() && steps.take_quality().is_none());
}

#[test]
fn a_grant_hides_more_and_never_less() {
    let source = contract();
    let prescribed = [granted("phone", "sm3"), granted("name", "constant:不提供")];
    let mut steps = governing().steps(&source, &prescribed, None, Some(&key())).unwrap();
    let row = [Value::Text(GOOD), Value::Null, Value::Text("13812345678"), Value::Null, Value::Null];
    let passed = steps.pass(rows(&source, &[row])).unwrap().rows.unwrap();
    let batch = Batch::new(steps.contract(), passed).unwrap();
    let of_masked = keyed::Hasher::new(Algorithm::Sm3, None).unwrap().hex("138****5678".as_bytes());
    assert_eq!(batch.value(2, 0), Value::Text(&of_masked), "it is the hash of what the resource itself shows");
    assert_eq!(batch.value(1, 0), Value::Text("不提供"), "NULL is not told either");
}

#[test]
fn what_cannot_be_done_is_refused_before_anything_moves() {
    let source = contract();
    let wrong = |governing: &Governing, granted: &[ColumnMask], watermark: Option<&str>, key: Option<&MaskKey>| {
        governing.steps(&source, granted, watermark, key).err()
    };
    let with = |column: &str, mask: &str| Governing {
        masks: [(column.to_owned(), mask.parse().unwrap())].into(),
        ..Governing::default()
    };
    let column = || "sfzh".to_owned();
    assert_eq!(
        wrong(&with("sfzh", "keep:6:4"), &[], None, None),
        Some(GovernError::Key { column: column(), mask: "keep 6+4".to_owned() })
    );
    assert!(matches!(wrong(&with("sfzh", "null"), &[], None, None), Some(GovernError::Key { .. })));
    assert_eq!(wrong(&with("sfzh", "sm3"), &[], None, None), None);
    assert_eq!(wrong(&with("sfzh", "hmac-sm3"), &[], None, None), Some(GovernError::NoKey { column: column() }));
    let mark = GovernError::Watermark { column: "updated".to_owned() };
    assert_eq!(wrong(&with("updated", "sm3"), &[], Some("updated"), None), Some(mark));
    assert!(matches!(wrong(&with("born", "keep:4:0"), &[], None, None), Some(GovernError::MaskType { .. })));
    let none = Governing::default();
    let unknown = GovernError::NotOffered { column: "fone".to_owned() };
    assert_eq!(wrong(&none, &[granted("fone", "null")], None, None), Some(unknown));
    assert!(matches!(wrong(&none, &[granted("sfzh", "null")], None, None), Some(GovernError::Key { .. })));
    let twice = Governing { rename: [("xm".to_owned(), "phone".to_owned())].into(), ..Governing::default() };
    assert_eq!(wrong(&twice, &[], None, None), Some(GovernError::Twice { column: "phone".to_owned() }));
}

#[test]
fn a_grant_names_columns_as_they_are_offered() {
    let governing = Governing {
        columns: Some(["id", "xm", "a", "b"].map(str::to_owned).to_vec()),
        rename: [("xm", "name"), ("a", "b"), ("b", "a")].map(|(a, b)| (a.to_owned(), b.to_owned())).into(),
        ..Governing::default()
    };
    let columns = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        governing.source_columns(Some(&names))
    };
    assert_eq!(columns(&["name", "id", "a"]), Ok(Some(["xm", "id", "b"].map(str::to_owned).to_vec())));
    assert_eq!(governing.source_columns(None), Ok(governing.columns.clone()));
    for hidden in ["xm", "secret"] {
        assert_eq!(columns(&["id", hidden]), Err(GovernError::NotOffered { column: hidden.to_owned() }));
    }
    let filter = Filter::parse("name = 'x' AND (NOT a IN (1, 2) OR division = '610100')").unwrap();
    let expected = Filter::parse("xm = 'x' AND (NOT b IN (1, 2) OR division = '610100')").unwrap();
    assert_eq!(governing.source_filter(&filter), expected);
}

#[test]
fn what_is_done_must_fit_into_a_statement() {
    let item = |at: u32| Item {
        name: format!("a column of a long name, {at}"),
        r#type: ContractType::Text,
        nullable: true,
        comment: None,
    };
    let source = Contract { items: (0..500).map(item).collect(), key: Vec::new() };
    let masks = source.items.iter().map(|item| (item.name.clone(), Mask::Keep(1, 1))).collect();
    let governing = Governing { masks, ..Governing::default() };
    assert!(matches!(governing.steps(&source, &[], None, None).err(), Some(GovernError::TooMuch { .. })));
}

proptest! {
    #[test]
    fn a_hashed_key_tells_apart_what_the_key_told_apart(
        keys in proptest::collection::btree_set("[0-9X]{1,18}", 1..40),
    ) {
        let source = contract();
        let masks = [("sfzh".to_owned(), Mask::Hash(Algorithm::HmacSm3))].into();
        let governing = Governing { masks, ..Governing::default() };
        let mut steps = governing.steps(&source, &[], None, Some(&key())).unwrap();
        let given: Vec<[Value<'_>; 5]> =
            keys.iter().map(|key| [Value::Text(key), Value::Null, Value::Null, Value::Null, Value::Null]).collect();
        let passed = steps.pass(rows(&source, &given)).unwrap().rows.unwrap();
        let batch = Batch::new(steps.contract(), passed).unwrap();
        let masked: std::collections::BTreeSet<String> = (0..batch.rows()).map(|row| batch.key_text(row)).collect();
        prop_assert_eq!(masked.len(), keys.len());
        prop_assert!(masked.is_disjoint(&keys));
    }
}

#[test]
fn another_mask_or_key_is_said_otherwise_and_a_rule_for_rows_is_not() {
    let said = |column: Option<&str>, what: &str| Governed { column: column.map(str::to_owned), what: what.to_owned() };
    let before = vec![
        said(None, "empty = null"),
        said(Some("born"), "dates = yyyyMMdd"),
        said(Some("id"), "hmac-sm3 key 00"),
        said(Some("name"), "check required (quarantine)"),
    ];
    let masks = |now: &[Governed]| said_otherwise(&before, now, &Governed::is_mask);
    let values = |now: &[Governed]| said_otherwise(&before, now, &Governed::changes_values);
    let mut other = before.clone();
    other.reverse();
    other.retain(|said| !said.what.starts_with("check"));
    assert_eq!((masks(&other), values(&other)), (None, None));
    other.retain(|said| said.column.is_some());
    assert_eq!(masks(&other), None);
    assert_eq!(values(&other).as_deref(), Some("before: * empty = null; now: nothing"));
    other.iter_mut().for_each(|said| said.what = said.what.replace("key 00", "key 01"));
    assert_eq!(masks(&other).as_deref(), Some("before: id hmac-sm3 key 00; now: id hmac-sm3 key 01"));
    other.retain(|said| !said.is_mask());
    assert_eq!(masks(&other).as_deref(), Some("before: id hmac-sm3 key 00; now: nothing"));
}
