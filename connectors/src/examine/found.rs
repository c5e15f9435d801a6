//! What one examination has found so far, in the words that all engines have in common: who is examined, which tables
//! are read by name, which of their columns, and which rights are there.

use super::{Columns, Finding, Grade, Reading, Topic};
use posthouse_protocol::problem::{Code, Problem};
use std::fmt::Display;

/// What is to be examined.
pub(crate) struct Asked<'a, P> {
    pub(crate) reads: &'a [Reading],
    /// Where rows land, as the engine names it.
    pub(crate) places: &'a [P],
    /// This machine's clock, in milliseconds.
    pub(crate) now: &'a dyn Fn() -> i64,
}

/// What was found of a connection.
pub(crate) struct Found {
    /// Whom the server has let in, as its GRANT names it.
    pub(crate) account: String,
    connection: String,
    findings: Vec<Finding>,
}

impl Found {
    pub(crate) fn new(account: String, connection: &str) -> Self {
        Self { account, connection: connection.to_owned(), findings: Vec::new() }
    }

    pub(crate) fn findings(self) -> Vec<Finding> {
        self.findings
    }

    /// The same is said once, however many need it.
    pub(crate) fn say(&mut self, finding: Finding) {
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// A right on a table, that is there or is not.
    pub(crate) fn right(&mut self, table: impl Display, right: &str, is_there: bool) {
        let grant = format!("GRANT {right} ON {table} TO {};", self.account);
        self.say(Finding::right(table, right, is_there, grant));
    }

    /// A table to land in that does not stand there: the account makes it, or the DBA's script does.
    pub(crate) fn missing(&mut self, table: impl Display, may_make: bool) {
        self.say(if may_make { Finding::to_be_made(table) } else { Finding::not_made(table, &self.connection) });
    }

    /// What is read of a table of which the account may read these columns only, in the table's order.
    pub(crate) fn columns(
        &mut self,
        table: impl Display,
        wanted: &Columns,
        readable: &[String],
        quote: fn(&str) -> String,
    ) {
        let list = |names: &[String]| names.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ");
        match wanted {
            _ if readable.is_empty() => self.right(table, "SELECT", false),
            Columns::All => self.right(table, "SELECT", false),
            Columns::Listed(wanted) => {
                let missing: Vec<String> = wanted.iter().filter(|name| !readable.contains(name)).cloned().collect();
                let (named, is_there) = if missing.is_empty() { (wanted, true) } else { (&missing, false) };
                self.right(table, &format!("SELECT ({})", list(named)), is_there);
            }
            Columns::Granted => {
                let (en, zh) = (
                    format!("the account may read some columns only: {}; others do not move", list(readable)),
                    format!("账号只能读取部分列：{}；其余列无法交换", list(readable)),
                );
                let grant = format!("GRANT SELECT ON {table} TO {};", self.account);
                self.say(Finding::new(Topic::Rights, Grade::Note, table, en, zh).fix(grant));
            }
        }
    }
}

/// The tables that are read by name, as their engine names them.
pub(crate) fn named<N>(reads: &[Reading], parse: impl Fn(&str) -> Option<N>) -> Result<Vec<(N, &Columns)>, Problem> {
    let tables = reads.iter().filter_map(|read| Some((read, read.spec.table.as_deref()?)));
    let parsed = tables.map(|(read, table)| match parse(table) {
        Some(name) => Ok((name, &read.columns)),
        None => Err(Problem::new(Code::SourceFailed)
            .with("resource", &read.spec.resource)
            .cause(format!("`{table}` is no table's name"))),
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(wanted: &Columns, readable: &[&str]) -> (Grade, String, Option<String>) {
        let mut found = Found::new("u".to_owned(), "db");
        let readable: Vec<String> = readable.iter().map(|name| (*name).to_owned()).collect();
        found.columns("t", wanted, &readable, |name| format!("`{name}`"));
        let [finding] = <[Finding; 1]>::try_from(found.findings()).unwrap();
        (finding.grade, finding.en, finding.fix)
    }

    #[test]
    fn columns_that_may_be_read_are_held_against_those_that_are() {
        let listed = Columns::Listed(vec!["id".to_owned(), "holder".to_owned()]);
        let (grade, en, fix) = columns(&listed, &["id", "holder", "phone"]);
        assert_eq!((grade, en.as_str(), fix), (Grade::Well, "SELECT (`id`, `holder`)", None));
        let (grade, _, fix) = columns(&listed, &["id"]);
        assert_eq!((grade, fix.as_deref()), (Grade::Wrong, Some("GRANT SELECT (`holder`) ON t TO u;")));
        let (grade, en, _) = columns(&Columns::Granted, &["id"]);
        assert!(grade == Grade::Note && en.contains("`id`"), "{en}");
        for (wanted, readable) in [(&Columns::All, &["id"][..]), (&Columns::Granted, &[][..]), (&listed, &[][..])] {
            let (grade, _, fix) = columns(wanted, readable);
            assert_eq!((grade, fix.as_deref()), (Grade::Wrong, Some("GRANT SELECT ON t TO u;")), "{wanted:?}");
        }
    }
}
