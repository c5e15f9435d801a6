//! 前置表: what a table into which an application leaves rows to be exchanged takes beyond being read: its unread rows as
//! a query, the flag of rows that were receipted, and the deletion of those that were kept long enough. Each of them is
//! one small piece of SQL, which every engine says in its own words; which rows they are, and when, is the node's.
//!
//! A row is told from others by the table's own unique key, and from what it was before by its version: a hash of all
//! of its values but the flag, or what the engine changes with each write.

use crate::TableSpec;
use posthouse_protocol::problem::{Code, Problem};
use serde::{Deserialize, Serialize};
use std::fmt::Display;

/// What a resource says of its front-end table, as far as the database has to do with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontSpec {
    pub table: String,
    /// What names a thing: several unread rows may bear one key.
    pub key: Vec<String>,
    /// The processed flag: a row that bears `from` is unread, and gets `to`. Both are plain: see [`is_plain`].
    pub flag: String,
    pub from: String,
    pub to: String,
    /// Whether rows are to be deleted some time, so that the account needs the right to.
    pub purges: bool,
    /// For problem texts: NODE/RESOURCE.
    pub resource: String,
}

/// How the unread rows are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontPlan {
    /// Gives them with the table's columns, and the version.
    pub query: String,
    /// The columns that tell rows apart, without NULL in them.
    pub row: Vec<String>,
    /// The column of the query that says what a row was when it was read: a text or a whole number.
    pub version: String,
    /// The table's columns.
    pub columns: Vec<String>,
    /// Whether a source of this kind wants the table's name beside the query: it knows more of a table's columns.
    pub names_table: bool,
}

impl FrontPlan {
    /// By the query of a table whose rows are called `t`. `words` are the engine's: what is a row's version, and the flag of
    /// an unread one.
    pub(crate) fn unread(
        spec: &FrontSpec,
        table: &impl Display,
        quote: fn(&str) -> String,
        words: [String; 2],
        columns: Vec<String>,
        row: Vec<String>,
    ) -> Self {
        let list = columns.iter().map(|name| format!("t.{}", quote(name))).collect::<Vec<_>>().join(", ");
        let ([version, from], flag) = (words, quote(&spec.flag));
        let query = format!("SELECT {list}, {version} AS {} FROM {table} AS t WHERE t.{flag} = {from}", quote(VERSION));
        Self { query, row, version: VERSION.to_owned(), columns, names_table: false }
    }

    /// What a source reads.
    pub fn source(&self, spec: &FrontSpec) -> TableSpec {
        TableSpec {
            table: self.names_table.then(|| spec.table.clone()),
            query: Some(self.query.clone()),
            key: self.row.clone(),
            watermark: None,
            late_ms: 0,
            resource: spec.resource.clone(),
        }
    }
}

/// One value of what tells rows apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Part {
    Integer(i64),
    /// A whole number beyond 64 bits, as digits.
    Digits(String),
    Text(String),
}

/// A row as it was read, or as it was left by [`FrontTable::mark`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontRow {
    /// One for each of [`FrontPlan::row`].
    pub row: Vec<Part>,
    pub version: String,
}

/// A front-end table in its database. All calls block.
pub trait FrontTable: Send {
    /// Looks at the table and at what the account may do there. Refused by name where its rows cannot be told apart, or
    /// it may not set the flag.
    fn plan(&mut self) -> Result<FrontPlan, Problem>;
    /// Sets the flag of those that bear `from` and are as they were read, in one transaction; the others stay as they
    /// are. A repeat changes nothing. How many it set. Where that gives a row another version, the row gets it.
    fn mark(&mut self, rows: &mut [FrontRow]) -> Result<u64, Problem>;
    /// Deletes those that bear `to` and are as they were left, in one transaction. How many it deleted.
    fn purge(&mut self, rows: &[FrontRow]) -> Result<u64, Problem>;
}

/// The column that a version stands in where the engine has none of its own.
pub const VERSION: &str = "posthouse_version";

/// The fact of a problem that names a right which the account lacks.
pub const LACKS: &str = "lacks";

/// Whether a flag's value can stand in the SQL of every engine as it is.
pub fn is_plain(value: &str) -> bool {
    let is_odd = |c: char| c.is_control() || matches!(c, '\'' | '"' | '`' | '\\');
    (1..=VALUE_CHARS_MAX).contains(&value.chars().count()) && !value.contains(is_odd) && value.trim() == value
}

/// A version as it is kept: one that is long by its hash.
pub fn version_of(text: &str) -> String {
    match text.len() <= VERSION_BYTES_MAX {
        true => text.to_owned(),
        false => blake3::hash(text.as_bytes()).to_hex().to_string(),
    }
}

/// A table that cannot be exchanged so, and why.
pub fn unfit(resource: &str, cause: impl Display) -> Problem {
    Problem::new(Code::FrontTableUnfit).with("resource", resource).cause(cause)
}

