//! Reads a table, view or query in one read transaction. Rowid tables are read where they lie; a table without
//! rowids, a view and a query are first materialised in the connection's temporary database, in key order, so
//! that their splits too are ranges and repeats give the same rows. What no contract type takes is a bad row.

use super::columns::{self, Column};
use super::splits::{self, Range};
use super::{Faults, open, quote, values};
use crate::charset::{Charset, Undecodable};
use crate::pushdown::{Part, Wider};
use crate::types::{self, Window};
use crate::{BadRow, Plan, Read, Sink, Source, TableSpec};
use posthouse_protocol::batch::{BatchBuilder, Value};
use posthouse_protocol::filter::{Comparison, Filter, Literal};
use posthouse_protocol::manifest::SplitCounts;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::{Contract, ContractType, Item};
use posthouse_protocol::watermark::Watermark;
use rusqlite::types::{Value as Stored, ValueRef};
use rusqlite::{Connection, OpenFlags};
use std::borrow::Cow;
use std::collections::BTreeMap;

pub(super) struct SqliteSource {
    faults: Faults,
    spec: TableSpec,
    charset: Charset,
    reading: Option<Reading>,
}

/// What `begin` made; its connection holds the snapshot.
struct Reading {
    connection: Connection,
    splits: BTreeMap<String, Range>,
    rows: RowReader,
    sql: String,
    /// Bound in it behind the bounds of a split.
    bound: Vec<Stored>,
}

impl SqliteSource {
    pub(super) fn new(faults: Faults, spec: &TableSpec, charset: Charset) -> Result<Self, Problem> {
        if spec.table.is_some() == spec.query.is_some() {
            let cause = "a resource names either a table or a query";
            return Err(Problem::new(Code::SourceFailed).with("resource", &spec.resource).cause(cause));
        }
        Ok(Self { faults, spec: spec.clone(), charset, reading: None })
    }
    fn failed(&self, cause: impl std::fmt::Display) -> Problem {
        Problem::new(Code::SourceFailed).with("resource", &self.spec.resource).cause(cause)
    }
    fn sql(&self, error: rusqlite::Error) -> Problem {
        if super::is_lost(&error) { self.faults.connection(&error) } else { self.failed(error) }
    }
}

