//! Reads a table, a view or a query in one transaction from `begin` to drop, split by split. Where the database allows
//! snapshots it is one; where it does not, the table is held by a shared lock, so that nobody changes it meanwhile, and
//! a query is read by one statement. A row whose mark is below others that are there already is not lost: a mark of
//! `rowversion` is given up to the oldest running writer, and where marks are numbers or texts the snapshot is taken
//! while nobody is in the middle of writing. Times have `late` for it.

use super::Faults;
use super::calendar;
use super::catalog::{self, Column, Relation};
use super::client::{Client, SqlError, bytes, id, number, text};
use super::codepage::Page;
use super::kind::{BINARY, Kind};
use super::name::{TableName, quote, quoted};
use super::place::Fail;
use super::pushed;
use super::reading::{RowReader, Wanted};
use super::settings::Settings;
use super::splits::{self, Split};
use crate::types::{self, Window};
use crate::{Plan, Read, Sink, Source, TableSpec};
use posthouse_protocol::filter::Filter;
use posthouse_protocol::manifest::SplitCounts;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::{Contract, Item};
use posthouse_protocol::watermark::Watermark;
use std::time::Duration;
use tiberius::time::{DateTime2, Time};
use tiberius::{ColumnData, Row};

pub(super) struct SqlSource {
    faults: Faults,
    settings: Settings,
    spec: TableSpec,
    reading: Option<Reading>,
}

/// What `begin` made; its session holds the transaction.
struct Reading {
    client: Client,
    origin: Origin,
    reader: RowReader,
    splits: Vec<Split>,
}

/// What is read from, and which rows of it.
pub(super) struct Origin {
    /// None of a query.
    pub(super) relation: Option<Relation>,
    pub(super) from: String,
    /// Whether several statements see the same rows.
    pub(super) is_fixed: bool,
    pub(super) condition: String,
    pub(super) bounds: Vec<ColumnData<'static>>,
}

/// The columns that are read: the contract's first, then what only filter and watermark need.
struct Scope {
    columns: Vec<Wanted>,
    contract: Contract,
    watermark: Option<usize>,
}

/// A watermark column as SQL: how it is compared, and how a bound is written.
struct Mark {
    name: String,
    kind: Kind,
}

impl SqlSource {
    pub(super) fn new(faults: Faults, settings: Settings, spec: &TableSpec) -> Result<Self, Problem> {
        if spec.table.is_some() == spec.query.is_some() {
            let cause = "a resource names either a table or a query";
            return Err(Problem::new(Code::SourceFailed).with("resource", &spec.resource).cause(cause));
        }
        Ok(Self { faults, settings, spec: spec.clone(), reading: None })
    }

    fn failed(&self, cause: impl std::fmt::Display) -> Problem {
        Problem::new(Code::SourceFailed).with("resource", &self.spec.resource).cause(cause)
    }
    fn sql(&self, error: SqlError) -> Problem {
        self.faults.read(&self.spec.resource, error)
    }

    /// What the resource names, and its columns.
    fn find(&self, client: &mut Client) -> Result<(Option<Relation>, Vec<Column>, String), Problem> {
        if let Some(query) = &self.spec.query {
            let query = query.trim().trim_end_matches(';');
            let columns = catalog::of_query(client, query).map_err(|e| self.sql(e))?;
            return Ok((None, columns, format!("({query}) AS t")));
        }
        let table = self.spec.table.as_deref().unwrap_or_default();
        let name = TableName::parse(table)
            .ok_or_else(|| self.failed(format!("`{table}` is no table's name: write `schema.table`")))?;
        let found = Relation::find(client, &name).map_err(|e| self.sql(e))?;
        let relation =
            found.ok_or_else(|| self.failed(format!("there is no table {name}, or the account may not see it")))?;
        let columns = relation.columns.clone();
        Ok((Some(relation), columns, format!("{name} AS t")))
    }

