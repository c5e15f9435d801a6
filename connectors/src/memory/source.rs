//! Reads a table of a named database: the rows as they are at `begin`, whatever happens to them later.

use super::{MemoryDatabase, Row};
use crate::types::{self, Window};
use crate::{Plan, Read, Sink, Source, TableSpec};
use posthouse_protocol::batch::{BatchBuilder, Value};
use posthouse_protocol::filter::Filter;
use posthouse_protocol::limits::SPLIT_ROWS;
use posthouse_protocol::manifest::SplitCounts;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::Contract;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) struct MemorySource {
    database: MemoryDatabase,
    spec: TableSpec,
    table: String,
    snapshot: Option<Snapshot>,
}

struct Snapshot {
    splits: BTreeMap<String, Vec<Arc<Row>>>,
    /// Names of the stored columns; those of the contract stand at `positions`.
    names: Vec<String>,
    positions: Vec<usize>,
    contract: Contract,
    filter: Option<Filter>,
}

impl MemorySource {
    pub(super) fn new(database: MemoryDatabase, spec: &TableSpec) -> Result<Self, Problem> {
        match (&spec.table, &spec.query) {
            (Some(table), None) => Ok(Self { database, spec: spec.clone(), table: table.clone(), snapshot: None }),
            _ => Err(Problem::new(Code::SourceFailed)
                .with("resource", &spec.resource)
                .cause("tables in memory are read by name, not by query")),
        }
    }
    fn failed(&self, cause: impl std::fmt::Display) -> Problem {
        Problem::new(Code::SourceFailed).with("resource", &self.spec.resource).cause(cause)
    }
}

impl Source for MemorySource {
    fn begin(&mut self, read: &Read) -> Result<Plan, Problem> {
        self.snapshot = None;
        let (table, split_rows) = {
            let inner = self.database.here()?;
            let table = inner.tables.get(&self.table);
            let table = table.ok_or_else(|| self.failed(format!("there is no table `{}`", self.table)))?.clone();
            (table, inner.split_rows.unwrap_or(SPLIT_ROWS))
        };
        let stored = &table.contract;
        let position =
            |name: &str| stored.position(name).ok_or_else(|| self.failed(format!("there is no column `{name}`")));
        let positions = match &read.columns {
            None => (0..stored.items.len()).collect(),
            Some(columns) => columns.iter().map(|name| position(name)).collect::<Result<Vec<_>, _>>()?,
        };
        let items: Vec<_> = positions.iter().filter_map(|index| stored.items.get(*index).cloned()).collect();
        let key = if self.spec.key.is_empty() { &stored.key } else { &self.spec.key };
        let whole = key.iter().all(|name| items.iter().any(|item| item.name == *name));
        let contract = Contract { items, key: if whole { key.clone() } else { Vec::new() } };
        posthouse_protocol::batch::check_contract(&contract).map_err(|e| self.failed(e))?;
        if let Some(Err(error)) = read.filter.as_ref().map(|filter| filter.check(stored)) {
            let problem = Problem::new(Code::FilterUnsupported).with("resource", &self.spec.resource);
            return Err(problem.cause(error));
        }
        let mark = self.spec.watermark.as_deref().map(position).transpose()?;
        let window = match mark.and_then(|mark| stored.items.get(mark)) {
            Some(item) if types::can_be_watermark(item.r#type) => {
                let unique = contract.key == [item.name.as_str()];
                Window::above(read.from.as_ref(), read.to.as_ref(), self.spec.late_ms, unique)
            }
            Some(item) => {
                let problem = Problem::new(Code::TypeUnsupported).with("column", &item.name);
                return Err(problem.with("type", types::type_name(item.r#type)));
            }
            None => Window::default(),
        };
        let mut upper = None;
        let mut splits: BTreeMap<u64, Vec<Arc<Row>>> = BTreeMap::new();
        let mut rows = 0;
        for (number, row) in table.numbered() {
            let value = mark.and_then(|mark| row.get(mark)).map_or(Value::Null, |value| value.as_value());
            if !window.holds(&value) {
                continue;
            }
            let found = types::watermark_of(&value).filter(|_| mark.is_some());
            if let Some(found) = found.filter(|found| types::is_within(found, read.mark_max.as_ref())) {
                upper = Some(types::later(upper, found));
            }
            splits.entry(number / split_rows).or_default().push(row.clone());
            rows += 1;
        }
        let suffix = if window.is_everything() { String::new() } else { format!(".{}", window.name()) };
        let name = |block: u64| format!("row.{}-{}{suffix}", block * split_rows, (block + 1) * split_rows - 1);
        let plan = Plan {
            contract: contract.clone(),
            watermark: read.to.clone().or(upper).or_else(|| read.from.clone()),
            position: None,
            splits: splits.keys().map(|block| name(*block)).collect(),
            rows_estimate: Some(rows),
            bytes_estimate: None,
            native: None,
            apart: None,
            snapshot_max: None,
        };
        self.snapshot = Some(Snapshot {
            splits: splits.into_iter().map(|(block, rows)| (name(block), rows)).collect(),
            names: stored.items.iter().map(|item| item.name.clone()).collect(),
            positions,
            contract,
            filter: read.filter.clone(),
        });
        Ok(plan)
    }

    fn read(&mut self, split: &str, sink: &mut dyn Sink) -> Result<SplitCounts, Problem> {
        drop(self.database.here()?);
        let Some(snapshot) = &self.snapshot else { return Err(self.failed("nothing was begun")) };
        let Some(rows) = snapshot.splits.get(split) else {
            return Err(self.failed(format!("the plan has no split `{split}`")));
        };
        let mut counts = SplitCounts::default();
        let mut builder = BatchBuilder::new(&snapshot.contract);
        for row in rows {
            counts.read += 1;
            let all: Vec<Value<'_>> = row.iter().map(super::OwnedValue::as_value).collect();
            if let Some(filter) = &snapshot.filter
                && !types::passes(filter, &snapshot.names, &all)?
            {
                counts.filtered += 1;
                continue;
            }
            let values: Vec<Value<'_>> =
                snapshot.positions.iter().filter_map(|index| all.get(*index).copied()).collect();
            builder.push(&values)?;
            counts.sent += 1;
            if builder.is_full() {
                sink.batch(builder.finish()?)?;
            }
        }
        if builder.rows() > 0 {
            sink.batch(builder.finish()?)?;
        }
        Ok(counts)
    }
}