impl Source for SqliteSource {
    fn begin(&mut self, read: &Read) -> Result<Plan, Problem> {
        self.reading = None;
        let sql = |e| self.sql(e);
        let connection = open(&self.faults, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        // The first statement of the transaction takes the snapshot; the temporary database stays writable.
        connection.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").map_err(sql)?;
        let origin = Origin::find(&connection, &self.spec).map_err(sql)?.ok_or_else(|| {
            self.failed(format!("there is no table `{}`", self.spec.table.as_deref().unwrap_or_default()))
        })?;
        let scope = self.scope(&connection, &origin, read)?;
        let window = self.window(&scope, read);
        let mark = match scope.watermark {
            Some(position) => {
                let found = latest(&connection, &origin, &scope, position, &window, read.mark_max.as_ref());
                found.map_err(sql)?
            }
            None => None,
        };
        let upper = read.to.clone().or(mark).or_else(|| read.from.clone());
        let place = place(&connection, &origin, &scope, &window).map_err(sql)?;
        let ranges = splits::cut(&connection, &place.walk, &place.number).map_err(sql)?;
        let count = format!("SELECT count(*) FROM {}", place.walk);
        let rows_estimate = super::count(&connection, &count).map_err(sql)?;
        let suffix = if window.is_everything() { String::new() } else { format!(".{}", window.name()) };
        let name = |range: &Range| (format!("{}.{}-{}{suffix}", place.name, range.first, range.last), *range);
        let splits: Vec<(String, Range)> = ranges.iter().map(name).collect();
        let select = |index: usize| values::select(&scope.names[index], scope.types[index]);
        let list = (0..scope.names.len()).map(select).collect::<Vec<_>>().join(", ");
        let (asked, bound) = asked(&scope, read, self.charset);
        let sql = format!(
            "SELECT {list}, {number} FROM {from} WHERE {number} BETWEEN ?1 AND ?2{asked} ORDER BY {number}",
            number = place.number,
            from = place.read,
        );
        let plan = Plan {
            contract: scope.contract.clone(),
            watermark: upper,
            position: None,
            splits: splits.iter().map(|(name, _)| name.clone()).collect(),
            rows_estimate: Some(rows_estimate),
            bytes_estimate: None,
            native: None,
            apart: None,
            snapshot_max: None,
        };
        let (filter, charset, zero_dates) = (read.filter.clone(), self.charset, read.zero_dates_null);
        let rows = RowReader { scope, window, filter, label: place.name, charset, zero_dates };
        self.reading = Some(Reading { connection, splits: splits.into_iter().collect(), rows, sql, bound });
        Ok(plan)
    }

    fn read(&mut self, split: &str, sink: &mut dyn Sink) -> Result<SplitCounts, Problem> {
        let Some(reading) = &self.reading else { return Err(self.failed("nothing was begun")) };
        let Some(range) = reading.splits.get(split) else {
            return Err(self.failed(format!("the plan has no split `{split}`")));
        };
        let mut statement = reading.connection.prepare_cached(&reading.sql).map_err(|e| self.sql(e))?;
        let bounds = [range.first, range.last].map(Stored::Integer);
        let bound = bounds.iter().chain(&reading.bound);
        let mut rows = statement.query(rusqlite::params_from_iter(bound)).map_err(|e| self.sql(e))?;
        reading.rows.read(&mut rows, sink, &|e| self.sql(e))
    }
}

impl SqliteSource {
    /// Which columns are read, with their types, and the contract they make.
    fn scope(&self, connection: &Connection, origin: &Origin, read: &Read) -> Result<Scope, Problem> {
        let mut key = self.spec.key.clone();
        if key.is_empty() {
            let mut declared: Vec<&Column> = origin.columns.iter().filter(|column| column.key_place > 0).collect();
            declared.sort_by_key(|column| column.key_place);
            key = declared.into_iter().map(|column| column.name.clone()).collect();
        }
        let wanted: Vec<String> = match &read.columns {
            Some(columns) => columns.clone(),
            None => origin.columns.iter().map(|column| column.name.clone()).collect(),
        };
        let beyond = read.filter.iter().flat_map(Filter::columns).chain(self.spec.watermark.as_deref());
        let mut names = wanted.clone();
        for name in beyond {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        let (mut types, mut items) = (Vec::new(), Vec::new());
        for (index, name) in names.iter().enumerate() {
            let column = origin.columns.iter().find(|column| column.name == *name);
            let column = column.ok_or_else(|| self.failed(format!("there is no column `{name}`")))?;
            let r#type = match columns::contract_type(&column.declared) {
                Some(r#type) => r#type,
                None if column.declared.is_empty() => {
                    columns::infer(connection, &quote(&origin.name), name, &self.faults)?
                }
                None => {
                    let problem = Problem::new(Code::TypeUnsupported).with("column", name);
                    return Err(problem.with("type", &column.declared));
                }
            };
            types.push(r#type);
            if index < wanted.len() {
                // A watermark keeps its values: what is NULL there is no mark, and the row would come with every run.
                let is_mark = self.spec.watermark.as_ref() == Some(name);
                let may_be_zero = read.zero_dates_null && types::is_dated(r#type) && !is_mark;
                let nullable = (!column.not_null || may_be_zero) && !key.contains(name) && column.key_place == 0;
                items.push(Item { name: name.clone(), r#type, nullable, comment: None });
            }
        }
        if let Some(name) = key.iter().find(|name| !origin.columns.iter().any(|column| column.name == **name)) {
            return Err(self.failed(format!("there is no key column `{name}`")));
        }
        // A grant without the key's columns hands over rows that have none.
        if !key.iter().all(|name| wanted.contains(name)) {
            key.clear();
        }
        let contract = Contract { items, key };
        posthouse_protocol::batch::check_contract(&contract).map_err(|e| self.failed(e))?;
        let filterable = Contract {
            items: names
                .iter()
                .zip(&types)
                .map(|(name, r#type)| Item { name: name.clone(), r#type: *r#type, nullable: true, comment: None })
                .collect(),
            key: Vec::new(),
        };
        if let Some(Err(error)) = read.filter.as_ref().map(|filter| filter.check(&filterable)) {
            let problem = Problem::new(Code::FilterUnsupported).with("resource", &self.spec.resource);
            return Err(problem.cause(error));
        }
        let watermark = self.spec.watermark.as_ref().and_then(|mark| names.iter().position(|name| name == mark));
        if let Some(position) = watermark
            && !types::can_be_watermark(types[position])
        {
            let problem = Problem::new(Code::TypeUnsupported).with("column", &names[position]);
            return Err(problem.with("type", types::type_name(types[position])).cause("a watermark has an order"));
        }
        if let (Some(position), false) = (watermark, self.charset.is_utf8())
            && types[position] == ContractType::Text
        {
            let order = "the file orders such texts by its own bytes, and here they are compared as UTF-8";
            return Err(
                self.failed(format!("the watermark `{}` is a text in another charset: {order}", names[position]))
            );
        }
        if !contract.key.is_empty() {
            self.check_key(connection, origin, &contract.key)?;
        }
        Ok(Scope { names, types, contract, watermark })
    }

    /// Where the engine itself does not keep the key unique, the rows are looked at: two rows of one key cannot both land.
    fn check_key(&self, connection: &Connection, origin: &Origin, key: &[String]) -> Result<(), Problem> {
        let sql = |e| self.sql(e);
        if origin.kind != Kind::Materialised && columns::is_unique(connection, &origin.name, key).map_err(sql)? {
            return Ok(());
        }
        let list = super::quoted(key.iter().map(String::as_str));
        let from = quote(&origin.name);
        let twice = format!("SELECT {list} FROM {from} GROUP BY {list} HAVING count(*) > 1 LIMIT 1");
        let mut statement = connection.prepare(&twice).map_err(sql)?;
        let mut rows = statement.query([]).map_err(sql)?;
        match rows.next().map_err(sql)? {
            None => Ok(()),
            Some(row) => {
                let cause = format!("the key is not unique: {}", values::original(key, row, self.charset));
                Err(self.failed(cause))
            }
        }
    }

    fn window(&self, scope: &Scope, read: &Read) -> Window {
        match scope.watermark {
            Some(position) => {
                let unique = scope.contract.key == scope.names[position..=position];
                Window::above(read.from.as_ref(), read.to.as_ref(), self.spec.late_ms, unique)
            }
            None => Window::default(),
        }
    }
}

/// What is read from.
struct Origin {
    name: String,
    columns: Vec<Column>,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// With the word for its rowid that no column of its own hides.
    Rowid(&'static str),
    Materialised,
}

impl Origin {
    fn find(connection: &Connection, spec: &TableSpec) -> rusqlite::Result<Option<Self>> {
        if let Some(query) = &spec.query {
            connection.execute(&format!("CREATE TEMP VIEW {QUERY} AS {query}"), [])?;
            let columns = columns::of_table(connection, QUERY)?.unwrap_or_default();
            return Ok(Some(Self { name: QUERY.to_owned(), columns, kind: Kind::Materialised }));
        }
        let name = spec.table.clone().unwrap_or_default();
        let Some(columns) = columns::of_table(connection, &name)? else { return Ok(None) };
        let list = "SELECT type = 'table' AND wr = 0 FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE";
        let plain: bool = connection.query_row(list, [&name], |row| row.get(0))?;
        let word = ["rowid", "_rowid_", "oid"]
            .into_iter()
            .find(|word| !columns.iter().any(|column| column.name.eq_ignore_ascii_case(word)));
        let kind = match word {
            Some(word) if plain => Kind::Rowid(word),
            _ => Kind::Materialised,
        };
        Ok(Some(Self { name, columns, kind }))
    }
}

/// The columns that are read: the contract's first, then what only filter and watermark need.
struct Scope {
    names: Vec<String>,
    types: Vec<ContractType>,
    contract: Contract,
    watermark: Option<usize>,
}

/// What the file itself is asked for of a row filter, with the values that are bound behind a split's bounds. A column
/// holds whatever was put there: what is not stored as its type says is looked at here.
fn asked(scope: &Scope, read: &Read, charset: Charset) -> (String, Vec<Stored>) {
    let r#type = |name: &str| scope.names.iter().position(|known| known == name).and_then(|at| scope.types.get(at));
    let is_sure = |part: &Part<'_>| match part {
        Part::Compare(name, _, Literal::Integer(_)) => r#type(name) == Some(&ContractType::Integer),
        Part::Compare(name, Comparison::Equal, Literal::Text(text)) => {
            charset.is_utf8() && r#type(name) == Some(&ContractType::Text) && !text.contains('\0')
        }
        Part::Compare(..) => false,
        // A date of zeros may be read as NULL.
        Part::Null(name, _) => r#type(name).is_some_and(|r#type| !types::is_dated(*r#type)),
    };
    let mut bound = Vec::new();
    let Some(wider) = read.filter.as_ref().and_then(|filter| Wider::of(filter, &is_sure)) else {
        return (String::new(), bound);
    };
    let sql = wider.sql(&mut |part| match part {
        Part::Compare(name, comparison, literal) => {
            // By its bytes: the column may have an order that only the program which made it knows.
            let (stored, collate, value) = match literal {
                Literal::Integer(number) => ("integer", "", Stored::Integer(*number)),
                other => ("text", " COLLATE BINARY", Stored::Text(text_of(other))),
            };
            bound.push(value);
            let (column, at) = (quote(name), bound.len() + 2);
            format!("typeof({column}) NOT IN ('{stored}', 'null') OR {column}{collate} {} ?{at}", comparison.as_str())
        }
        Part::Null(name, true) => format!("{} IS NULL", quote(name)),
        Part::Null(name, false) => format!("{} IS NOT NULL", quote(name)),
    });
    (format!(" AND {sql}"), bound)
}

fn text_of(literal: &Literal) -> String {
    match literal {
        Literal::Text(text) => text.clone(),
        other => other.to_string(),
    }
}

/// From where, and by which number, splits are walked and read.
struct Place {
    name: &'static str,
    walk: String,
    read: String,
    number: String,
}

/// Rows above the window's lower bound, and those whose mark cannot be compared there; an index can serve each part.
fn above(scope: &Scope, window: &Window) -> Option<(String, rusqlite::types::Value)> {
    let position = scope.watermark?;
    let column = quote(&scope.names[position]);
    Some(match window.lower()? {
        Watermark::Integer(bound) => (format!("({column} IS NULL OR {column} >= ?1)"), (*bound).into()),
        Watermark::Text(bound) => (format!("({column} IS NULL OR {column} >= ?1)"), bound.clone().into()),
        Watermark::Timestamp(us) => {
            // Written times differ in form and zone; all begin with their date, at most a day away from UTC's.
            let day = us.div_euclid(86_400_000_000) - 1;
            let mut text = String::new();
            let days = i32::try_from(day).unwrap_or(i32::MIN);
            if !types::write_date(days, &mut text) || text.starts_with('-') {
                text.clear();
            }
            // Values that are no text stand before all text.
            (format!("({column} IS NULL OR {column} < '' OR {column} >= ?1)"), text.into())
        }
    })
}

/// The largest mark in the snapshot above the window's lower bound.
fn latest(
    connection: &Connection,
    origin: &Origin,
    scope: &Scope,
    position: usize,
    window: &Window,
    max: Option<&Watermark>,
) -> rusqlite::Result<Option<Watermark>> {
    let column = quote(&scope.names[position]);
    let (condition, bound) = match above(scope, window) {
        Some((condition, bound)) => (condition, vec![bound]),
        None => (format!("{column} IS NOT NULL"), Vec::new()),
    };
    let mut statement =
        connection.prepare(&format!("SELECT {column} FROM {} WHERE {condition}", quote(&origin.name)))?;
    let mut rows = statement.query(rusqlite::params_from_iter(bound))?;
    let (mut mark, mut scratch) = (None, Vec::new());
    while let Some(row) = rows.next()? {
        // A value that is no mark makes a bad row later.
        let value = values::read(row.get_ref(0)?, scope.types[position], &mut scratch);
        let found = value.ok().as_ref().and_then(types::watermark_of);
        if let Some(found) = found.filter(|found| types::is_within(found, max)) {
            mark = Some(types::later(mark, found));
        }
    }
    Ok(mark)
}

fn place(connection: &Connection, origin: &Origin, scope: &Scope, window: &Window) -> rusqlite::Result<Place> {
    let from = quote(&origin.name);
    let above = above(scope, window);
    if let Kind::Rowid(word) = origin.kind {
        let Some((condition, bound)) = above else {
            let number = format!("{from}.{word}");
            return Ok(Place { name: "rowid", walk: from.clone(), read: from, number });
        };
        let column = quote(&scope.names[scope.watermark.unwrap_or_default()]);
        connection.execute_batch(&format!("CREATE TEMP TABLE {ROWS} ({PLACE} INTEGER PRIMARY KEY)"))?;
        let mut select = connection.prepare(&format!("SELECT {word}, {column} FROM {from} WHERE {condition}"))?;
        let mut insert = connection.prepare(&format!("INSERT INTO temp.{ROWS} VALUES (?1)"))?;
        let r#type = scope.types[scope.watermark.unwrap_or_default()];
        let (mut rows, mut scratch) = (select.query([bound])?, Vec::new());
        while let Some(row) = rows.next()? {
            // What cannot be read as a mark is taken along, to be reported.
            if values::read(row.get_ref(1)?, r#type, &mut scratch).map_or(true, |value| window.holds(&value)) {
                insert.execute([row.get::<_, i64>(0)?])?;
            }
        }
        let read = format!("temp.{ROWS} CROSS JOIN {from} ON {from}.{word} = {ROWS}.{PLACE}");
        return Ok(Place { name: "rowid", walk: format!("temp.{ROWS}"), read, number: format!("{ROWS}.{PLACE}") });
    }
    let list = super::quoted(scope.names.iter().map(String::as_str));
    let order = match scope.contract.key.as_slice() {
        [] => list.clone(),
        key => super::quoted(key.iter().map(String::as_str)),
    };
    let (condition, bound) = match above {
        Some((condition, bound)) => (condition, vec![bound]),
        None => ("true".to_owned(), Vec::new()),
    };
    // Columns without a type keep every value as it is.
    connection.execute_batch(&format!("CREATE TEMP TABLE {ROWS} ({PLACE} INTEGER PRIMARY KEY, {list})"))?;
    connection.execute(
        &format!("INSERT INTO temp.{ROWS} ({list}) SELECT {list} FROM {from} WHERE {condition} ORDER BY {order}"),
        rusqlite::params_from_iter(bound),
    )?;
    let rows = format!("temp.{ROWS}");
    Ok(Place { name: "row", walk: rows.clone(), read: rows, number: PLACE.to_owned() })
}

/// Turns rows into batches and bad rows; also used for a standing table.
pub(super) struct RowReader {
    scope: Scope,
    window: Window,
    filter: Option<Filter>,
    /// What the last selected column numbers.
    label: &'static str,
    charset: Charset,
    /// Whether a date of zeros counts as NULL.
    zero_dates: bool,
}

/// A row's texts in another charset, by column; none of a value that is no text.
type Texts<'r> = Vec<Option<Result<Cow<'r, str>, Undecodable>>>;

impl RowReader {
    /// For a table that has exactly the contract's columns.
    pub(super) fn of_contract(
        contract: &Contract,
        watermark: Option<&str>,
        to: Option<&Watermark>,
        charset: Charset,
    ) -> Self {
        let watermark = watermark.and_then(|name| contract.position(name));
        let window = Window::up_to(to.filter(|_| watermark.is_some()));
        let scope = Scope {
            names: contract.items.iter().map(|item| item.name.clone()).collect(),
            types: contract.items.iter().map(|item| item.r#type).collect(),
            contract: contract.clone(),
            watermark,
        };
        Self { scope, window, filter: None, label: "row", charset, zero_dates: false }
    }
    pub(super) fn select(&self) -> String {
        let columns = self.scope.names.iter().zip(&self.scope.types);
        columns.map(|(name, r#type)| values::select(name, *r#type)).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn read(
        &self,
        rows: &mut rusqlite::Rows<'_>,
        sink: &mut dyn Sink,
        problem: &dyn Fn(rusqlite::Error) -> Problem,
    ) -> Result<SplitCounts, Problem> {
        let mut counts = SplitCounts { changed: self.zero_dates.then_some(0), ..SplitCounts::default() };
        let mut builder = BatchBuilder::new(&self.scope.contract);
        let width = self.scope.contract.items.len();
        let (mut spare, mut scratch) = (Vec::new(), Vec::new());
        while let Some(row) = rows.next().map_err(problem)? {
            let texts = self.texts(row).map_err(problem)?;
            let mut values: Vec<Value<'_>> = types::recycle(spare);
            let (mut bad, mut zeros) = (None, 0);
            for (index, r#type) in self.scope.types.iter().enumerate() {
                let stored = match texts.get(index) {
                    Some(Some(Ok(text))) => Ok(ValueRef::Text(text.as_bytes())),
                    Some(Some(Err(_))) => Err(self.charset.fault()),
                    _ => Ok(row.get_ref(index).map_err(problem)?),
                };
                let value = match stored {
                    Ok(stored) if self.is_zero(index, *r#type, stored) => {
                        zeros += 1;
                        Ok(Value::Null)
                    }
                    Ok(stored) => values::read(stored, *r#type, &mut scratch),
                    Err(why) => Err(why),
                };
                let value = value.unwrap_or_else(|why| {
                    bad.get_or_insert((index, why));
                    Value::Null
                });
                if value.is_null() && self.scope.contract.items.get(index).is_some_and(|item| !item.nullable) {
                    bad.get_or_insert((index, "it is NULL where none may be"));
                }
                values.push(value);
            }
            let out_of_window = match (self.scope.watermark, bad) {
                // Where the mark itself is bad, nothing tells that the row is outside.
                (Some(position), Some((index, _))) if position == index => false,
                (Some(position), _) => values.get(position).is_some_and(|value| !self.window.holds(value)),
                (None, _) => false,
            };
            if out_of_window {
                spare = types::recycle(values);
                continue;
            }
            counts.read += 1;
            if let Some((index, why)) = bad {
                counts.quarantined += 1;
                sink.bad_row(self.bad_row(row, &values, index, why))?;
            } else if let Some(filter) = &self.filter
                && !types::passes(filter, &self.scope.names, &values)?
            {
                counts.filtered += 1;
            } else {
                if zeros > 0 {
                    sink.zeros(builder.rows(), zeros);
                }
                builder.push(values.get(..width).unwrap_or(&[]))?;
                counts.sent += 1;
                counts.changed = counts.changed.map(|changed| changed + zeros);
                if builder.is_full() {
                    sink.batch(builder.finish()?)?;
                }
            }
            spare = types::recycle(values);
        }
        if builder.rows() > 0 {
            sink.batch(builder.finish()?)?;
        }
        Ok(counts)
    }

    /// What of a row is not UTF-8 as it is stored.
    fn texts<'r>(&self, row: &'r rusqlite::Row<'_>) -> rusqlite::Result<Texts<'r>> {
        if self.charset.is_utf8() {
            return Ok(Vec::new());
        }
        let mut texts = Vec::with_capacity(self.scope.types.len());
        for index in 0..self.scope.types.len() {
            texts.push(match row.get_ref(index)? {
                ValueRef::Text(bytes) => Some(self.charset.decode(bytes)),
                _ => None,
            });
        }
        Ok(texts)
    }

    fn is_zero(&self, index: usize, r#type: ContractType, stored: ValueRef<'_>) -> bool {
        let ValueRef::Text(text) = stored else { return false };
        if !self.zero_dates || !types::is_dated(r#type) || !types::is_zero_date(text) {
            return false;
        }
        if self.scope.watermark == Some(index) {
            return false;
        }
        self.scope.contract.items.get(index).is_none_or(|item| item.nullable)
    }

    fn bad_row(&self, row: &rusqlite::Row<'_>, values: &[Value<'_>], index: usize, why: &str) -> BadRow {
        let key: Vec<String> = self
            .scope
            .contract
            .key_positions()
            .into_iter()
            .filter(|position| values.get(*position).is_some_and(|value| !value.is_null()))
            .map(|position| values[position].to_string())
            .collect();
        let number = || row.get::<_, i64>(self.scope.names.len()).map(|n| format!("{} {n}", self.label));
        let key = match key.len() {
            0 => number().unwrap_or_default(),
            _ => key.join(","),
        };
        let name = self.scope.names.get(index).map_or("", String::as_str);
        BadRow {
            key,
            reason: format!("`{name}`: {why}"),
            original: values::original(&self.scope.names, row, self.charset),
        }
    }
}

const QUERY: &str = "posthouse_query";
const ROWS: &str = "posthouse_rows";
const PLACE: &str = "posthouse_place";
