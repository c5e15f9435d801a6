//! Reads a table, a view or a query within one snapshot, split by split. Rows leave as the server wrote them where the
//! taker asked for that form and nothing has to be looked at; otherwise in batches. A row filter looks at each row; what of
//! it the database is sure to find too it is asked for beforehand.

use super::catalog::{Column, Relation, TableName, quote, quoted};
use super::place::Fail;
use super::position::Here;
use super::sieve::attempt;
use super::splits::{Rows, Splits, may_wait};
use super::transcode::{self, Transcoder};
use super::wire::{Client, Copied, WireError};
use super::{Faults, batches, pushed};
use crate::charset::Charset;
use crate::types::{self, Window};
use crate::{Plan, Read, Sink, Source, TableSpec};
use posthouse_protocol::batch::check_contract;
use posthouse_protocol::filter::Filter;
use posthouse_protocol::format::{Format, Native};
use posthouse_protocol::manifest::SplitCounts;
use posthouse_protocol::pgcopy::Shape;
use posthouse_protocol::pgcopy::native::{NativeType, Plain};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::{Contract, ContractType, Item};
use posthouse_protocol::watermark::Watermark;
use std::time::Duration;

pub(super) struct PgSource {
    faults: Faults,
    client: Client,
    spec: TableSpec,
    snapshot_max: Duration,
    reading: Option<Reading>,
}

/// What was begun.
struct Reading {
    splits: Splits,
    /// The one that was read last and those of the plan after it are found without a search.
    at: usize,
    /// Whether a statement may wait in the middle of its rows: no time is set that it may take.
    ahead: bool,
    form: Form,
}

/// How rows leave.
enum Form {
    Raw,
    Batches(Box<batches::Reader>),
}

impl PgSource {
    pub(super) fn new(faults: Faults, client: Client, spec: &TableSpec, snapshot_max: Duration) -> Self {
        Self { faults, client, spec: spec.clone(), snapshot_max, reading: None }
    }

    fn failed(&self, cause: impl std::fmt::Display) -> Problem {
        Problem::new(Code::SourceFailed).with("resource", &self.spec.resource).cause(cause)
    }
    fn sql(&self, error: WireError) -> Problem {
        self.faults.read(&self.spec.resource, error)
    }

    /// What the resource names, as a relation of the catalogue.
    fn relation(&mut self) -> Result<Relation, Problem> {
        let name = match (&self.spec.query, &self.spec.table) {
            (Some(query), _) => {
                // A query's columns are asked of the catalogue like any other relation's.
                let view = format!("SET search_path = \"$user\", public; CREATE TEMP VIEW {QUERY} AS {query}");
                let pinned = "SET search_path = pg_catalog";
                self.client.batch(&view).and_then(|()| self.client.batch(pinned)).map_err(|e| self.sql(e))?;
                let schema = "SELECT nspname FROM pg_catalog.pg_namespace WHERE oid = pg_catalog.pg_my_temp_schema()";
                let rows = self.client.query(schema, &[]).map_err(|e| self.sql(e))?;
                let schema = rows.first().and_then(|row| row.optional(0)).unwrap_or_default().to_owned();
                TableName { schema, table: QUERY.to_owned() }
            }
            (None, Some(table)) => TableName::parse(table)
                .ok_or_else(|| self.failed(format!("`{table}` is no table's name: write `schema.table`")))?,
            (None, None) => return Err(self.failed("it names no table")),
        };
        self.client.batch(BEGIN).map_err(|e| self.sql(e))?;
        self.hold(&name)?;
        let found = Relation::find(&mut self.client, &name).map_err(|e| self.sql(e))?;
        found.ok_or_else(|| self.failed(format!("there is no table {name}, or the account may not see it")))
    }

    /// Holds the table before the snapshot is taken, which the next statement does: a table that took its name in between
    /// would be empty to it. What cannot be held so (a foreign table, one of which the account sees some columns only) is
    /// read as it is found.
    fn hold(&mut self, name: &TableName) -> Result<(), Problem> {
        let lock = format!("LOCK TABLE {name} IN ACCESS SHARE MODE");
        let cannot = |error: &WireError| error.sqlstate().is_some_and(|state| NOT_HELD.contains(&state));
        match attempt(&mut self.client, cannot, |client| Ok(client.batch(&lock)?)) {
            Ok(_) => Ok(()),
            Err(Fail::Wire(error)) => Err(self.sql(error)),
            Err(Fail::Problem(problem)) => Err(problem),
        }
    }

