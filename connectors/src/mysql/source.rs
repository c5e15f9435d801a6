//! Reads a table, a view or a query within one snapshot, split by split, on the one session that holds it. Values are
//! taken as they are stored; one that its contract type does not have makes its row a bad row. A row filter is evaluated
//! here, for the server's collations and conversions are not those of the filter language; what of it the server is sure
//! to find too it is asked for beforehand.

use super::Faults;
use super::catalog::{Kind, Relation};
use super::client::Client;
use super::decode::{self, How};
use super::fail::Fail;
use super::place::{TableName, quote, quoted};
use super::rows::RowReader;
use super::splits::{self, Split};
use crate::charset::Charset;
use crate::pushdown::{Part, Wider};
use crate::types::{self, Window};
use crate::{Plan, Read, Sink, Source, TableSpec};
use mysql_async::Value as Stored;
use posthouse_protocol::batch::Value;
use posthouse_protocol::filter::{Comparison, Filter, Literal};
use posthouse_protocol::manifest::SplitCounts;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::{Contract, ContractType, Item};
use posthouse_protocol::watermark::Watermark;
use std::time::Duration;

pub(super) struct MySource {
    faults: Faults,
    client: Client,
    database: String,
    spec: TableSpec,
    snapshot_max: Duration,
    /// Of what programs put into columns of `latin1`.
    charset: Charset,
    reading: Option<Reading>,
}

/// What was begun.
struct Reading {
    reader: RowReader,
    splits: Vec<Split>,
}

/// The rows of a run as SQL, with the values that are bound in it; empty for all rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Condition {
    pub(super) sql: String,
    pub(super) values: Vec<Stored>,
    /// Whether there is a mark above which the rows are.
    pub(super) is_above: bool,
    /// For the splits' names: the same rows give the same text.
    pub(super) suffix: String,
}

impl MySource {
    pub(super) fn new(
        faults: Faults,
        client: Client,
        database: &str,
        spec: &TableSpec,
        snapshot_max: Duration,
    ) -> Self {
        let (database, spec) = (database.to_owned(), spec.clone());
        Self { faults, client, database, spec, snapshot_max, charset: Charset::default(), reading: None }
    }
    pub(super) fn coded(self, charset: Charset) -> Self {
        Self { charset, ..self }
    }

    fn failed(&self, cause: impl std::fmt::Display) -> Problem {
        Problem::new(Code::SourceFailed).with("resource", &self.spec.resource).cause(cause)
    }
    fn sql(&self, fail: Fail) -> Problem {
        self.faults.read(&self.spec.resource, fail)
    }

    /// Takes the snapshot; what the resource names, and how a statement names it.
    fn relation(&mut self) -> Result<(Relation, String), Problem> {
        let begun = self.client.run("ROLLBACK").and_then(|_| self.client.run(BEGIN));
        begun.map_err(|e| self.sql(e))?;
        if let Some(query) = &self.spec.query {
            // The line break ends a comment that the query may end with.
            let from = format!("({query}\n) AS {}", quote(QUERY));
            let name = TableName { schema: self.database.clone(), table: QUERY.to_owned() };
            self.client.run(&format!("SELECT 1 FROM {from} LIMIT 0")).map_err(|e| self.sql(e))?;
            let found = Relation::of_query(&mut self.client, name, &format!("SELECT * FROM {from}"));
            let mut found = found.map_err(|e| self.sql(e))?;
            if let Some(table) = self.spec.table.as_deref().and_then(|table| TableName::parse(table, &self.database)) {
                // The rows of one table, of whose columns the server knows more than of a result's: their character sets.
                let of_table = Relation::find(&mut self.client, &table).map_err(|e| self.sql(e))?;
                for column in of_table.into_iter().flat_map(|relation| relation.columns) {
                    found.columns.iter_mut().filter(|known| known.name == column.name).for_each(|known| {
                        *known = column.clone();
                    });
                }
            }
            return Ok((found, from));
        }
        let Some(table) = &self.spec.table else { return Err(self.failed("it names no table")) };
        let name = TableName::parse(table, &self.database)
            .ok_or_else(|| self.failed(format!("`{table}` is no table's name: write `database.table`")))?;
        let from = name.to_string();
        let missing = || format!("there is no table {from}, or the account may not see it");
        // From now on nobody makes another table of it.
        match self.client.run(&format!("SELECT 1 FROM {from} LIMIT 0")) {
            Err(fail @ Fail::Lost(_)) => Err(self.sql(fail)),
            locked => {
                let found = Relation::find(&mut self.client, &name).map_err(|e| self.sql(e))?;
                let found = found.ok_or_else(|| self.failed(missing()))?;
                locked.map_err(|e| self.sql(e))?;
                Ok((found, from))
            }
        }
    }

