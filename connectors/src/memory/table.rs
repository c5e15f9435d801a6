//! A table's rows and what is staged for it. A row is found by its key where the table has one; numbers say
//! in which order rows came, and never change.

use crate::{Applied, BadRow};
use posthouse_protocol::batch::Value;
use posthouse_protocol::number::Number;
use posthouse_protocol::schema::{Contract, ContractType};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One value, owned.
#[derive(Debug, Clone, PartialEq)]
pub enum OwnedValue {
    Null,
    Boolean(bool),
    Integer(i64),
    /// Unscaled, with its scale.
    Decimal(i128, i8),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Date(i32),
    Timestamp(i64),
    /// In the one form of `protocol::number`.
    Number(String),
}

/// Values in the order of the contract's items.
pub type Row = Vec<OwnedValue>;

impl OwnedValue {
    pub fn as_value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Boolean(value) => Value::Boolean(*value),
            Self::Integer(value) => Value::Integer(*value),
            Self::Decimal(unscaled, scale) => Value::Decimal(*unscaled, *scale),
            Self::Float(value) => Value::Float(*value),
            Self::Text(value) => Value::Text(value),
            Self::Bytes(value) => Value::Bytes(value),
            Self::Date(value) => Value::Date(*value),
            Self::Timestamp(value) => Value::Timestamp(*value),
            Self::Number(value) => Value::Number(value),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) contract: Contract,
    rows: BTreeMap<u64, Arc<Row>>,
    keys: BTreeMap<String, u64>,
    next: u64,
}

/// What one transfer has staged.
#[derive(Debug, Clone, Default)]
pub(super) struct Staging {
    pub(super) target: String,
    pub(super) applied: Vec<Applied>,
    pub(super) bad: BTreeMap<String, Vec<BadRow>>,
    pub(super) rows: Vec<Arc<Row>>,
    pub(super) keys: std::collections::BTreeSet<String>,
    pub(super) epoch: u64,
}

impl Table {
    pub(super) fn new(contract: Contract) -> Self {
        Self { contract, rows: BTreeMap::new(), keys: BTreeMap::new(), next: 1 }
    }
    pub(super) fn rows(&self) -> impl Iterator<Item = &Arc<Row>> {
        self.rows.values()
    }
    pub(super) fn numbered(&self) -> &BTreeMap<u64, Arc<Row>> {
        &self.rows
    }
    pub(super) fn len(&self) -> u64 {
        self.rows.len() as u64
    }
    pub(super) fn find(&self, key: &str) -> Option<&Arc<Row>> {
        self.rows.get(self.keys.get(key)?)
    }
    /// Why the table does not take a row, if so.
    pub(super) fn refuses(&self, row: &Row) -> Option<String> {
        if row.len() != self.contract.items.len() {
            return Some(format!("it has {} values", row.len()));
        }
        let refused = self.contract.items.iter().zip(row).find(|(item, value)| {
            let required = !item.nullable || self.contract.key.contains(&item.name);
            (**value == OwnedValue::Null && required) || !fits(item.r#type, value)
        });
        refused.map(|(item, value)| match value {
            OwnedValue::Null => format!("`{}` may not be NULL", item.name),
            _ => format!("`{}` does not take {}", item.name, value.as_value()),
        })
    }
    pub(super) fn put(&mut self, row: impl Into<Arc<Row>>) -> Result<bool, String> {
        let row = row.into();
        if let Some(reason) = self.refuses(&row) {
            return Err(reason);
        }
        let number = match key_of(&self.contract, &row) {
            Some(key) => *self.keys.entry(key).or_insert(self.next),
            None => self.next,
        };
        self.next = self.next.max(number + 1);
        Ok(self.rows.insert(number, row).is_none())
    }
    pub(super) fn delete(&mut self, gone: impl Fn(&Row) -> bool) -> usize {
        let before = self.rows.len();
        self.rows.retain(|_, row| !gone(row));
        let rows = &self.rows;
        self.keys.retain(|_, number| rows.contains_key(number));
        before - self.rows.len()
    }
}

/// The row's key such that equal keys are equal text; none where the contract has no key.
pub(super) fn key_of(contract: &Contract, row: &Row) -> Option<String> {
    if contract.key.is_empty() {
        return None;
    }
    let parts = contract.key_positions().into_iter().filter_map(|position| row.get(position));
    Some(parts.map(|value| format!("{:?}", value.as_value().normal())).collect::<Vec<_>>().join(","))
}

fn fits(r#type: ContractType, value: &OwnedValue) -> bool {
    match (r#type, value) {
        (_, OwnedValue::Null)
        | (ContractType::Boolean, OwnedValue::Boolean(_))
        | (ContractType::Integer, OwnedValue::Integer(_))
        | (ContractType::Float, OwnedValue::Float(_))
        | (ContractType::Text | ContractType::Char | ContractType::Json, OwnedValue::Text(_))
        | (ContractType::Bytes, OwnedValue::Bytes(_))
        | (ContractType::Date, OwnedValue::Date(_))
        | (ContractType::Timestamp, OwnedValue::Timestamp(_)) => true,
        (ContractType::Decimal { scale, .. }, OwnedValue::Decimal(_, found)) => scale == *found,
        (ContractType::Number, OwnedValue::Number(text)) => Number::parse(text).is_some(),
        _ => false,
    }
}
