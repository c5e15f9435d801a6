//! Lands in a table of a named database. Each call holds the database's lock to its end, which is what a
//! transaction is elsewhere: a call that fails leaves nothing.

use super::table::{self, Staging, Table, key_of};
use super::{MemoryDatabase, OwnedValue, Row};
use crate::publishing::check_mirror;
use crate::types::{self, Window};
use crate::{Applied, BadRow, Destination, Landing, Published, Publishing, Sink, SplitLanded, too_many_refused};
use arrow::record_batch::RecordBatch;
use posthouse_protocol::batch::{Batch, BatchBuilder, Value, json_row};
use posthouse_protocol::job::Write;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::Contract;
use posthouse_protocol::watermark::Watermark;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) struct MemoryDestination {
    database: MemoryDatabase,
    landing: Landing,
}

impl MemoryDestination {
    pub(super) fn new(database: MemoryDatabase, landing: &Landing) -> Result<Self, Problem> {
        posthouse_protocol::batch::check_contract(&landing.contract)?;
        if landing.operation.is_some() {
            let cause = "changes of a front-end table land in databases of other kinds";
            return Err(Problem::new(Code::DestinationFailed).with("target", &landing.table).cause(cause));
        }
        Ok(Self { database, landing: landing.clone() })
    }
    fn id(&self) -> &str {
        self.landing.transfer.as_str()
    }
    fn check(&self, found: Option<&Table>) -> Result<(), Problem> {
        let landing = &self.landing;
        let no_key = || Problem::new(Code::KeyMissing).with("table", &landing.table).with("write", landing.write);
        if matches!(landing.write, Write::Upsert | Write::Mirror) && landing.contract.key.is_empty() {
            return Err(no_key());
        }
        let Some(found) = found else { return Ok(()) };
        let columns = |contract: &Contract| {
            contract
                .items
                .iter()
                .map(|item| (item.name.clone(), types::type_name(item.r#type)))
                .collect::<BTreeSet<_>>()
        };
        if columns(&found.contract) != columns(&landing.contract) {
            let (resource, table) = (types::schema_text(&landing.contract), types::schema_text(&found.contract));
            return Err(types::drift(&landing.table, &resource, &table, "names or types differ"));
        }
        let sorted = |key: &[String]| key.iter().cloned().collect::<BTreeSet<_>>();
        if landing.write != Write::Replace && sorted(&found.contract.key) != sorted(&landing.contract.key) {
            return Err(no_key().cause(format!("the table's key is ({})", found.contract.key.join(", "))));
        }
        Ok(())
    }
    fn check_epoch(&self, staging: Option<&Staging>) -> Result<(), Problem> {
        match staging {
            Some(staging) if staging.epoch > self.landing.node_epoch => Err(Problem::new(Code::Fenced)),
            _ => Ok(()),
        }
    }
}

impl Destination for MemoryDestination {
    fn prepare(&mut self) -> Result<(), Problem> {
        let mut inner = self.database.here()?;
        self.check(inner.tables.get(&self.landing.table))?;
        self.check_epoch(inner.staging.get(self.id()))?;
        let (contract, table) = (self.landing.contract.clone(), self.landing.table.clone());
        inner.tables.entry(table.clone()).or_insert_with(|| Table::new(contract));
        if !inner.published.contains_key(self.id()) {
            let staging = inner.staging.entry(self.id().to_owned()).or_default();
            (staging.target, staging.epoch) = (table, self.landing.node_epoch);
        }
        Ok(())
    }
    fn applied(&mut self) -> Result<Vec<Applied>, Problem> {
        let inner = self.database.here()?;
        Ok(inner.staging.get(self.id()).map_or_else(Vec::new, |staging| staging.applied.clone()))
    }
    fn published(&mut self) -> Result<Option<Published>, Problem> {
        Ok(self.database.here()?.published.get(self.id()).cloned())
    }

    fn stage(
        &mut self,
        split: &str,
        root: [u8; 32],
        batches: &mut dyn Iterator<Item = Result<RecordBatch, Problem>>,
    ) -> Result<SplitLanded, Problem> {
        let mut inner = self.database.here()?;
        self.check_epoch(inner.staging.get(self.id()))?;
        let mut staging = inner.staging.get(self.id()).cloned().unwrap_or_default();
        if let Some(applied) = staging.applied.iter().find(|applied| applied.split == split) {
            let bad = staging.bad.get(split).cloned().unwrap_or_default();
            return Ok(SplitLanded { landed: applied.landed, bad });
        }
        let mut result = SplitLanded::default();
        for batch in batches {
            let batch = Batch::new(&self.landing.contract, batch?)?;
            for index in 0..batch.rows() {
                let row: Row = batch.columns().iter().map(|column| column.value(index).into()).collect();
                let null = batch.key().iter().any(|key| batch.value(*key, index).is_null());
                let key = key_of(&self.landing.contract, &row);
                let reason = match key {
                    _ if null => Some("a part of its key is NULL"),
                    Some(key) if !staging.keys.insert(key.clone()) => Some("its key came in this transfer already"),
                    _ => None,
                };
                match reason {
                    None => {
                        staging.rows.push(Arc::new(row));
                        result.landed += 1;
                    }
                    Some(reason) => result.bad.push(BadRow {
                        key: batch.key_text(index),
                        reason: reason.to_owned(),
                        original: batch.json(index),
                    }),
                }
            }
        }
        let quarantined = result.bad.len() as u64;
        staging.applied.push(Applied { split: split.to_owned(), root, landed: result.landed, quarantined });
        staging.bad.insert(split.to_owned(), result.bad.clone());
        inner.quarantine.extend(result.bad.iter().cloned());
        inner.staging.insert(self.id().to_owned(), staging);
        Ok(result)
    }

    fn publish_with(&mut self, how: &Publishing) -> Result<Published, Problem> {
        let mut inner = self.database.here()?;
        if let Some(before) = inner.published.get(self.id()) {
            return Ok(before.clone());
        }
        self.check_epoch(inner.staging.get(self.id()))?;
        let staging = inner.staging.get(self.id()).cloned().unwrap_or_default();
        let target = inner.tables.get(&self.landing.table).cloned();
        let mut table = target.unwrap_or_else(|| Table::new(self.landing.contract.clone()));
        let (published, bad) = land(&self.landing, &mut table, staging, how.held_back)?;
        if how.refused_max.is_some_and(|max| published.quarantined > max) {
            return Err(too_many_refused(&self.landing.table, bad.len(), bad.first(), how.refused_max));
        }
        inner.tables.insert(self.landing.table.clone(), table);
        inner.quarantine.extend(bad.iter().cloned());
        inner.refused.insert(self.id().to_owned(), bad);
        inner.staging.remove(self.id());
        inner.published.insert(self.id().to_owned(), published.clone());
        Ok(published)
    }

    fn refused(&mut self) -> Result<Vec<BadRow>, Problem> {
        Ok(self.database.here()?.refused.get(self.id()).cloned().unwrap_or_default())
    }

    fn discard(&mut self) -> Result<(), Problem> {
        self.database.here()?.staging.remove(self.id());
        Ok(())
    }

    fn read_standing(&mut self, to: Option<&Watermark>, sink: &mut dyn Sink) -> Result<u64, Problem> {
        let inner = self.database.here()?;
        let Some(table) = inner.tables.get(&self.landing.table) else { return Ok(0) };
        self.check(Some(table))?;
        let contract = &self.landing.contract;
        let positions: Vec<usize> =
            contract.items.iter().filter_map(|item| table.contract.position(&item.name)).collect();
        let mark = self.landing.watermark_column.as_deref().and_then(|name| table.contract.position(name));
        let window = Window::up_to(to.filter(|_| mark.is_some()));
        let mut builder = BatchBuilder::new(contract);
        let mut rows = 0;
        for row in table.rows() {
            let value = |index: &usize| row.get(*index).map_or(Value::Null, OwnedValue::as_value);
            if mark.as_ref().is_some_and(|mark| !window.holds(&value(mark))) {
                continue;
            }
            builder.push(&positions.iter().map(value).collect::<Vec<_>>())?;
            rows += 1;
            if builder.is_full() {
                sink.batch(builder.finish()?)?;
            }
        }
        if builder.rows() > 0 {
            sink.batch(builder.finish()?)?;
        }
        Ok(rows)
    }

    fn dry_run(&mut self) -> Result<Vec<String>, Problem> {
        let inner = self.database.here()?;
        let found = inner.tables.get(&self.landing.table);
        self.check(found)?;
        let table = &self.landing.table;
        Ok(vec![
            match found {
                None => format!("create table {table} ({})", types::schema_text(&self.landing.contract)),
                Some(found) => format!("table {table} stands with {} rows", found.len()),
            },
            format!("{} in one step", self.landing.write),
        ])
    }
}

/// What publishing makes of a copy of the table; the rows it refuses come back.
fn land(
    landing: &Landing,
    table: &mut Table,
    staging: Staging,
    held_back: u64,
) -> Result<(Published, Vec<BadRow>), Problem> {
    let mut result = Published::default();
    let mut bad = Vec::new();
    let mut rows = staging.rows;
    // Both have the same columns, in an order of their own.
    let order: Vec<usize> =
        table.contract.items.iter().filter_map(|item| landing.contract.position(&item.name)).collect();
    for row in &mut rows {
        *row = Arc::new(order.iter().filter_map(|index| row.get(*index).cloned()).collect());
    }
    let staged = rows.len() as u64;
    let keyed = !table.contract.key.is_empty();
    match landing.write {
        Write::Replace => result.deleted = table.delete(|_| true) as u64,
        Write::Mirror => {
            let contract = table.contract.clone();
            let handed: BTreeSet<_> = rows.iter().filter_map(|row| key_of(&contract, row)).collect();
            let absent = |row: &Row| key_of(&contract, row).is_some_and(|key| !handed.contains(&key));
            let count = table.rows().filter(|row| absent(row)).count() as u64;
            // What is refused while it is staged has no key, or one that is staged.
            if held_back > 0 {
                result.kept = count;
            } else {
                check_mirror(count, table.len())?;
                result.deleted = table.delete(absent) as u64;
            }
        }
        Write::Append if !keyed && landing.watermark_column.is_some() => {
            let mut standing: BTreeMap<String, u64> = BTreeMap::new();
            table.rows().for_each(|row| *standing.entry(whole(row)).or_default() += 1);
            rows.retain(|row| match standing.get_mut(&whole(row)) {
                Some(copies) if *copies > 0 => {
                    *copies -= 1;
                    false
                }
                _ => true,
            });
        }
        Write::Append | Write::Upsert => {}
    }
    for row in rows {
        let before = key_of(&table.contract, &row).and_then(|key| table.find(&key).cloned());
        let refused = match &before {
            Some(before) if whole(before) == whole(&row) => continue,
            Some(_) if landing.write == Write::Append => {
                Some("its key is there with other contents, and append changes nothing".to_owned())
            }
            _ => table.put(row.clone()).err(),
        };
        match (refused, before) {
            (Some(reason), _) => bad.push(bad_row(&table.contract, &row, reason)),
            (None, Some(_)) => result.updated += 1,
            (None, None) => result.inserted += 1,
        }
    }
    result.quarantined = bad.len() as u64;
    result.rows = staged - result.quarantined;
    Ok((result, bad))
}

fn bad_row(contract: &Contract, row: &table::Row, reason: String) -> BadRow {
    let names = contract.items.iter().map(|item| item.name.as_str());
    let key = contract.key_positions().into_iter().filter_map(|index| row.get(index));
    let key = key.map(|value| value.as_value().to_string()).collect::<Vec<_>>().join(",");
    BadRow { key, reason, original: json_row(names.zip(row.iter().map(OwnedValue::as_value))) }
}

/// All values, such that equal rows are equal text.
fn whole(row: &Row) -> String {
    row.iter().map(|value| format!("{:?}", value.as_value().normal())).collect::<Vec<_>>().join(",")
}