    fn scope(&mut self, relation: &Relation, from: &str, read: &Read) -> Result<RowReader, Problem> {
        let wanted = match &read.columns {
            Some(columns) => columns.clone(),
            None => relation.columns.iter().map(|column| column.name.clone()).collect(),
        };
        let key = if self.spec.key.is_empty() { &relation.primary } else { &self.spec.key };
        if let Some(name) = key.iter().find(|name| relation.column(name).is_none()) {
            return Err(self.failed(format!("there is no key column `{name}`")));
        }
        // A grant without the key's columns hands over rows that have none.
        let key = if key.iter().all(|name| wanted.contains(name)) { key.clone() } else { Vec::new() };
        let mut names = wanted.clone();
        for name in read.filter.iter().flat_map(Filter::columns).chain(self.spec.watermark.as_deref()) {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        let (mut types, mut items) = (Vec::new(), Vec::new());
        for (index, name) in names.iter().enumerate() {
            let column = relation.column(name).ok_or_else(|| self.failed(format!("there is no column `{name}`")))?;
            let Some(r#type) = column.contract_type() else {
                let problem = Problem::new(Code::TypeUnsupported).with("column", name);
                return Err(problem.with("type", &column.declared));
            };
            types.push(r#type);
            if index < wanted.len() {
                // A watermark keeps its values: what is NULL there is no mark, and the row would come with every run.
                let is_mark = self.spec.watermark.as_ref() == Some(name);
                let may_be_zero = read.zero_dates_null && types::is_dated(r#type) && !is_mark;
                let nullable = (!column.not_null || may_be_zero) && !key.contains(name);
                items.push(Item { name: name.clone(), r#type, nullable, comment: column.comment.clone() });
            }
        }
        let contract = Contract { items, key };
        posthouse_protocol::batch::check_contract(&contract).map_err(|e| self.failed(e))?;
        let nullable = |(name, r#type): (&String, &ContractType)| Item {
            name: name.clone(),
            r#type: *r#type,
            nullable: true,
            comment: None,
        };
        let filterable = Contract { items: names.iter().zip(&types).map(nullable).collect(), key: Vec::new() };
        if let Some(Err(error)) = read.filter.as_ref().map(|filter| filter.check(&filterable)) {
            let problem = Problem::new(Code::FilterUnsupported).with("resource", &self.spec.resource);
            return Err(problem.cause(error));
        }
        let watermark = self.spec.watermark.as_ref().and_then(|mark| names.iter().position(|name| name == mark));
        if let Some((name, r#type)) = watermark.and_then(|at| Some((names.get(at)?, types.get(at)?)))
            && !types::can_be_watermark(*r#type)
        {
            let problem = Problem::new(Code::TypeUnsupported).with("column", name);
            return Err(problem.with("type", types::type_name(*r#type)).cause("a watermark has an order"));
        }
        if !contract.key.is_empty() && !relation.keeps_unique(&contract.key) {
            self.check_key(relation, from, &contract.key)?;
        }
        let reader = RowReader::new(relation, names, &types, contract, watermark);
        Ok(reader.coded(relation, self.charset).zero_dates_null(read.zero_dates_null))
    }

    /// Where the engine itself does not keep the key unique, the rows are looked at: two rows of one key cannot both land.
    fn check_key(&mut self, relation: &Relation, from: &str, key: &[String]) -> Result<(), Problem> {
        // Texts that a collation takes for one are two.
        let exact = |name: &String| match relation
            .column(name)
            .is_some_and(|column| column.is_text() || column.collation.is_some())
        {
            true => format!("CAST({} AS BINARY)", quote(name)),
            false => quote(name),
        };
        let parts: Vec<String> = key.iter().map(exact).collect();
        // A row with a NULL in its key has none; it is a bad row by itself.
        let present = key.iter().map(|name| format!("{} IS NOT NULL", quote(name))).collect::<Vec<_>>().join(" AND ");
        let list = parts.join(", ");
        let twice = format!("SELECT {list} FROM {from} WHERE {present} GROUP BY {list} HAVING COUNT(*) > 1 LIMIT 1");
        let rows = self.client.rows(&twice, vec![]).map_err(|e| self.sql(e))?;
        let Some(row) = rows.first() else { return Ok(()) };
        let values = row.iter().map(super::client::text).collect::<Vec<_>>().join(", ");
        let names = quoted(key.iter().map(String::as_str));
        Err(self.failed(format!("the key is not unique: two rows have ({names}) = ({values})")))
    }

    /// Which rows this run reads, by the mark.
    fn window(&self, relation: &Relation, reader: &RowReader, read: &Read) -> (Window, Condition) {
        let (Some(name), Some(r#type)) = (&self.spec.watermark, self.mark_type(relation)) else {
            return Default::default();
        };
        let unique = reader.contract.key == [name.clone()];
        let window = Window::above(read.from.as_ref(), read.to.as_ref(), self.spec.late_ms, unique);
        let (mut bounds, mut values) = (Vec::new(), Vec::new());
        let mark = mark(relation, name, r#type);
        // What lies at a bound is looked at when it has come.
        for (bound, operator) in [(window.lower(), ">="), (read.to.as_ref(), "<=")] {
            if let Some(value) = bound.and_then(|bound| bound_value(bound, r#type)) {
                bounds.push(format!("{mark} {operator} ?"));
                values.push(value);
            }
        }
        let suffix = if window.is_everything() { String::new() } else { window.name() };
        if bounds.is_empty() {
            return (window, Condition { suffix, ..Condition::default() });
        }
        // A zero date is no mark, and is reported each time.
        let zero = match r#type {
            ContractType::Date | ContractType::Timestamp => format!(" OR {} < '0000-01-01'", quote(name)),
            _ => String::new(),
        };
        let sql = format!("({} IS NULL{zero} OR ({}))", quote(name), bounds.join(" AND "));
        let is_above = window.lower().is_some();
        (window, Condition { sql, values, is_above, suffix })
    }

    fn mark_type(&self, relation: &Relation) -> Option<ContractType> {
        relation.column(self.spec.watermark.as_deref()?)?.contract_type()
    }

    /// The largest mark in the snapshot, of the rows of this run; none of a row that is dated ahead.
    fn latest(
        &mut self,
        relation: &Relation,
        from: &str,
        condition: &Condition,
        most: Option<&Watermark>,
    ) -> Result<Option<Watermark>, Problem> {
        let (Some(name), Some(r#type)) = (self.spec.watermark.clone(), self.mark_type(relation)) else {
            return Ok(None);
        };
        let mark = mark(relation, &name, r#type);
        let mut values = condition.values.clone();
        let mut all = vec![format!("{} IS NOT NULL", quote(&name))];
        if !condition.sql.is_empty() {
            all.push(condition.sql.clone());
        }
        if let Some(most @ Watermark::Timestamp(_)) = most
            && let Some(value) = bound_value(most, r#type)
        {
            all.push(format!("{mark} <= ?"));
            values.push(value);
        }
        let sql = format!("SELECT MAX({mark}) FROM {from} WHERE {}", all.join(" AND "));
        let rows = self.client.rows(&sql, values).map_err(|e| self.sql(e))?;
        let Some(stored) = rows.first().and_then(|row| row.first()) else { return Ok(None) };
        let how = How::new(r#type, relation.column(&name));
        match decode::read(stored, how, None, &mut Vec::new()) {
            Ok(Value::Text(text)) if !self.charset.is_utf8() && !text.is_ascii() => Err(self
                .failed(format!("the watermark `{name}` has texts beyond ASCII, which `charset` gives another order"))),
            Ok(value) => Ok(types::watermark_of(&value)),
            // All there is are zero dates: each is a bad row, and none is a mark.
            Err(why) if why.contains("zero") => Ok(None),
            Err(why) => Err(self.failed(format!("the latest mark cannot be read: {why}"))),
        }
    }
}

impl Source for MySource {
    fn begin(&mut self, read: &Read) -> Result<Plan, Problem> {
        self.reading = None;
        let (relation, from) = self.relation()?;
        let reader = self.scope(&relation, &from, read)?;
        let (window, mut condition) = self.window(&relation, &reader, read);
        let latest = self.latest(&relation, &from, &condition, read.mark_max.as_ref())?;
        let upper = match (&read.to, latest, &read.from) {
            (Some(to), _, _) => Some(to.clone()),
            (None, Some(latest), Some(before)) => Some(types::later(Some(latest), before.clone())),
            (None, latest, before) => latest.or_else(|| before.clone()),
        };
        if let Some(filter) = &read.filter {
            condition.narrow(&relation, filter);
        }
        let reader = reader.passing(window, read.filter.clone());
        let planned = splits::plan(&mut self.client, &relation, &from, &reader.select(), &condition);
        let (splits, rows_estimate) = planned.map_err(|e| self.sql(e))?;
        let plan = Plan {
            contract: reader.contract.clone(),
            watermark: upper,
            position: None,
            splits: splits.iter().map(|split| split.name.clone()).collect(),
            rows_estimate,
            bytes_estimate: relation.bytes.filter(|_| condition.sql.is_empty() && relation.kind == Kind::Table),
            native: None,
            apart: None,
            snapshot_max: Some(self.snapshot_max),
        };
        self.reading = Some(Reading { reader, splits });
        Ok(plan)
    }

    fn read(&mut self, split: &str, sink: &mut dyn Sink) -> Result<SplitCounts, Problem> {
        let (faults, resource) = (self.faults.clone(), self.spec.resource.clone());
        let failed = |cause: String| Problem::new(Code::SourceFailed).with("resource", &resource).cause(cause);
        let Some(reading) = &self.reading else { return Err(failed("nothing was begun".to_owned())) };
        let split = reading.splits.iter().find(|known| known.name == split);
        let Some(split) = split else { return Err(failed("the plan has no such split".to_owned())) };
        let sql = |fail| faults.read(&resource, fail);
        let mut rows = self.client.stream(&split.sql, split.values.clone()).map_err(sql)?;
        reading.reader.read(&mut rows, sink, &sql)
    }
}

impl Condition {
    /// Asks the server itself for what it is sure to find of a row filter.
    fn narrow(&mut self, relation: &Relation, filter: &Filter) {
        let is_sure = |part: &Part<'_>| is_sure(relation, part);
        let Some(wider) = Wider::of(filter, &is_sure) else { return };
        let values = &mut self.values;
        let asked = wider.sql(&mut |part| match part {
            Part::Compare(name, comparison, literal) => {
                values.push(match literal {
                    Literal::Integer(number) => Stored::Int(*number),
                    Literal::Text(text) => Stored::Bytes(text.clone().into_bytes()),
                    other => Stored::Bytes(other.to_string().into_bytes()),
                });
                format!("{} {} ?", quote(name), comparison.as_str())
            }
            Part::Null(name, true) => format!("{} IS NULL", quote(name)),
            Part::Null(name, false) => format!("{} IS NOT NULL", quote(name)),
        });
        self.sql = if self.sql.is_empty() { asked } else { format!("{} AND {asked}", self.sql) };
    }
}

/// Whether the server finds every row for which a part of a filter is true. Texts that are the same are equal in every
/// collation, and what is equal in more than that is looked at here; a column refuses to be compared with characters that
/// it cannot hold. A year is compared as one of two digits, and a date of zeros may be read as NULL.
fn is_sure(relation: &Relation, part: &Part<'_>) -> bool {
    let (Part::Compare(name, ..) | Part::Null(name, _)) = part;
    let Some(column) = relation.column(name) else { return false };
    match part {
        Part::Compare(_, _, Literal::Integer(_)) => {
            column.contract_type() == Some(ContractType::Integer) && WHOLE_NUMBERS.contains(&column.r#type.as_str())
        }
        Part::Compare(_, Comparison::Equal, Literal::Text(literal)) => {
            let is_text = matches!(column.contract_type(), Some(ContractType::Text | ContractType::Char));
            // What a query gives is said to be in the session's own characters, whatever it is.
            is_text
                && relation.kind != Kind::Query
                && TEXTS.contains(&column.r#type.as_str())
                && column.charset.as_deref().is_some_and(|charset| holds(charset, literal))
        }
        Part::Compare(..) => false,
        Part::Null(..) => column.contract_type().is_some_and(|r#type| !types::is_dated(r#type)),
    }
}

/// Whether a column of this character set, one of Unicode's, has all characters of a text. Compared with another one the
/// statement fails (1267).
fn holds(charset: &str, text: &str) -> bool {
    match charset {
        "utf8mb4" => true,
        "utf8mb3" | "utf8" => text.chars().all(|letter| letter <= '\u{ffff}'),
        "ascii" => text.is_ascii(),
        _ => false,
    }
}

/// A mark as the server compares it: texts byte by byte.
fn mark(relation: &Relation, name: &str, r#type: ContractType) -> String {
    let charset = relation.column(name).and_then(|column| column.charset.as_deref());
    match (r#type, charset) {
        (ContractType::Text, None | Some("utf8mb4" | "utf8mb3" | "utf8" | "ascii")) => {
            format!("CAST({} AS BINARY)", quote(name))
        }
        (ContractType::Text, Some(_)) => format!("CAST(CONVERT({} USING utf8mb4) AS BINARY)", quote(name)),
        _ => quote(name),
    }
}

/// A mark to be bound; none where the column can hold nothing on that side of it.
fn bound_value(bound: &Watermark, r#type: ContractType) -> Option<Stored> {
    let mut text = String::new();
    match (bound, r#type) {
        (Watermark::Integer(number), ContractType::Integer) => Some(Stored::Int(*number)),
        (Watermark::Text(text), ContractType::Text) => Some(Stored::Bytes(text.clone().into_bytes())),
        (Watermark::Timestamp(us), ContractType::Timestamp) => {
            (types::write_timestamp(*us, &mut text) && !text.contains("infinity")).then(|| text.as_str().into())
        }
        // A day counts as its first instant.
        (Watermark::Timestamp(us), ContractType::Date) => {
            let days = i32::try_from(us.div_euclid(86_400_000_000)).ok()?;
            (types::write_date(days, &mut text) && !text.contains("infinity")).then(|| text.as_str().into())
        }
        _ => None,
    }
}

/// The snapshot is taken by the first row that is read: the table is locked against being exchanged before. One that was
/// exchanged after the snapshot shows none of its rows there, and no error.
pub(super) const BEGIN: &str = "START TRANSACTION";
const QUERY: &str = "posthouse_query";
/// Types whose values are compared with a number, or a text, as they are.
const WHOLE_NUMBERS: [&str; 5] = ["tinyint", "smallint", "mediumint", "int", "bigint"];
const TEXTS: [&str; 6] = ["char", "varchar", "tinytext", "text", "mediumtext", "longtext"];
