//! Where one transfer lands: its tables by name. Staging and what is recorded of it stand in the control schema.

use super::client::SqlError;
use super::name::TableName;
use super::settings::Settings;
use crate::Landing;
use posthouse_protocol::problem::{Code, Problem};

#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) landing: Landing,
    pub(super) target: TableName,
    pub(super) control: String,
}

impl Place {
    pub(super) fn new(landing: &Landing, settings: &Settings) -> Result<Self, Problem> {
        posthouse_protocol::batch::check_contract(&landing.contract)?;
        let refused = |cause: &str| Problem::new(Code::DestinationFailed).with("target", &landing.table).cause(cause);
        let target = TableName::parse(&landing.table).ok_or_else(|| {
            refused("a table is named `table` or `schema.table`, in at most 128 characters each, without control characters")
        })?;
        let is_kept = |name: &str, kept: &[&str]| kept.iter().any(|kept| name.eq_ignore_ascii_case(kept));
        if target.table.get(..OWN.len()).is_some_and(|start| start.eq_ignore_ascii_case(OWN))
            || is_kept(&target.schema, &["sys", "INFORMATION_SCHEMA"])
        {
            return Err(refused("this name is kept for other uses"));
        }
        if let Some(item) = landing.contract.items.iter().find(|item| !super::name::is_name(&item.name)) {
            let cause = format!("`{}` can be no column's name here", item.name.escape_debug());
            return Err(refused(&cause));
        }
        landing.check_operations()?;
        let control = settings.control_schema.as_deref().unwrap_or(&target.schema).to_owned();
        Ok(Self { landing: landing.clone(), target, control })
    }

    pub(super) fn transfer(&self) -> &str {
        self.landing.transfer.as_str()
    }
    /// The transfer's own staging table, which nobody else names.
    pub(super) fn staging(&self) -> TableName {
        let hash = blake3::hash(self.transfer().as_bytes()).to_hex();
        self.own(&format!("staging_{}", hash.get(..HASH_DIGITS).unwrap_or_default()))
    }
    /// The staging table that was made beforehand for all transfers of the job.
    pub(super) fn premade(&self) -> TableName {
        let job = self.landing.job.as_str();
        let name = self.own(&format!("staging_{job}"));
        if super::name::is_name(&name.table) {
            return name;
        }
        let hash = blake3::hash(job.as_bytes()).to_hex();
        self.own(&format!("staging_job_{}", hash.get(..HASH_DIGITS).unwrap_or_default()))
    }
    pub(super) fn own(&self, table: &str) -> TableName {
        TableName { schema: self.control.clone(), table: format!("{OWN}{table}") }
    }
}

/// Why work on a database ended early; what it means to the transfer is said where the connection is held.
#[derive(Debug)]
pub(super) enum Fail {
    Sql(SqlError),
    Problem(Problem),
}

impl From<SqlError> for Fail {
    fn from(error: SqlError) -> Self {
        Self::Sql(error)
    }
}

impl From<Problem> for Fail {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// Names of our own begin like this.
const OWN: &str = "posthouse_";
const HASH_DIGITS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{landing, small};
    use posthouse_protocol::job::Write;

    fn settings(control: Option<&str>) -> Settings {
        let mut keys = crate::Settings::from([("url".to_owned(), "sqlserver://u@127.0.0.1/d".into())]);
        if let Some(control) = control {
            keys.insert("control_schema".to_owned(), control.into());
        }
        Settings::parse(&keys).unwrap()
    }

    #[test]
    fn names_are_of_one_transfer_each() {
        let of = |number| Place::new(&landing(number, Write::Append, &small()), &settings(Some("控制"))).unwrap();
        assert_ne!(of(1).staging(), of(2).staging());
        assert_eq!(of(1).premade(), of(2).premade());
        assert_eq!(of(1).premade().to_string(), "[控制].[posthouse_staging_suite]");
        assert_eq!(of(1).target.to_string(), "[dbo].[人口 base]");
        assert_eq!(of(1).own("applied").to_string(), "[控制].[posthouse_applied]");
        let place = Place::new(&landing(1, Write::Append, &small()), &settings(None)).unwrap();
        assert_eq!(place.control, "dbo");
    }

    #[test]
    fn tables_of_the_engine_and_of_our_own_are_no_targets() {
        for table in
            ["posthouse_applied", "Posthouse_x", "sys.objects", "information_schema.tables", "", "a.b.c", "a\nb"]
        {
            let mut landing = landing(1, Write::Append, &small());
            landing.table = table.to_owned();
            assert_eq!(Place::new(&landing, &settings(None)).unwrap_err().code, Code::DestinationFailed, "{table}");
        }
        let mut odd = small();
        odd.items[1].name = "a\tb".to_owned();
        assert!(Place::new(&landing(1, Write::Append, &odd), &settings(None)).is_err());
    }
}
