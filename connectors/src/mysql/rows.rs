//! Turns the server's rows into batches of a contract and bad rows: for a source, and for a standing table.

use super::catalog::Relation;
use super::client::Rows;
use super::decode::{self, How};
use super::fail::Fail;
use super::place::quote;
use crate::charset::Charset;
use crate::types::{self, Window};
use crate::{BadRow, Sink};
use mysql_async::{Row, Value as Stored};
use posthouse_protocol::batch::{BatchBuilder, Value};
use posthouse_protocol::filter::Filter;
use posthouse_protocol::manifest::SplitCounts;
use posthouse_protocol::problem::Problem;
use posthouse_protocol::schema::{Contract, ContractType};
use posthouse_protocol::watermark::Watermark;

/// The columns that are read: the contract's first, then what only filter and watermark need.
pub(super) struct RowReader {
    pub(super) names: Vec<String>,
    hows: Vec<How>,
    pub(super) contract: Contract,
    pub(super) watermark: Option<usize>,
    window: Window,
    filter: Option<Filter>,
    /// What the server reads of each column, in order.
    select: Vec<String>,
    /// Columns whose bytes come once more, as they are stored, where they are no characters of their character set:
    /// with their place in a row.
    stored: Vec<(usize, usize)>,
    /// Whether a date of zeros counts as NULL.
    zero_dates: bool,
}

impl RowReader {
    pub(super) fn new(
        relation: &Relation,
        names: Vec<String>,
        types: &[ContractType],
        contract: Contract,
        watermark: Option<usize>,
    ) -> Self {
        let hows = names.iter().zip(types).map(|(name, r#type)| How::new(*r#type, relation.column(name))).collect();
        let mut select: Vec<String> = names.iter().map(|name| quote(name)).collect();
        let mut stored = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let charset = relation.column(name).and_then(|column| column.charset.as_deref());
            if let Some(charset) = charset.filter(|charset| !WHOLE.contains(charset)) {
                let name = quote(name);
                stored.push((index, select.len()));
                // What the server cannot convert it replaces by a question mark, and says nothing.
                let charset = charset.replace(|c: char| !c.is_ascii_alphanumeric(), "");
                select.push(format!(
                    "CASE WHEN CAST(CONVERT(CONVERT({name} USING utf8mb4) USING {charset}) AS BINARY) <=> \
                     CAST({name} AS BINARY) THEN NULL ELSE CAST({name} AS BINARY) END"
                ));
            }
        }
        let window = Window::default();
        Self { names, hows, contract, watermark, window, filter: None, select, stored, zero_dates: false }
    }

    /// Columns of `latin1` hold what programs of another charset put there: their bytes are asked for as they are.
    pub(super) fn coded(mut self, relation: &Relation, charset: Charset) -> Self {
        let columns = self.names.iter().zip(&mut self.hows).zip(&mut self.select);
        for ((name, how), select) in columns.filter(|_| !charset.is_utf8()) {
            if relation.column(name).and_then(|column| column.charset.as_deref()) == Some(LATIN1) {
                *how = how.coded(charset);
                *select = format!("CAST({} AS BINARY)", quote(name));
            }
        }
        self
    }
    pub(super) fn zero_dates_null(self, zero_dates: bool) -> Self {
        Self { zero_dates, ..self }
    }

    /// For a table that has the contract's columns, and maybe others.
    pub(super) fn of_contract(relation: &Relation, contract: &Contract, watermark: Option<&str>) -> Self {
        let names = contract.items.iter().map(|item| item.name.clone()).collect();
        let types: Vec<ContractType> = contract.items.iter().map(|item| item.r#type).collect();
        let watermark = watermark.and_then(|name| contract.position(name));
        Self::new(relation, names, &types, contract.clone(), watermark)
    }

    pub(super) fn passing(self, window: Window, filter: Option<Filter>) -> Self {
        Self { window, filter, ..self }
    }
    pub(super) fn up_to(self, to: Option<&Watermark>) -> Self {
        let window = Window::up_to(to.filter(|_| self.watermark.is_some()));
        Self { window, ..self }
    }
    pub(super) fn select(&self) -> String {
        self.select.join(", ")
    }

    /// Reads all rows.
    pub(super) fn read(
        &self,
        rows: &mut Rows<'_>,
        sink: &mut dyn Sink,
        problem: &dyn Fn(Fail) -> Problem,
    ) -> Result<SplitCounts, Problem> {
        let mut counts = SplitCounts { changed: self.zero_dates.then_some(0), ..SplitCounts::default() };
        let mut builder = BatchBuilder::new(&self.contract);
        let mut spelt = vec![String::new(); self.names.len()];
        let (mut spare, mut scratch, mut found) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let more = rows.fill(&mut found).map_err(problem)?;
            for row in &found {
                let mut values: Vec<Value<'_>> = types::recycle(spare);
                let mut zeros = 0;
                let bad = self.values(row, &mut spelt, &mut scratch, &mut values, &mut zeros);
                if self.is_outside(&values, bad) {
                    spare = types::recycle(values);
                    continue;
                }
                counts.read += 1;
                if let Some((index, why)) = bad {
                    counts.quarantined += 1;
                    sink.bad_row(self.bad_row(row, &values, index, why, counts.read))?;
                } else if let Some(filter) = &self.filter
                    && !types::passes(filter, &self.names, &values)?
                {
                    counts.filtered += 1;
                } else {
                    if zeros > 0 {
                        sink.zeros(builder.rows(), zeros);
                    }
                    builder.push(values.get(..self.contract.items.len()).unwrap_or(&[]))?;
                    counts.sent += 1;
                    counts.changed = counts.changed.map(|changed| changed + zeros);
                    if builder.is_full() {
                        sink.batch(builder.finish()?)?;
                    }
                }
                spare = types::recycle(values);
            }
            if !more {
                break;
            }
        }
        if builder.rows() > 0 {
            sink.batch(builder.finish()?)?;
        }
        Ok(counts)
    }

    /// The values of a row; the first that is none, and why.
    fn values<'r>(
        &self,
        row: &'r Row,
        spelt: &'r mut [String],
        scratch: &mut Vec<u8>,
        values: &mut Vec<Value<'r>>,
        zeros: &mut u64,
    ) -> Option<(usize, &'static str)> {
        let mut bad = None;
        for (index, (how, spelt)) in self.hows.iter().zip(spelt.iter_mut()).enumerate() {
            let stored = row.as_ref(index).unwrap_or(&Stored::NULL);
            let may_be_zero = self.zero_dates && self.watermark != Some(index);
            if may_be_zero && *stored == ZERO_DATE && self.may_be_null(index) {
                *zeros += 1;
                values.push(Value::Null);
                continue;
            }
            let is_spelt = decode::spell(stored, *how, spelt);
            let spelt: &'r str = spelt;
            let value = decode::read(stored, *how, is_spelt.then_some(spelt), scratch).unwrap_or_else(|why| {
                bad.get_or_insert((index, why));
                Value::Null
            });
            if value.is_null() && !self.may_be_null(index) {
                bad.get_or_insert((index, "it is NULL where none may be"));
            }
            values.push(value);
        }
        for (index, place) in &self.stored {
            if row.as_ref(*place).is_some_and(|bytes| *bytes != Stored::NULL) {
                bad.get_or_insert((*index, "it has bytes that are no characters of its character set"));
            }
        }
        bad
    }