    fn scope(&mut self, relation: &Relation, read: &Read) -> Result<Scope, Problem> {
        let names = match &read.columns {
            Some(columns) => columns.clone(),
            None => relation.columns.iter().map(|column| column.name.clone()).collect(),
        };
        let key = if self.spec.key.is_empty() { &relation.primary } else { &self.spec.key };
        if let Some(name) = key.iter().find(|name| relation.column(name).is_none()) {
            return Err(self.failed(format!("there is no key column `{name}`")));
        }
        // A grant without the key's columns hands over rows that have none.
        let key = if key.iter().all(|name| names.contains(name)) { key.clone() } else { Vec::new() };
        let mut items = Vec::with_capacity(names.len());
        let mut natives = Vec::with_capacity(names.len());
        for name in &names {
            let column = self.column(relation, name)?;
            let native = movable(column)?;
            let nullable = !column.not_null && !key.contains(name);
            let comment = column.comment.clone();
            items.push(Item { name: name.clone(), r#type: native.contract_type(), nullable, comment });
            natives.push(native);
        }
        let contract = Contract { items, key };
        check_contract(&contract).map_err(|e| self.failed(e))?;
        if !contract.key.is_empty() && !relation.keeps_unique(&contract.key) {
            self.check_key(relation, &contract.key)?;
        }
        Ok(Scope { contract, natives })
    }

    fn column<'r>(&self, relation: &'r Relation, name: &str) -> Result<&'r Column, Problem> {
        relation.column(name).ok_or_else(|| self.failed(format!("there is no column `{name}`")))
    }

    /// Where the engine itself does not keep the key unique, the rows are looked at: two rows of one key cannot both land.
    fn check_key(&mut self, relation: &Relation, key: &[String]) -> Result<(), Problem> {
        let list = quoted(key.iter().map(String::as_str));
        // A row with a NULL in its key has none; it is a bad row by itself.
        let present = key.iter().map(|name| format!("{} IS NOT NULL", quote(name))).collect::<Vec<_>>().join(" AND ");
        let twice = format!(
            "SELECT {list} FROM {} WHERE {present} GROUP BY {list} HAVING pg_catalog.count(*) > 1 LIMIT 1",
            relation.name
        );
        let rows = self.client.query(&twice, &[]).map_err(|e| self.sql(e))?;
        let Some(row) = rows.first() else { return Ok(()) };
        let values = (0..key.len()).map(|index| row.optional(index).unwrap_or("NULL")).collect::<Vec<_>>().join(", ");
        Err(self.failed(format!("the key is not unique: two rows have ({list}) = ({values})")))
    }

