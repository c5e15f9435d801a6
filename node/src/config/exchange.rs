//! `[resource.exchange]`: a table into which an application leaves changes. What they mean, and what becomes of their
//! flags, is in `front`.

use super::read::bad_name;
use posthouse_connectors::TableSpec;
use posthouse_connectors::front::{FrontSpec, is_plain};
use posthouse_platform::settings::{Interval, Table, say};
use posthouse_protocol::operation::Operation;
use std::collections::BTreeSet;

/// A front-end table as its resource describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    pub spec: FrontSpec,
    /// None: each row is an update.
    pub operation: Option<Operations>,
    pub batch: Option<String>,
    /// The resource's own: it orders rows of one batch.
    pub watermark: Option<String>,
    /// How long after they were written back rows stay. None: for ever.
    pub keep_ms: Option<i64>,
}

/// The column that says what a row does, and in which words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operations {
    pub column: String,
    insert: String,
    update: String,
    delete: String,
}

impl Operations {
    /// Blanks that a column fills up with are no part of a word.
    pub fn read(&self, text: &str) -> Option<Operation> {
        let text = text.trim_end_matches(' ');
        [(&self.insert, Operation::Insert), (&self.update, Operation::Update), (&self.delete, Operation::Delete)]
            .into_iter()
            .find(|(word, _)| *word == text)
            .map(|(_, operation)| operation)
    }
}

impl Exchange {
    /// Columns that are not handed over unless `columns` names them.
    pub fn own_columns(&self) -> impl Iterator<Item = &str> {
        let operation = self.operation.as_ref().map(|operation| operation.column.as_str());
        operation.into_iter().chain(self.batch.as_deref()).chain([self.spec.flag.as_str()])
    }
}

pub(super) fn read(resource: &Table<'_>, spec: &TableSpec) -> Option<Exchange> {
    let table = resource.table("exchange")?;
    if spec.table.is_none() {
        table.mistake_here(say(
            "`exchange` needs a `table`: the rows of a query bear no flag",
            "`exchange` 须用于 `table`：查询的行没有处理标志",
        ));
    }
    if spec.key.is_empty() {
        table.mistake_here(say(
            "`exchange` needs the resource's `key`: changes are applied by it",
            "`exchange` 需要资源的 `key`：变更按主键生效",
        ));
    }
    if resource.has("late") {
        resource.mistake(
            "late",
            say(
                "`late` has no meaning beside `exchange`: its rows are read by their flag, whenever they come",
                "`late` 与 `exchange` 同用没有意义：行按处理标志读取，不论何时到达",
            ),
            None,
        );
    }
    let operation = table.table("operation").and_then(|table| operation(&table));
    let batch = table.get::<String>("batch").filter(|name| column(&table, "batch", name));
    let keep: Option<Interval> = table.get("keep");
    let flag = table.require_table("processed").and_then(|table| flag(&table))?;
    let exchange = Exchange {
        spec: FrontSpec {
            table: spec.table.clone()?,
            key: spec.key.clone(),
            flag: flag.0,
            from: flag.1,
            to: flag.2,
            purges: keep.is_some(),
            resource: spec.resource.clone(),
        },
        operation,
        batch,
        watermark: spec.watermark.clone(),
        keep_ms: keep.map(|keep| keep.as_ms()),
    };
    let mut seen = BTreeSet::new();
    let twice = exchange.own_columns().chain(spec.key.iter().map(String::as_str)).find(|name| !seen.insert(*name));
    if let Some(name) = twice {
        table.mistake_here(say(
            format!("`{name}` cannot be two of operation, batch, flag and key"),
            format!("`{name}` 不能同时充当操作、批次、标志、主键中的两项"),
        ));
    }
    Some(exchange)
}

fn operation(table: &Table<'_>) -> Option<Operations> {
    let name: Option<String> = table.require("column");
    let name = name.filter(|name| column(table, "column", name));
    let word = |key: &str| -> Option<String> { table.require(key).filter(|word: &String| value(table, key, word)) };
    let (insert, update, delete) = (word("insert"), word("update"), word("delete"));
    let operations = Operations { column: name?, insert: insert?, update: update?, delete: delete? };
    let words = BTreeSet::from([&operations.insert, &operations.update, &operations.delete]);
    if words.len() < 3 {
        table.mistake_here(say(
            "the words for insert, update and delete differ from each other",
            "insert、update、delete 的取值应各不相同",
        ));
    }
    Some(operations)
}

/// Column, `from` and `to`.
fn flag(table: &Table<'_>) -> Option<(String, String, String)> {
    let name: Option<String> = table.require("column");
    let name = name.filter(|name| column(table, "column", name));
    let word = |key: &str| -> Option<String> { table.require(key).filter(|word: &String| value(table, key, word)) };
    let (from, to) = (word("from"), word("to"));
    if from.is_some() && from == to {
        table.mistake_here(say("`from` and `to` of a flag differ", "标志的 `from` 与 `to` 应不同"));
    }
    Some((name?, from?, to?))
}

/// Whether a name can be a column's; told where it cannot.
fn column(table: &Table<'_>, key: &str, name: &str) -> bool {
    let is_one = !bad_name(name);
    if !is_one {
        let what = say(format!("`{name}` is no name of a column"), format!("`{name}` 不是列名"));
        table.mistake(key, what, None);
    }
    is_one
}

/// Whether a value can stand in every database's SQL; told where it cannot.
fn value(table: &Table<'_>, key: &str, word: &str) -> bool {
    let is_one = is_plain(word);
    if !is_one {
        let en = format!("`{key}` is 1 to 32 characters without quotes, backslashes and outer blanks");
        let zh = format!("`{key}` 为 1 至 32 个字符，不含引号、反斜杠和首尾空格");
        table.mistake(key, say(en, zh), None);
    }
    is_one
}
