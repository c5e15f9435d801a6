//! Where one transfer lands: its tables by name, and the locks that keep two copies of a node, and two transfers
//! into one table, behind each other.

use super::catalog::TableName;
use super::wire::WireError;
use crate::Landing;
use posthouse_protocol::format::Format;
use posthouse_protocol::pgcopy::NativeType;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::Contract;

#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) landing: Landing,
    /// The columns of the staging table.
    pub(super) staged: Contract,
    pub(super) target: TableName,
    /// The schema of staging and of the two tables beside it.
    pub(super) control: String,
    /// The source's type of each item, where rows come in their native form.
    pub(super) natives: Option<Vec<NativeType>>,
}

impl Place {
    pub(super) fn new(landing: &Landing, control_schema: Option<&str>) -> Result<Self, Problem> {
        posthouse_protocol::batch::check_contract(&landing.contract)?;
        let refused = |cause: String| Problem::new(Code::DestinationFailed).with("target", &landing.table).cause(cause);
        let target = TableName::parse(&landing.table).ok_or_else(|| {
            refused("a table is named `table` or `schema.table`, in at most 63 bytes each".to_owned())
        })?;
        if target.table.starts_with(OWN) || target.schema.starts_with("pg_") || target.schema == "information_schema" {
            return Err(refused("this name is kept for other uses".to_owned()));
        }
        let natives = match &landing.native {
            None => None,
            Some(native) => {
                native.format(&[Format::PgCopy])?;
                native.shape(&landing.contract)?;
                let types = native.columns.iter().map(|text| text.parse::<NativeType>());
                Some(types.collect::<Result<Vec<_>, _>>().map_err(|e| refused(e.to_string()))?)
            }
        };
        let control = control_schema.unwrap_or(&target.schema).to_owned();
        landing.check_operations()?;
        if landing.operation.is_some() && natives.is_some() {
            return Err(refused("its rows say what they do, and come in the engine's own form".to_owned()));
        }
        Ok(Self { landing: landing.clone(), staged: landing.staged(), target, control, natives })
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
        if table.len() > NAME_BYTES_MAX {
            return self.beside("staging", job);
        }
        TableName { schema: self.control.clone(), table }
    }
    /// The keys of rows that were refused before they were staged.
    pub(super) fn refused(&self) -> TableName {
        self.beside("refused", self.transfer())
    }
    /// A table of this transfer that nobody else names.
    pub(super) fn beside(&self, what: &str, of: &str) -> TableName {
        let hash = blake3::hash(of.as_bytes()).to_hex();
        let table = format!("{OWN}{what}_{}", hash.get(..HASH_DIGITS).unwrap_or_default());
        TableName { schema: self.control.clone(), table }
    }
    pub(super) fn own(&self, table: &str) -> TableName {
        TableName { schema: self.control.clone(), table: format!("{OWN}{table}") }
    }

    /// Number of an advisory lock on a name.
    pub(super) fn lock(of: &str) -> i64 {
        let hash = blake3::derive_key("posthouse 2026-11 advisory lock", of.as_bytes());
        let [a, b, c, d, e, f, g, h, ..] = hash;
        i64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

/// Why work on a database ended early; what it means to the transfer is said where the connection is held.
#[derive(Debug)]
pub(super) enum Fail {
    Wire(WireError),
    Problem(Problem),
}

impl From<WireError> for Fail {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl From<Problem> for Fail {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// Names of our own begin like this.
const OWN: &str = "posthouse_";
const NAME_BYTES_MAX: usize = 63;
const HASH_DIGITS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{landing, small};
    use posthouse_protocol::job::Write;

    #[test]
    fn names_are_short_and_of_one_transfer_each() {
        let of = |number| Place::new(&landing(number, Write::Append, &small()), Some("控制")).unwrap();
        let (one, two) = (of(1), of(2));
        assert_ne!(one.staging(), two.staging());
        assert_eq!(one.premade(), two.premade());
        assert_eq!(one.premade().to_string(), r#""控制"."posthouse_staging_suite""#);
        assert!(one.staging().table.len() < NAME_BYTES_MAX);
        assert_eq!(one.target.to_string(), r#""public"."人口 base""#);
    }

    #[test]
    fn tables_of_the_engine_and_of_our_own_are_no_targets() {
        for table in ["posthouse_applied", "pg_catalog.pg_class", "information_schema.tables", "", "a.b.c"] {
            let mut landing = landing(1, Write::Append, &small());
            landing.table = table.to_owned();
            assert_eq!(Place::new(&landing, None).unwrap_err().code, Code::DestinationFailed, "{table}");
        }
    }
}
