//! The vectors are written by another implementation (`vectors/row_digest.py`); the rest holds for any rows.

use super::*;
use crate::batch::{BatchBuilder, Value};
use crate::schema::{ContractType, Item};

#[test]
fn every_vector_of_the_other_implementation_is_met() {
    let vectors: Vectors = serde_json::from_str(include_str!("../../vectors/row-digest.json")).unwrap();
    assert_eq!(vectors.buckets, BUCKETS);
    assert_eq!(vectors.cases.len(), 5);
    for case in vectors.cases {
        let contract = Contract { items: case.items, key: case.key_columns };
        let mut key = [0; 32];
        hex::decode_to_slice(&case.key, &mut key).unwrap();
        let mut digester = Digester::new(key);
        let (mut total, mut buckets) = (RowDigest::default(), BucketDigest::new());
        for row in &case.rows {
            let batch = batch_of(&contract, &row.values);
            let mut form = vec![encoding::ROW];
            for index in 0..contract.items.len() {
                encoding::encode(&batch, index, 0, &mut json::Canonicalizer::default(), &mut form).unwrap();
            }
            assert_eq!(hex::encode(&form), row.encoding, "{}: {:?}", case.name, row.values);
            digester.rows(&batch, &mut total).unwrap();
            digester.buckets(&batch, &mut buckets).unwrap();
            let each = |hash: RowHash| {
                assert_eq!((hex::encode(hash.hash), hash.bucket), (row.hash.clone(), row.bucket), "{}", case.name);
            };
            digester.each(&batch, each).unwrap();
        }
        assert_eq!((hex::encode(total.sum), total.count), (case.sum, case.count), "{}", case.name);
        assert_eq!(buckets.total(), total);
        let mut salt = [0; 32];
        hex::decode_to_slice(&case.salt, &mut salt).unwrap();
        assert_eq!(hex::encode(total.commitment(&salt)), case.commitment, "{}", case.name);
    }
}

#[test]
fn what_is_added_can_be_taken_away_and_order_does_not_matter() {
    let hashes = [[0xff; 32], [0x80; 32], std::array::from_fn(|i| i as u8)];
    let (mut forwards, mut backwards) = (RowDigest::default(), RowDigest::default());
    hashes.iter().for_each(|hash| forwards.add(hash));
    hashes.iter().rev().for_each(|hash| backwards.add(hash));
    assert_eq!(forwards, backwards);
    let mut twice = forwards;
    twice.merge(&backwards);
    hashes.iter().for_each(|hash| twice.sub(hash));
    assert_eq!(twice, forwards);
    hashes.iter().for_each(|hash| forwards.sub(hash));
    assert_eq!(forwards, RowDigest::default());
}

#[test]
fn the_bytes_of_all_buckets_read_back_and_name_the_one_that_differs() {
    let mut ours = BucketDigest::new();
    ours.add(0, &[1; 32]);
    ours.add(4095, &[2; 32]);
    let bytes = ours.to_bytes();
    assert_eq!(bytes.len(), BUCKETS * DIGEST_BYTES);
    let mut theirs = BucketDigest::from_bytes(&bytes).unwrap();
    assert_eq!(ours, theirs);
    theirs.add(7, &[3; 32]);
    assert_eq!(ours.differing(&theirs), [7]);
    assert_eq!(BucketDigest::from_bytes(&bytes[1..]), None);
}

#[test]
fn another_contract_or_epoch_has_another_key() {
    let resource = "housing.xian.example/permits".parse().unwrap();
    let contract = Contract { items: vec![item("a", ContractType::Text)], key: vec![] };
    let other = Contract { items: vec![item("a", ContractType::Char)], key: vec![] };
    let key = digest_key(&resource, &contract, 1);
    assert_eq!(key, digest_key(&resource, &contract, 1));
    assert_ne!(key, digest_key(&resource, &contract, 2));
    assert_ne!(key, digest_key(&resource, &other, 1));
}

#[test]
fn text_that_is_not_json_has_no_digest() {
    let contract = Contract { items: vec![item("a", ContractType::Json)], key: vec![] };
    let batch = batch_of(&contract, &[serde_json::json!("{\"x\":1,\"x\":2}")]);
    assert!(Digester::new([0; 32]).rows(&batch, &mut RowDigest::default()).is_err());
}

fn batch_of(contract: &Contract, values: &[serde_json::Value]) -> Batch {
    let bytes: Vec<Vec<u8>> =
        values.iter().map(|v| hex::decode(v.as_str().unwrap_or("")).unwrap_or_default()).collect();
    let row = values.iter().zip(&contract.items).zip(&bytes).map(|((value, item), bytes)| {
        let text = value.as_str();
        if value.is_null() {
            return Value::Null;
        }
        match item.r#type {
            ContractType::Boolean => Value::Boolean(value.as_bool().unwrap()),
            ContractType::Integer => Value::Integer(value.as_i64().unwrap()),
            ContractType::Decimal { scale, .. } => Value::Decimal(text.unwrap().parse().unwrap(), scale),
            ContractType::Float => Value::Float(f64::from_bits(u64::from_str_radix(text.unwrap(), 16).unwrap())),
            ContractType::Text | ContractType::Char | ContractType::Json => Value::Text(text.unwrap()),
            ContractType::Number => Value::Number(text.unwrap()),
            ContractType::Bytes => Value::Bytes(bytes),
            ContractType::Date => Value::Date(value.as_i64().unwrap() as i32),
            ContractType::Timestamp => Value::Timestamp(value.as_i64().unwrap()),
        }
    });
    let row: Vec<_> = row.collect();
    let mut builder = BatchBuilder::new(contract);
    builder.push(&row).unwrap();
    Batch::new(contract, builder.finish().unwrap()).unwrap()
}

fn item(name: &str, r#type: ContractType) -> Item {
    Item { name: name.to_owned(), r#type, nullable: true, comment: None }
}

#[derive(serde::Deserialize)]
struct Vectors {
    buckets: usize,
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    key: String,
    items: Vec<Item>,
    key_columns: Vec<String>,
    rows: Vec<Row>,
    sum: String,
    count: u64,
    salt: String,
    commitment: String,
}

#[derive(serde::Deserialize)]
struct Row {
    values: Vec<serde_json::Value>,
    encoding: String,
    hash: String,
    bucket: u16,
}