    fn scope(&self, relation: Option<&Relation>, columns: &[Column], read: &Read) -> Result<Scope, Problem> {
        let declared = relation.map(Relation::primary).unwrap_or_default();
        let mut key = if self.spec.key.is_empty() { declared.to_vec() } else { self.spec.key.clone() };
        let wanted: Vec<String> = match &read.columns {
            Some(columns) => columns.clone(),
            None => columns.iter().map(|column| column.name.clone()).collect(),
        };
        if let Some(name) = key.iter().find(|name| !columns.iter().any(|column| column.name == **name)) {
            return Err(self.failed(format!("there is no key column `{name}`")));
        }
        // A grant without the key's columns hands over rows that have none.
        if !key.iter().all(|name| wanted.contains(name)) {
            key.clear();
        }
        let mut names = wanted.clone();
        let beyond = read.filter.iter().flat_map(Filter::columns).chain(self.spec.watermark.as_deref());
        for name in beyond {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        let (mut found, mut items, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for (at, name) in names.iter().enumerate() {
            let column = columns.iter().find(|column| column.name == *name);
            let column = column.ok_or_else(|| self.failed(format!("there is no column `{name}`")))?;
            let kind = self.movable(column)?;
            let r#type = kind.contract_type(column.mark);
            let nullable = !column.not_null && !key.contains(name);
            let item = Item { name: name.clone(), r#type, nullable, comment: column.comment.clone() };
            all.push(Item { nullable: true, ..item.clone() });
            if at < wanted.len() {
                items.push(item);
            }
            found.push(Wanted { name: name.clone(), kind, r#type });
        }
        let contract = Contract { items, key };
        posthouse_protocol::batch::check_contract(&contract).map_err(|e| self.failed(e))?;
        if let Some(Err(error)) = read.filter.as_ref().map(|filter| filter.check(&Contract { items: all, key: vec![] }))
        {
            let problem = Problem::new(Code::FilterUnsupported).with("resource", &self.spec.resource);
            return Err(problem.cause(error));
        }
        let watermark = self.spec.watermark.as_ref().and_then(|mark| names.iter().position(|name| name == mark));
        Ok(Scope { columns: found, contract, watermark })
    }

    /// A column's kind, its bytes as the operator says; refused by name where it does not move.
    fn movable(&self, column: &Column) -> Result<Kind, Problem> {
        let kind = column.kind.ok_or_else(|| {
            Problem::new(Code::TypeUnsupported).with("column", &column.name).with("type", &column.declared)
        })?;
        Ok(match self.settings.charset {
            Some(charset) => kind.with_page(Page::Ours(charset)),
            None => kind,
        })
    }

    fn mark(&self, scope: &Scope) -> Result<Option<Mark>, Problem> {
        let Some(wanted) = scope.watermark.and_then(|at| scope.columns.get(at)) else { return Ok(None) };
        let ordered = match wanted.kind {
            Kind::Guid | Kind::Xml | Kind::NText | Kind::Text(_) | Kind::Time(_) => false,
            _ => types::can_be_watermark(wanted.r#type),
        };
        if !ordered {
            let problem = Problem::new(Code::TypeUnsupported).with("column", &wanted.name);
            return Err(problem.with("type", wanted.kind.declare()).cause("a watermark has an order"));
        }
        Ok(Some(Mark { name: wanted.name.clone(), kind: wanted.kind }))
    }

    /// Where the engine itself does not keep the key unique, the rows are looked at: two rows of one key cannot both land.
    fn check_key(&self, client: &mut Client, origin: &Origin, key: &[String]) -> Result<(), Problem> {
        if key.is_empty() || origin.relation.as_ref().is_some_and(|relation| relation.keeps_unique(key)) {
            return Ok(());
        }
        let list = quoted("t", key.iter().map(String::as_str));
        // A row with a NULL in its key has none; it is a bad row by itself.
        let present = key.iter().map(|name| format!("t.{} IS NOT NULL", quote(name))).collect::<Vec<_>>().join(" AND ");
        let sql = format!(
            "SELECT TOP (1) {list} FROM {} WHERE {present} GROUP BY {list} HAVING COUNT_BIG(*) > 1",
            origin.from
        );
        let rows = client.query(&sql, &[]).map_err(|e| self.sql(e))?;
        match rows.first() {
            None => Ok(()),
            Some(row) => {
                let values = (0..key.len()).map(|at| shown(row, at)).collect::<Vec<_>>().join(", ");
                Err(self.failed(format!("the key is not unique: two rows have ({}) = ({values})", key.join(", "))))
            }
        }
    }

    /// The largest mark in the snapshot above the window's lower bound; none of a row that is dated ahead.
    fn latest(
        &self,
        client: &mut Client,
        origin: &Origin,
        mark: &Mark,
        most: Option<&Watermark>,
    ) -> Result<Option<Watermark>, Problem> {
        let (mut condition, mut bounds) = (origin.condition.clone(), origin.bounds.clone());
        if let Some(bound) = most.and_then(|most| mark.bound(most, bounds.len() + 1)) {
            condition.push_str(&format!(" AND {} <= {}", mark.compared(), bound.0));
            bounds.push(bound.1);
        }
        let of = match mark.kind {
            Kind::RowVersion => format!("CAST(t.{} AS bigint)", quote(&mark.name)),
            _ => mark.compared(),
        };
        let sql = format!("SELECT MAX({of}) FROM {} WHERE {condition}", origin.from);
        let rows = client.query(&sql, &bounds).map_err(|e| self.sql(e))?;
        Ok(rows.first().and_then(|row| mark_of(row, mark.kind)))
    }
}

impl Source for SqlSource {
    fn begin(&mut self, read: &Read) -> Result<Plan, Problem> {
        self.reading = None;
        let sql = |e| self.sql(e);
        let mut client = Client::connect(&self.settings).map_err(|e| self.faults.connection(e))?;
        let mut snapshot = catalog::has_snapshots(&mut client).map_err(sql)?;
        let (relation, columns, mut from) = self.find(&mut client)?;
        let scope = self.scope(relation.as_ref(), &columns, read)?;
        let mark = self.mark(&scope)?;
        // Before the snapshot is taken: what was written below this is committed, and will be seen.
        let mut oldest = None;
        if mark.as_ref().is_some_and(|mark| mark.kind == Kind::RowVersion) {
            oldest = oldest_writer(&mut client).map_err(sql)?;
            // A server that cannot tell is asked for the table itself.
            snapshot &= oldest.is_some();
        }
        let table = self.spec.table.as_ref().map(|_| from.clone());
        let waits = mark.as_ref().is_some_and(Mark::is_given_out_of_order) && table.is_some() && snapshot;
        match (&table, snapshot) {
            (Some(table), true) if waits => {
                // While nobody is in the middle of writing, no row below the latest mark is still to come.
                let mut other = Client::connect(&self.settings).map_err(|e| self.faults.connection(e))?;
                other.batch(BEGIN).map_err(sql)?;
                other.batch(&format!("SELECT TOP (1) 1 FROM {table} WITH (TABLOCK, HOLDLOCK)")).map_err(sql)?;
                client.batch(BEGIN_SNAPSHOT).map_err(sql)?;
                client.batch(&format!("SELECT TOP (1) 1 FROM {table}")).map_err(sql)?;
                other.batch("COMMIT TRANSACTION").map_err(sql)?;
            }
            (Some(table), true) => {
                client.batch(BEGIN_SNAPSHOT).map_err(sql)?;
                client.batch(&format!("SELECT TOP (1) 1 FROM {table}")).map_err(sql)?;
            }
            (Some(table), false) => {
                tracing::warn!(resource = self.spec.resource, "the database allows no snapshots: the table is locked");
                client.batch(BEGIN_HOLDING).map_err(sql)?;
                from = format!("{table} WITH (TABLOCK, HOLDLOCK)");
                client.batch(&format!("SELECT TOP (1) 1 FROM {from}")).map_err(sql)?;
            }
            (None, true) => client.batch(BEGIN_SNAPSHOT).map_err(sql)?,
            (None, false) => client.batch(BEGIN_HOLDING).map_err(sql)?,
        }
        client.take_time();
        let is_fixed = snapshot || table.is_some();
        let everything = "1 = 1".to_owned();
        let mut origin = Origin { relation, from, is_fixed, condition: everything, bounds: Vec::new() };
        self.check_key(&mut client, &origin, &scope.contract.key)?;
        let window = match &mark {
            Some(mark) => {
                let unique = mark.kind == Kind::RowVersion || scope.contract.key == [mark.name.clone()];
                Window::above(read.from.as_ref(), read.to.as_ref(), self.spec.late_ms, unique)
            }
            None => Window::default(),
        };
        let mut upper = read.to.clone();
        if let Some(mark) = &mark {
            mark.limit(&mut origin, &window, read.to.as_ref());
            if upper.is_none() {
                let mut latest = self.latest(&mut client, &origin, mark, read.mark_max.as_ref())?;
                if let (Some(Watermark::Integer(latest)), Some(oldest)) = (&mut latest, oldest) {
                    *latest = (*latest).min(oldest);
                }
                upper = match (latest, &read.from) {
                    (Some(latest), Some(from)) => Some(types::later(Some(latest), from.clone())),
                    (latest, from) => latest.or_else(|| from.clone()),
                };
            }
        }
        if let Some(filter) = &read.filter {
            pushed::narrow(&mut origin, &scope.columns, filter, self.settings.charset.is_some());
        }
        let count = format!("SELECT COUNT_BIG(*) FROM {} WHERE {}", origin.from, origin.condition);
        let rows = client.count(&count, &origin.bounds).map_err(sql)?;
        let suffix = if window.is_everything() { String::new() } else { window.name() };
        let splits = splits::cut(&mut client, &origin, rows, &suffix).map_err(sql)?;
        let plan = Plan {
            contract: scope.contract.clone(),
            watermark: upper.or_else(|| read.from.clone()),
            position: None,
            splits: splits.iter().map(|split| split.name.clone()).collect(),
            rows_estimate: Some(rows),
            bytes_estimate: None,
            native: None,
            apart: None,
            snapshot_max: Some(Duration::from_millis(self.settings.snapshot_max.0)),
        };
        let Scope { columns, contract, watermark } = scope;
        let reader = RowReader::new(columns, &contract, watermark, window, read.filter.clone());
        self.reading = Some(Reading { client, origin, reader, splits });
        Ok(plan)
    }

    fn read(&mut self, split: &str, sink: &mut dyn Sink) -> Result<SplitCounts, Problem> {
        // What fails half-way is not gone on with.
        let Some(mut reading) = self.reading.take() else { return Err(self.failed("nothing was begun")) };
        let Some(found) = reading.splits.iter().find(|known| known.name == split).cloned() else {
            self.reading = Some(reading);
            return Err(self.failed(format!("the plan has no split `{split}`")));
        };
        let Reading { client, origin, reader, .. } = &mut reading;
        let sql =
            format!("SELECT {} FROM {} WHERE {}{}", reader.select(), origin.from, origin.condition, found.condition);
        let bounds: Vec<ColumnData<'static>> = origin.bounds.iter().chain(&found.bounds).cloned().collect();
        let streamed = client.stream(&sql, &bounds, &mut |row: &Row| reader.row(row, sink).map_err(Fail::Problem));
        streamed.map_err(|fail| match fail {
            Fail::Sql(error) => self.sql(error),
            Fail::Problem(problem) => problem,
        })?;
        let counts = reader.finish(sink)?;
        self.reading = Some(reading);
        Ok(counts)
    }
}

impl Mark {
    /// Numbers and texts are given before the rows that bear them are committed, in no order of the clock's.
    fn is_given_out_of_order(&self) -> bool {
        matches!(
            self.kind,
            Kind::TinyInt | Kind::SmallInt | Kind::Int | Kind::BigInt | Kind::NVarChar(_) | Kind::VarChar(..)
        )
    }

    fn compared(&self) -> String {
        let collate = if self.kind.is_text() { format!(" COLLATE {BINARY}") } else { String::new() };
        format!("t.{}{collate}", quote(&self.name))
    }

    /// A bound as SQL, and its parameter; none where the column can hold no such value, and everything is read.
    fn bound(&self, mark: &Watermark, at: usize) -> Option<(String, ColumnData<'static>)> {
        let plain = format!("@P{at}");
        Some(match (mark, self.kind) {
            (Watermark::Integer(value), Kind::RowVersion) => (format!("CAST({plain} AS binary(8))"), id(*value)),
            (Watermark::Integer(value), Kind::TinyInt | Kind::SmallInt | Kind::Int | Kind::BigInt) => {
                (plain, id(*value))
            }
            (Watermark::Text(text), kind) if kind.is_text() => (plain, ColumnData::String(Some(text.clone().into()))),
            (Watermark::Timestamp(us), Kind::Date | Kind::DateTime2(_) | Kind::DateTimeOffset(_)) => {
                (plain, ColumnData::DateTime2(Some(calendar::datetime2(*us, 6)?)))
            }
            // As the column's own type: of a finer one the server would make other thirds of a millisecond.
            (Watermark::Timestamp(us), Kind::DateTime | Kind::SmallDateTime) if *us >= FIRST_DATETIME => {
                (format!("CAST({plain} AS datetime)"), ColumnData::DateTime2(Some(calendar::datetime2(*us, 6)?)))
            }
            _ => return None,
        })
    }

    /// Leaves out rows that the window does not hold, as far as the server can tell them.
    fn limit(&self, origin: &mut Origin, window: &Window, to: Option<&Watermark>) {
        let operator = if window.takes_lower() { ">=" } else { ">" };
        let mut parts = Vec::new();
        for (mark, operator) in [(window.lower(), operator), (to, "<=")] {
            let Some((bound, value)) = mark.and_then(|mark| self.bound(mark, origin.bounds.len() + 1)) else {
                continue;
            };
            parts.push(format!("{} {operator} {bound}", self.compared()));
            origin.bounds.push(value);
        }
        if !parts.is_empty() {
            let name = quote(&self.name);
            origin.condition.push_str(&format!(" AND (t.{name} IS NULL OR ({}))", parts.join(" AND ")));
        }
    }
}

/// The mark below which no running transaction has written; none where the server cannot tell.
fn oldest_writer(client: &mut Client) -> Result<Option<i64>, SqlError> {
    match client.number("SELECT CAST(MIN_ACTIVE_ROWVERSION() AS bigint)", &[]) {
        Ok(first) => Ok(first.map(|first| first - 1)),
        Err(error) if error.is_lost() => Err(error),
        Err(_) => Ok(None),
    }
}

/// A mark as the server gives it. Of a time that is finer than µs, what stands before it.
fn mark_of(row: &Row, kind: Kind) -> Option<Watermark> {
    let floored = |value: DateTime2| match value.time().scale() {
        7 => calendar::us_of_datetime2(DateTime2::new(value.date(), Time::new(value.time().increments() / 10, 6))),
        _ => calendar::us_of_datetime2(value),
    };
    let us = match row.get_column_data(0).ok()? {
        ColumnData::Date(date) => i64::from(calendar::days((*date)?)).checked_mul(86_400_000_000)?,
        ColumnData::DateTime2(value) => floored((*value)?)?,
        ColumnData::DateTimeOffset(value) => floored((*value)?.datetime2())?,
        ColumnData::DateTime(value) => calendar::us_of_datetime((*value)?)?,
        ColumnData::SmallDateTime(value) => calendar::us_of_small((*value)?),
        _ if kind.is_text() => return text(row, 0).map(|text| Watermark::Text(text.to_owned())),
        _ => return number(row, 0).map(Watermark::Integer),
    };
    Some(Watermark::Timestamp(us))
}

/// A value for a message.
fn shown(row: &Row, at: usize) -> String {
    if let Some(number) = number(row, at) {
        return number.to_string();
    }
    if let Some(text) = text(row, at) {
        return text.to_owned();
    }
    match (bytes(row, at), row.get_column_data(at)) {
        (Some(bytes), _) => hex::encode(bytes),
        (None, Ok(ColumnData::Guid(Some(value)))) => value.to_string(),
        (None, Ok(ColumnData::Numeric(Some(value)))) => value.to_string(),
        (None, Ok(other)) => format!("{other:?}"),
        (None, Err(_)) => String::new(),
    }
}

const BEGIN: &str = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; BEGIN TRANSACTION";
const BEGIN_SNAPSHOT: &str = "SET TRANSACTION ISOLATION LEVEL SNAPSHOT; BEGIN TRANSACTION";
/// What is read stays as it is until the end.
const BEGIN_HOLDING: &str = "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; BEGIN TRANSACTION";
/// 1753-01-01, from which on there is `datetime`.
const FIRST_DATETIME: i64 = -79_257 * 86_400_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(kind: Kind) -> Mark {
        Mark { name: "更新]时间".to_owned(), kind }
    }

    #[test]
    fn bounds_are_bound_and_have_the_columns_own_type() {
        let mut origin = Origin {
            relation: None,
            from: String::new(),
            is_fixed: true,
            condition: "1 = 1".to_owned(),
            bounds: vec![],
        };
        let from = Watermark::Timestamp(1_000_000);
        mark(Kind::DateTime).limit(&mut origin, &Window::above(Some(&from), Some(&from), 0, false), Some(&from));
        assert_eq!(
            origin.condition,
            "1 = 1 AND (t.[更新]]时间] IS NULL OR (t.[更新]]时间] >= CAST(@P1 AS datetime) AND t.[更新]]时间] <= CAST(@P2 AS datetime)))"
        );
        assert_eq!(origin.bounds.len(), 2);
        let number = Watermark::Integer(7);
        assert_eq!(mark(Kind::RowVersion).bound(&number, 3).unwrap().0, "CAST(@P3 AS binary(8))");
        assert_eq!(mark(Kind::BigInt).bound(&number, 1).unwrap(), ("@P1".to_owned(), ColumnData::I64(Some(7))));
        assert!(mark(Kind::BigInt).bound(&from, 1).is_none(), "a mark of another kind");
        let old = Watermark::Timestamp(FIRST_DATETIME - 1);
        assert!(mark(Kind::DateTime).bound(&old, 1).is_none() && mark(Kind::DateTime2(3)).bound(&old, 1).is_some());
        assert_eq!(FIRST_DATETIME, types::parse_timestamp("1753-01-01 00:00:00").unwrap());
        assert_eq!(mark(Kind::NVarChar(None)).compared(), "t.[更新]]时间] COLLATE Latin1_General_100_BIN2");
    }

    #[test]
    fn marks_that_are_given_out_of_order_are_known() {
        assert!(mark(Kind::BigInt).is_given_out_of_order());
        assert!(!mark(Kind::RowVersion).is_given_out_of_order() && !mark(Kind::DateTime2(7)).is_given_out_of_order());
    }
}
