//! The suite on tables in memory, and that a name is one database for all who ask for it.

use super::*;
use crate::Read;
use crate::contract::{Bench, Rows, small, spec};
use posthouse_protocol::filter::Filter;
use std::sync::atomic::{AtomicU32, Ordering};

struct MemoryBench(MemoryDatabase);

impl Bench for MemoryBench {
    const KEYED: bool = true;
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        Self(MemoryDatabase::named(&format!("suite {}", NUMBER.fetch_add(1, Ordering::Relaxed))))
    }
    fn destination(&self, landing: &Landing) -> Result<Box<dyn Destination>, Problem> {
        self.0.clone().destination(landing)
    }
    fn source(&self, spec: &TableSpec) -> Option<Box<dyn Source>> {
        Some(self.0.clone().source(spec).unwrap())
    }
    fn make_strict(&self, table: &str, contract: &Contract, column: &str) -> bool {
        let mut contract = contract.clone();
        contract.items.iter_mut().filter(|item| item.name == column).for_each(|item| item.nullable = false);
        self.0.create(table, contract);
        true
    }
    fn lose(&self) {
        self.0.set_lost(true);
    }
}

crate::contract::suite!(MemoryBench);

#[test]
fn a_snapshot_stays_as_it_was_while_rows_change() {
    let database = MemoryDatabase::named("snapshot");
    database.create("t", small());
    let row = |id: i64, name: &str| vec![OwnedValue::Integer(id), OwnedValue::Text(name.to_owned()), OwnedValue::Null];
    (0..10).for_each(|id| assert!(database.put("t", row(id, "before"))));
    database.set_split_rows(4);
    let mut source = database.clone().source(&spec("t")).unwrap();
    let plan = source.begin(&Read { filter: Some(Filter::parse("id >= 2").unwrap()), ..Read::default() }).unwrap();
    assert!(database.put("t", row(3, "after")));
    assert_eq!(database.delete("t", |row| row[0] == OwnedValue::Integer(4)), 1);
    let (mut rows, mut filtered) = (Rows::default(), 0);
    for split in &plan.splits {
        filtered += source.read(split, &mut rows).unwrap().filtered;
    }
    assert_eq!((plan.splits.len(), rows.count(), filtered), (3, 8, 2));
    assert!(rows.json(&small()).iter().all(|row| row.contains("before")));
    assert!(!database.put("t", vec![OwnedValue::Null]));
}

#[test]
fn one_name_is_one_database() {
    MemoryDatabase::named("shared").create("t", small());
    assert!(MemoryDatabase::named("shared").put("t", vec![OwnedValue::Integer(1), OwnedValue::Null, OwnedValue::Null]));
    assert_eq!(MemoryDatabase::named("shared").rows("t").len(), 1);
    MemoryDatabase::forget("shared");
    assert_eq!(MemoryDatabase::named("shared").rows("t").len(), 0);
}
