//! Names on a server, and where one transfer lands: its tables by name, and the locks that keep two copies of a node,
//! and two transfers into one table, behind each other.

use crate::Landing;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::Contract;
use std::fmt;

/// A table of a database, quoted when it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableName {
    pub(super) schema: String,
    pub(super) table: String,
}

impl TableName {
    /// `table` or `database.table`, each as it is or in backticks.
    pub(super) fn parse(text: &str, database: &str) -> Option<Self> {
        let (first, rest) = part(text)?;
        match rest {
            None => Some(Self { schema: database.to_owned(), table: first }),
            Some(rest) => match part(rest)? {
                (table, None) => Some(Self { schema: first, table }),
                (_, Some(_)) => None,
            },
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", quote(&self.schema), quote(&self.table))
    }
}

/// The first part of a name, and what stands behind its dot.
fn part(text: &str) -> Option<(String, Option<&str>)> {
    let (name, rest) = match text.strip_prefix('`') {
        None => match text.split_once('.') {
            Some((name, rest)) => (name.to_owned(), Some(rest)),
            None => (text.to_owned(), None),
        },
        Some(quoted) => {
            let (mut name, mut left) = (String::new(), quoted);
            let rest = loop {
                let (piece, after) = left.split_once('`')?;
                name.push_str(piece);
                match after.strip_prefix('`') {
                    Some(more) => {
                        name.push('`');
                        left = more;
                    }
                    None => break after,
                }
            };
            match rest {
                "" => (name, None),
                rest => (name, Some(rest.strip_prefix('.')?)),
            }
        }
    };
    let plain = text.starts_with('`') || !name.contains('`');
    let fits = !name.is_empty() && name.chars().count() <= NAME_CHARS_MAX && !name.contains('\0');
    (plain && fits && !name.ends_with(' ')).then_some((name, rest))
}

/// A name as SQL text.
pub(super) fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Names as a list of SQL.
pub(super) fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(quote).collect::<Vec<_>>().join(", ")
}

/// A text as SQL has it in a session of ours, where a backslash escapes.
pub(super) fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        match c {
            '\'' => out.push_str("''"),
            '\\' => out.push_str("\\\\"),
            '\0' => out.push_str("\\0"),
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) landing: Landing,
    /// The columns of the staging table.
    pub(super) staged: Contract,
    pub(super) target: TableName,
    /// The database of staging and of the two tables beside it.
    pub(super) control: String,
}

impl Place {
    pub(super) fn new(landing: &Landing, database: &str, control: Option<&str>) -> Result<Self, Problem> {
        posthouse_protocol::batch::check_contract(&landing.contract)?;
        let refused = |cause: &str| Problem::new(Code::DestinationFailed).with("target", &landing.table).cause(cause);
        let target = TableName::parse(&landing.table, database)
            .ok_or_else(|| refused("a table is named `table` or `database.table`, in at most 64 characters each"))?;
        let schema = target.schema.to_ascii_lowercase();
        if target.table.to_ascii_lowercase().starts_with(OWN) || KEPT.contains(&schema.as_str()) {
            return Err(refused("this name is kept for other uses"));
        }
        if let Some(item) = landing.contract.items.iter().find(|item| {
            let name = item.name.to_ascii_lowercase();
            name.starts_with(OWN) || name.chars().count() > NAME_CHARS_MAX || name.ends_with(' ')
        }) {
            return Err(refused(&format!("a column here cannot be named `{}`", item.name)));
        }
        let control = control.unwrap_or(&target.schema).to_owned();
        landing.check_operations()?;
        Ok(Self { landing: landing.clone(), staged: landing.staged(), target, control })
    }

    pub(super) fn transfer(&self) -> &str {
        self.landing.transfer.as_str()
    }
    /// The transfer's own staging table.
    pub(super) fn staging(&self) -> TableName {
        self.beside("staging", self.transfer())
    }
    /// The staging table that was made beforehand for all transfers of the job.
    pub(super) fn premade(&self) -> TableName {
        let job = self.landing.job.as_str();
        let table = format!("{OWN}staging_{job}");
        if table.chars().count() > NAME_CHARS_MAX {
            return self.beside("staging", job);
        }
        TableName { schema: self.control.clone(), table }
    }
    /// A table of this transfer that nobody else names.
    pub(super) fn beside(&self, what: &str, of: &str) -> TableName {
        TableName { schema: self.control.clone(), table: format!("{OWN}{what}_{}", short_hash(of)) }
    }
    pub(super) fn own(&self, table: &str) -> TableName {
        TableName { schema: self.control.clone(), table: format!("{OWN}{table}") }
    }
    /// Name of a lock of the server's, for whoever comes to a name.
    pub(super) fn lock(of: &str) -> String {
        format!("posthouse {}", short_hash(of))
    }
}

/// What tells two texts apart, in a few characters.
pub(super) fn short_hash(of: &str) -> String {
    let hash = blake3::hash(of.as_bytes()).to_hex();
    hash.get(..HASH_DIGITS).unwrap_or_default().to_owned()
}

/// Names of our own begin like this.
const OWN: &str = "posthouse_";
/// Databases of the server itself.
const KEPT: &[&str] = &["mysql", "information_schema", "performance_schema", "sys"];
pub(super) const NAME_CHARS_MAX: usize = 64;
const HASH_DIGITS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{landing, small};
    use posthouse_protocol::job::Write;

    #[test]
    fn a_name_is_taken_as_it_is_written() {
        let name = |text: &str| TableName::parse(text, "db").map(|name| name.to_string());
        assert_eq!(name("permits").as_deref(), Some("`db`.`permits`"));
        assert_eq!(name("审批.许可 证").as_deref(), Some("`审批`.`许可 证`"));
        assert_eq!(name("`a.b`.`c``d`").as_deref(), Some("`a.b`.`c``d`"));
        for wrong in ["", ".", "a.", ".b", "a.b.c", "`a", "a`b", "`a`b", "a ", &"x".repeat(65)] {
            assert_eq!(name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn tables_of_the_server_and_of_our_own_are_no_targets() {
        for table in ["posthouse_applied", "mysql.user", "INFORMATION_SCHEMA.TABLES", "a.b.c"] {
            let mut landing = landing(1, Write::Append, &small());
            landing.table = table.to_owned();
            assert_eq!(Place::new(&landing, "db", None).unwrap_err().code, Code::DestinationFailed, "{table}");
        }
        let place = Place::new(&landing(1, Write::Append, &small()), "db", Some("控制")).unwrap();
        assert_eq!(place.premade().to_string(), "`控制`.`posthouse_staging_suite`");
        assert_eq!(place.target.to_string(), "`db`.`人口 base`");
    }

    #[test]
    fn a_text_ends_where_it_ends() {
        assert_eq!(literal("it's \\ \0 \""), "'it''s \\\\ \\0 \"'");
        assert_eq!(quote("na`me"), "`na``me`");
    }
}