    /// What only filter and watermark need may be anything.
    fn may_be_null(&self, index: usize) -> bool {
        self.contract.items.get(index).is_none_or(|item| item.nullable)
    }

    fn is_outside(&self, values: &[Value<'_>], bad: Option<(usize, &'static str)>) -> bool {
        match (self.watermark, bad) {
            // Where the mark itself is bad, nothing tells that the row is outside.
            (Some(position), Some((index, _))) if position == index => false,
            (Some(position), _) => values.get(position).is_some_and(|value| !self.window.holds(value)),
            (None, _) => false,
        }
    }

    fn bad_row(&self, row: &Row, values: &[Value<'_>], index: usize, why: &str, number: u64) -> BadRow {
        let key = self.key_text(values).unwrap_or_else(|| format!("row {number}"));
        let name = self.names.get(index).map_or("", String::as_str);
        BadRow { key, reason: format!("`{name}`: {why}"), original: self.original(row) }
    }

    pub(super) fn original(&self, row: &Row) -> String {
        decode::original(&self.names, &self.hows, row, &self.stored)
    }

    /// What can be told of a row's key.
    fn key_text(&self, values: &[Value<'_>]) -> Option<String> {
        let parts = self.contract.key_positions().into_iter().filter_map(|position| values.get(position));
        let parts: Vec<String> = parts.filter(|value| !value.is_null()).map(ToString::to_string).collect();
        (!parts.is_empty()).then(|| parts.join(","))
    }

    /// The key of a row by itself, and the row as it is stored.
    pub(super) fn describe(&self, row: &Row) -> (Option<String>, String) {
        let mut spelt = vec![String::new(); self.names.len()];
        let mut values = Vec::new();
        self.values(row, &mut spelt, &mut Vec::new(), &mut values, &mut 0);
        (self.key_text(&values), self.original(row))
    }
}

const LATIN1: &str = "latin1";
const ZERO_DATE: Stored = Stored::Date(0, 0, 0, 0, 0, 0, 0);
/// Character sets each of whose texts is one in UTF-8 and back: what the server sends of them is what they hold. `latin1`
/// is one of them here: it has a character for each of its bytes.
const WHOLE: &[&str] =
    &["utf8", "utf8mb3", "utf8mb4", "ascii", "latin1", "binary", "ucs2", "utf16", "utf16le", "utf32"];