    /// The rows of this run as an SQL condition; the bounds are bound, never written into it.
    fn window(&mut self, relation: &Relation, contract: &Contract, read: &Read) -> Result<Marked, Problem> {
        let Some(name) = self.spec.watermark.clone() else { return Ok(Marked::default()) };
        let column = self.column(relation, &name)?;
        let native = movable(column)?;
        let r#type = native.contract_type();
        let Some(cast) = mark_type(&native).filter(|_| types::can_be_watermark(r#type)) else {
            let problem = Problem::new(Code::TypeUnsupported).with("column", &name);
            return Err(problem.with("type", &column.declared).cause("a watermark has an order"));
        };
        let here = match &read.to {
            Some(_) => None,
            None => Here::find(&mut self.client, relation).map_err(|e| self.sql(e))?,
        };
        let since = here.as_ref().and_then(|here| here.since(read.since.as_deref()?));
        // Where nothing tells which rows came into sight since, all of them may have.
        let from = read.from.as_ref().filter(|_| here.is_none() || since.is_some());
        let unique = contract.key == [name.clone()];
        let window = Window::above(from, read.to.as_ref(), self.spec.late_ms, unique);
        let collate = if r#type == ContractType::Text { " COLLATE \"C\"" } else { "" };
        let mark = format!("{}{collate}", quote(&name));
        let mut bounds = Vec::new();
        for (setting, bound, operator) in [
            ("posthouse.above", window.lower(), if window.takes_lower() { ">=" } else { ">" }),
            ("posthouse.to", read.to.as_ref(), "<="),
        ] {
            let Some(text) = bound.and_then(|bound| bound_text(bound, r#type)) else { continue };
            let set = "SELECT pg_catalog.set_config($1, $2, true)";
            self.client.query(set, &[Some(setting), Some(&text)]).map_err(|e| self.sql(e))?;
            bounds.push(format!("{mark} {operator} pg_catalog.current_setting('{setting}')::{cast}"));
        }
        let by_mark = match bounds.is_empty() {
            true => None,
            false => Some(format!("({} IS NULL OR ({}))", quote(&name), bounds.join(" AND "))),
        };
        // Rows below the window are older than the mark that was reached: they do not bear on the next.
        let latest = self.latest(relation, &mark, r#type, cast, by_mark.as_deref(), read.mark_max.as_ref())?;
        let upper = match (latest, &read.from) {
            (Some(latest), Some(from)) => Some(types::later(Some(latest), from.clone())),
            (latest, from) => latest.or_else(|| from.clone()),
        };
        if let (Some(Watermark::Text(text)), false) = (&upper, self.client.charset().is_utf8())
            && !text.is_ascii()
        {
            let order = "the database orders such texts by its own bytes, and here they are compared as UTF-8";
            return Err(self.failed(format!("the watermark `{name}` has texts beyond ASCII: {order}")));
        }
        let mut suffix = if window.is_everything() { String::new() } else { window.name() };
        let mut condition = by_mark.clone();
        if let (Some(by_mark), Some(since), Some(_)) = (&by_mark, &since, from) {
            condition = Some(format!("({by_mark} OR {})", since.condition));
            suffix = format!("{suffix} {}", since.name);
        }
        let rows = Rows { condition, by_mark, suffix };
        Ok(Marked { rows, upper, position: here.map(|here| here.position.to_string()) })
    }

    /// The largest mark in the snapshot, of the rows of this run; none of a row that is dated ahead.
    fn latest(
        &mut self,
        relation: &Relation,
        mark: &str,
        r#type: ContractType,
        cast: &str,
        condition: Option<&str>,
        most: Option<&Watermark>,
    ) -> Result<Option<Watermark>, Problem> {
        // Dates before our era and infinities move, but no run begins at them.
        let (select, finite) = match r#type {
            ContractType::Timestamp | ContractType::Date => (
                format!("pg_catalog.to_char(pg_catalog.max({mark}), 'YYYY-MM-DD HH24:MI:SS.US')"),
                format!(" AND {mark} >= '0001-01-01' AND pg_catalog.isfinite({mark})"),
            ),
            _ => (format!("pg_catalog.max({mark})"), String::new()),
        };
        let condition = condition.unwrap_or("true");
        let most = most.and_then(|most| bound_text(most, r#type));
        let ahead = most.as_ref().map_or(String::new(), |_| format!(" AND {mark} <= $1::{cast}"));
        let sql = format!("SELECT {select} FROM {} WHERE {condition}{finite}{ahead}", relation.name);
        let bound: Vec<_> = most.iter().map(|most| Some(most.as_str())).collect();
        let rows = self.client.query(&sql, &bound).map_err(|e| self.sql(e))?;
        let Some(text) = rows.first().and_then(|row| row.optional(0)) else { return Ok(None) };
        let read = match r#type {
            ContractType::Integer => text.parse().ok().map(Watermark::Integer),
            ContractType::Timestamp | ContractType::Date => types::parse_timestamp(text).map(Watermark::Timestamp),
            _ => Some(Watermark::Text(text.to_owned())),
        };
        read.map(Some).ok_or_else(|| self.failed(format!("the latest mark `{text}` cannot be read")))
    }
}

/// The columns that are read.
struct Scope {
    contract: Contract,
    natives: Vec<NativeType>,
}

/// The rows of a run, and the mark and the position it reaches with them.
#[derive(Default)]
struct Marked {
    rows: Rows,
    upper: Option<Watermark>,
    position: Option<String>,
}

impl Source for PgSource {
    fn begin(&mut self, read: &Read) -> Result<Plan, Problem> {
        self.reading = None;
        let mut relation = self.relation()?;
        let charset = self.client.charset();
        transcode::read_as_texts(charset, &mut relation);
        let scope = self.scope(&relation, read)?;
        let Marked { mut rows, upper, position } = self.window(&relation, &scope.contract, read)?;
        if let Some(filter) = &read.filter {
            pushed::narrow(&mut self.client, &relation, filter, &mut rows).map_err(|e| self.sql(e))?;
        }
        let shape = Shape::new(&scope.contract, &scope.natives).map_err(|e| self.failed(e))?;
        let contract = scope.contract.clone();
        let wanted = read.formats.contains(&Format::PgCopy);
        let apart = if wanted { taken_apart(&relation, &scope, read, charset) } else { None };
        let (form, wide, native) = match &apart {
            None if wanted => {
                let columns = scope.natives.iter().map(ToString::to_string).collect();
                (Form::Raw, contract.clone(), Some(Native::new(Format::PgCopy, columns)))
            }
            _ => {
                let reader = self.reader(&relation, &scope, shape, read.filter.clone())?;
                let wide = reader.wide().clone();
                (Form::Batches(Box::new(reader)), wide, None)
            }
        };
        let planned = Splits::plan(&mut self.client, &relation, &wide, &rows).map_err(|e| self.sql(e))?;
        let (splits, rows_estimate) = planned;
        let names = splits.names();
        let ahead = may_wait(&mut self.client).map_err(|e| self.sql(e))?;
        self.reading = Some(Reading { splits, at: 0, ahead, form });
        let snapshot_max = Some(self.snapshot_max);
        let bytes_estimate = match (&rows.condition, relation.blocks, &self.spec.query) {
            (None, Some(blocks), None) => Some(blocks * BLOCK_BYTES),
            _ => None,
        };
        let (watermark, splits) = (upper, names);
        Ok(Plan { contract, watermark, position, splits, rows_estimate, bytes_estimate, native, apart, snapshot_max })
    }

    fn read(&mut self, split: &str, sink: &mut dyn Sink) -> Result<SplitCounts, Problem> {
        let (faults, resource) = (self.faults.clone(), self.spec.resource.clone());
        let failed = |cause: String| Problem::new(Code::SourceFailed).with("resource", &resource).cause(cause);
        let Some(reading) = &mut self.reading else { return Err(failed("nothing was begun".to_owned())) };
        let none = || failed(format!("the plan has no split `{split}`"));
        let at = reading.splits.find(split, reading.at).ok_or_else(none)?;
        let copy = reading.splits.copy(at).ok_or_else(none)?;
        let next = if reading.ahead { reading.splits.copy(at + 1) } else { None };
        let next = next.filter(|next| next.len() <= AHEAD_BYTES_MAX);
        reading.at = at;
        let lost = |e: WireError| faults.read(&resource, e);
        let mut out = self.client.copy_out(&copy, next.as_deref()).map_err(lost)?;
        let mut bytes = Vec::with_capacity(READ_BYTES * 2);
        let mut counts = SplitCounts::default();
        loop {
            bytes.clear();
            let copied = out.fill(&mut bytes, READ_BYTES).map_err(lost)?;
            match &mut reading.form {
                Form::Raw => sink.raw(&bytes)?,
                Form::Batches(reader) => reader.feed(&bytes, sink)?,
            }
            if let Copied::End(rows) = copied {
                match &mut reading.form {
                    Form::Raw => (counts.read, counts.sent) = (rows, rows),
                    Form::Batches(reader) => counts = reader.finish(rows, sink)?,
                }
                return Ok(counts);
            }
        }
    }
}

impl PgSource {
    /// Takes rows apart; the filter's own columns are read along and left out of what is handed over.
    fn reader(
        &self,
        relation: &Relation,
        scope: &Scope,
        shape: Shape,
        filter: Option<Filter>,
    ) -> Result<batches::Reader, Problem> {
        let transcoder = |contract: &Contract, natives: &[NativeType]| {
            let names = contract.items.iter().map(|item| item.name.as_str());
            let transcoder = Transcoder::new(self.client.charset(), names.zip(natives))?;
            let is_rendered = |name: &str| relation.column(name).is_some_and(transcode::is_read_as_text);
            Some(transcoder.rendered(is_rendered))
        };
        let Some(filter) = filter else {
            let transcoder = transcoder(&scope.contract, &scope.natives);
            return Ok(batches::Reader::new(shape, None, transcoder));
        };
        let refused = |e: &dyn std::fmt::Display| {
            Problem::new(Code::FilterUnsupported).with("resource", &self.spec.resource).cause(e)
        };
        let mut wide = Contract { key: Vec::new(), ..scope.contract.clone() };
        let mut natives = scope.natives.clone();
        for column in &relation.columns {
            let name = &column.name;
            let Some(native) = column
                .native
                .clone()
                .filter(|_| filter.columns().contains(&name.as_str()) && wide.position(name).is_none())
            else {
                continue;
            };
            let r#type = native.contract_type();
            wide.items.push(Item { name: name.clone(), r#type, nullable: true, comment: None });
            natives.push(native);
        }
        filter.check(&wide).map_err(|e| refused(&e))?;
        let shape = Shape::new(&wide, &natives).map_err(|e| refused(&e))?;
        let transcoder = transcoder(&wide, &natives);
        Ok(batches::Reader::new(shape, Some((filter, scope.contract.clone())), transcoder))
    }
}

/// What in the rows has to be looked at before they leave.
fn taken_apart(relation: &Relation, scope: &Scope, read: &Read, charset: Charset) -> Option<String> {
    if !charset.is_utf8() {
        // Both parties digest the texts of such rows as they lie, and they are UTF-8 to both.
        return Some(format!("the texts of the database are {}, and rows travel as UTF-8", charset.name()));
    }
    if read.filter.is_some() {
        return Some("the grant's row filter is applied to each row".to_owned());
    }
    // A NULL in a key that the engine does not forbid would be a bad row.
    let kept = |item: &Item| item.nullable || relation.column(&item.name).is_some_and(|column| column.not_null);
    let open = scope.contract.items.iter().find(|item| !kept(item))?;
    Some(format!("the key column `{}` may be NULL at the source", open.name))
}

fn movable(column: &Column) -> Result<NativeType, Problem> {
    column
        .native
        .clone()
        .ok_or_else(|| Problem::new(Code::TypeUnsupported).with("column", &column.name).with("type", &column.declared))
}

/// The engine's type that a bound is cast to; none for a type without an order of its own.
pub(super) fn mark_type(native: &NativeType) -> Option<&'static str> {
    Some(match native.plain() {
        Some(Plain::Timestamp) => "timestamp",
        Some(Plain::Timestamptz) => "timestamptz",
        Some(Plain::Date) => "date",
        Some(Plain::Int2 | Plain::Int4 | Plain::Int8 | Plain::Oid) => "bigint",
        Some(Plain::Text | Plain::Name) => "text",
        None if matches!(native, NativeType::Varchar(_)) => "text",
        _ => return None,
    })
}

/// A bound as the engine reads it; none where it has no such form, and everything is read.
pub(super) fn bound_text(bound: &Watermark, r#type: ContractType) -> Option<String> {
    match (bound, r#type) {
        (Watermark::Integer(value), ContractType::Integer) => Some(value.to_string()),
        (Watermark::Text(text), ContractType::Text) => Some(text.clone()).filter(|text| !text.contains('\0')),
        (Watermark::Timestamp(us), ContractType::Timestamp | ContractType::Date) => {
            let mut text = String::new();
            types::write_timestamp(*us, &mut text).then_some(text)
        }
        _ => None,
    }
}

/// One snapshot; and policies on rows are an error here, where they would silently leave rows out.
const BEGIN: &str = "SET row_security = off; BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";
const QUERY: &str = "posthouse_query";
const READ_BYTES: usize = 256 << 10;
/// A longer statement might not fit on its way to a server that is sending itself.
const AHEAD_BYTES_MAX: usize = 32 << 10;
/// No table or view (before 11: no table), no right to all of it, no such table, no such schema.
const NOT_HELD: [&str; 4] = ["42809", "42501", "42P01", "3F000"];
/// As nearly every server is built; an estimate only.
const BLOCK_BYTES: u64 = 8192;