/// The same where it is a right that the account lacks, which is told as the fact [`LACKS`].
pub(crate) fn lacks(resource: &str, right: &str, cause: impl Display) -> Problem {
    unfit(resource, cause).with(LACKS, right)
}

/// There is no such table.
pub(crate) fn absent(spec: &FrontSpec, table: &impl Display) -> Problem {
    unfit(&spec.resource, format!("there is no table {table}, or the account may not see it"))
}

/// The table's name as its engine takes it, which is written in this `form`.
pub(crate) fn named<T>(spec: &FrontSpec, parse: impl FnOnce(&str) -> Option<T>, form: &str) -> Result<T, Problem> {
    let table = &spec.table;
    parse(table).ok_or_else(|| unfit(&spec.resource, format!("`{table}` is no table's name: write `{form}`")))
}

/// What gives an account the rights beyond reading: that to set the flag, as its engine says it, and that to delete where
/// rows are purged.
pub(crate) fn grants(spec: &FrontSpec, update: String, table: &impl Display, account: &str) -> Vec<String> {
    let delete = spec.purges.then(|| format!("GRANT DELETE ON {table} TO {account};"));
    std::iter::once(update).chain(delete).collect()
}

/// What tells the rows of a table apart: its primary key, else its `key`, else any other unique key, in the order in
/// which the engine lists them; of columns that take no NULL. `takes_null` says so of a column, and None where there is
/// none of that name: the flag's must be one.
pub(crate) fn row_key(
    spec: &FrontSpec,
    primary: &[String],
    unique: &[Vec<String>],
    takes_null: impl Fn(&str) -> Option<bool>,
) -> Result<Vec<String>, Problem> {
    if takes_null(&spec.flag).is_none() {
        return Err(unfit(&spec.resource, format!("there is no column `{}`", spec.flag)));
    }
    let same = |index: &[String]| index.len() == spec.key.len() && index.iter().all(|name| spec.key.contains(name));
    let by_key = unique.iter().filter(|index| same(index));
    let all = std::iter::once(primary).chain(by_key.chain(unique).map(Vec::as_slice));
    // The flag changes: what holds it tells no row again.
    let tells = |index: &&[String]| {
        let may_be_null = |name: &str| *index != primary && takes_null(name) != Some(false);
        !index.is_empty() && !index.iter().any(|name| *name == spec.flag || may_be_null(name))
    };
    let found = all.filter(|index| tells(index)).map(<[String]>::to_vec).next();
    found.ok_or_else(|| {
        let cause =
            "its rows cannot be told apart: it has no primary key, and no unique index over columns without NULL";
        unfit(&spec.resource, cause)
    })
}

const VALUE_CHARS_MAX: usize = 32;
/// A hash of 256 bits as digits.
const VERSION_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(key: &[&str]) -> FrontSpec {
        FrontSpec {
            table: "t".to_owned(),
            key: names(key),
            flag: "clzt".to_owned(),
            from: "0".to_owned(),
            to: "1".to_owned(),
            purges: false,
            resource: "node.example/t".to_owned(),
        }
    }
    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn rows_are_told_apart_by_what_never_changes_and_is_never_null() {
        let key = |primary: &[&str], unique: &[&[&str]]| {
            let unique: Vec<Vec<String>> = unique.iter().map(|index| names(index)).collect();
            row_key(&spec(&["id"]), &names(primary), &unique, |name| Some(name == "maybe")).ok()
        };
        assert_eq!(key(&["n"], &[&["n"], &["id"]]), Some(names(&["n"])), "the primary key goes before");
        assert_eq!(key(&[], &[&["a", "b"], &["id"]]), Some(names(&["id"])), "then `key`");
        assert_eq!(key(&[], &[&["maybe"], &["a", "b"]]), Some(names(&["a", "b"])));
        assert_eq!(key(&["id", "clzt"], &[&["id", "clzt"]]), None, "the flag is part of it");
        assert_eq!(key(&[], &[&["maybe"]]), None);
        assert_eq!(key(&[], &[]), None);
        let no_flag = row_key(&spec(&["id"]), &names(&["n"]), &[], |name| (name != "clzt").then_some(false));
        assert!(no_flag.unwrap_err().cause.contains("no column `clzt`"));
    }

    #[test]
    fn a_flag_is_what_no_engine_reads_as_more_than_a_value() {
        for plain in ["0", "1", "N", "未处理", "to do", "-1"] {
            assert!(is_plain(plain), "{plain}");
        }
        for odd in ["", " 0", "it's", "a\\", "\"", "a\nb", "`", &"x".repeat(33)] {
            assert!(!is_plain(odd), "{odd}");
        }
    }

    #[test]
    fn a_long_version_is_kept_by_its_hash() {
        assert_eq!(version_of("0x00000000000007D1"), "0x00000000000007D1");
        let long = "x".repeat(65);
        assert_eq!(version_of(&long).len(), 64);
        assert_ne!(version_of(&long), version_of(&"y".repeat(65)));
    }
}
