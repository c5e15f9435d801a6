//! Front-end tables in SQL Server. A row's version is the table's own `rowversion`, which the server changes with each
//! write; so it is another one once the flag is set, and is read again there. What was set is told by the server's
//! counts: a row is locked and counted before it is marked.

use super::Faults;
use super::catalog::Relation;
use super::client::{Client, id, param};
use super::kind::Kind;
use super::name::{TableName, quote};
use super::place::Fail;
use super::settings::Settings;
use crate::front::{self, FrontPlan, FrontRow, FrontSpec, FrontTable, Part};
use posthouse_protocol::problem::Problem;
use tiberius::ColumnData;

pub(super) struct SqlFront {
    faults: Faults,
    settings: Settings,
    spec: FrontSpec,
    table: TableName,
    client: Option<Client>,
}

/// The table as it stands.
struct Found {
    relation: Relation,
    row: Vec<String>,
    version: String,
}

/// A condition on one row `t`, and its parameters.
struct Is<'r> {
    /// By what tells it apart.
    same: String,
    /// And that it bears a flag, and is as it was.
    whole: String,
    params: Vec<ColumnData<'r>>,
}

impl SqlFront {
    pub(super) fn new(faults: Faults, settings: Settings, spec: &FrontSpec) -> Result<Self, Problem> {
        let table = front::named(spec, TableName::parse, FORM)?;
        Ok(Self { faults, settings, spec: spec.clone(), table, client: None })
    }

    /// Runs `work` as one transaction. A session in which something failed is not used again.
    fn transact<T>(&mut self, work: impl FnOnce(&mut Client, &Self) -> Result<T, Fail>) -> Result<T, Problem> {
        let mut client = match self.client.take() {
            Some(client) if !client.is_broken() => client,
            _ => Client::connect(&self.settings).map_err(|e| self.faults.connection(e))?,
        };
        client.be_quick();
        let begun = client.batch(BEGIN).map_err(Fail::Sql);
        let done = begun.and_then(|()| work(&mut client, self));
        let done = done.and_then(|done| client.batch("COMMIT TRANSACTION").map(|()| done).map_err(Fail::Sql));
        match done {
            Ok(done) => {
                self.client = Some(client);
                Ok(done)
            }
            Err(Fail::Problem(problem)) => Err(problem),
            Err(Fail::Sql(error)) if error.is_lost() => Err(self.faults.connection(error)),
            Err(Fail::Sql(error)) => Err(front::unfit(&self.spec.resource, error)),
        }
    }

    fn find(&self, client: &mut Client) -> Result<Found, Fail> {
        let (spec, table) = (&self.spec, &self.table);
        let unfit = |cause: String| Fail::Problem(front::unfit(&spec.resource, cause));
        let relation = Relation::find(client, table)?.ok_or_else(|| front::absent(spec, table))?;
        if !relation.is_table {
            return Err(unfit(format!("{table} is a view")));
        }
        let takes_null = |name: &str| relation.column(name).map(|column| !column.not_null);
        let row = front::row_key(spec, relation.primary(), &relation.unique, takes_null)?;
        let version = relation.columns.iter().find(|column| column.kind == Some(Kind::RowVersion));
        let version = version.map(|column| column.name.clone()).ok_or_else(|| {
            unfit("it has no column of the type `rowversion`, by which a row that was changed is known".to_owned())
        })?;
        Ok(Found { relation, row, version })
    }

    /// The condition on a row that bears `flag`; none where other columns tell rows apart now, or its version is none.
    fn is<'r>(&self, found: &Found, row: &'r FrontRow, flag: &str) -> Option<Is<'r>> {
        let version: i64 = row.version.parse().ok().filter(|_| row.row.len() == found.row.len())?;
        let (mut same, mut params) = (Vec::new(), Vec::new());
        for (name, part) in found.row.iter().zip(&row.row) {
            let at = params.len() + 1;
            let kind = found.relation.column(name).and_then(|column| column.kind);
            let value = match (part, kind) {
                (Part::Digits(_) | Part::Text(_), Some(kind)) => format!("CAST(@P{at} AS {})", kind.declare()),
                _ => format!("@P{at}"),
            };
            params.push(match part {
                Part::Integer(value) => id(*value),
                Part::Digits(text) | Part::Text(text) => param(text),
            });
            same.push(format!("t.{} = {value}", quote(name)));
        }
        let same = same.join(" AND ");
        let (column, flag, rowversion) = (quote(&self.spec.flag), literal(flag), quote(&found.version));
        let at = params.len() + 1;
        let whole = format!("{same} AND t.{column} = {flag} AND t.{rowversion} = CAST(@P{at} AS binary(8))");
        params.push(id(version));
        Some(Is { same, whole, params })
    }
}

impl Is<'_> {
    /// Whether there is such a row, which is nobody else's to change from now on.
    fn holds(&self, client: &mut Client, table: &TableName) -> Result<bool, Fail> {
        let count = format!("SELECT COUNT_BIG(*) FROM {table} AS t WITH (UPDLOCK) WHERE {}", self.whole);
        Ok(client.count(&count, &self.params)? > 0)
    }
    /// The parameters of `same`.
    fn same_params(&self) -> &[ColumnData<'_>] {
        self.params.split_last().map_or(&[], |(_, others)| others)
    }
}

impl FrontTable for SqlFront {
    fn plan(&mut self) -> Result<FrontPlan, Problem> {
        self.transact(|client, front| {
            let found = front.find(client)?;
            let FrontSpec { flag, from, to, purges, .. } = &front.spec;
            let (table, flag) = (&front.table, quote(flag));
            // Of no row, but with every right that is needed for one.
            let needs = |client: &mut Client, right: &str, sql: &str| {
                client.batch(sql).map_err(|error| match error.code().is_some_and(|code| NO_RIGHT.contains(&code)) {
                    true => Fail::Problem(front::lacks(&front.spec.resource, right, error)),
                    false => Fail::Sql(error),
                })
            };
            let update = format!("UPDATE t SET t.{flag} = {} FROM {table} AS t WHERE 1 = 0", literal(to));
            needs(client, "UPDATE", &update)?;
            if *purges {
                needs(client, "DELETE", &format!("DELETE t FROM {table} AS t WHERE 1 = 0"))?;
            }
            let columns = found.relation.columns.iter().map(|column| column.name.clone()).collect();
            let words = [format!("CAST(t.{} AS bigint)", quote(&found.version)), literal(from)];
            Ok(FrontPlan::unread(&front.spec, table, quote, words, columns, found.row))
        })
    }

    fn mark(&mut self, rows: &mut [FrontRow]) -> Result<u64, Problem> {
        if rows.is_empty() {
            return Ok(0);
        }
        let marked = self.transact(|client, front| {
            let found = front.find(client)?;
            let (table, column) = (&front.table, quote(&front.spec.flag));
            let mut marked = Vec::new();
            for (at, row) in rows.iter().enumerate() {
                let Some(is) = front.is(&found, row, &front.spec.from) else { continue };
                if !is.holds(client, table)? {
                    continue;
                }
                let to = literal(&front.spec.to);
                let update = format!("UPDATE t SET t.{column} = {to} FROM {table} AS t WHERE {}", is.same);
                client.execute(&update, is.same_params())?;
                let version = quote(&found.version);
                let now = format!("SELECT CAST(t.{version} AS bigint) FROM {table} AS t WHERE {}", is.same);
                marked.push((at, client.number(&now, is.same_params())?));
            }
            Ok(marked)
        })?;
        for (at, version) in &marked {
            if let (Some(row), Some(version)) = (rows.get_mut(*at), version) {
                row.version = version.to_string();
            }
        }
        Ok(marked.len() as u64)
    }

    fn purge(&mut self, rows: &[FrontRow]) -> Result<u64, Problem> {
        if rows.is_empty() {
            return Ok(0);
        }
        self.transact(|client, front| {
            let found = front.find(client)?;
            let table = &front.table;
            let mut deleted = 0;
            for row in rows {
                let Some(is) = front.is(&found, row, &front.spec.to) else { continue };
                if is.holds(client, table)? {
                    client.execute(&format!("DELETE t FROM {table} AS t WHERE {}", is.same), is.same_params())?;
                    deleted += 1;
                }
            }
            Ok(deleted)
        })
    }
}

/// What gives an account the rights beyond reading.
pub(super) fn grants(account: &str, spec: &FrontSpec) -> Result<Vec<String>, Problem> {
    let (table, account) = (front::named(spec, TableName::parse, FORM)?, quote(account));
    let update = format!("GRANT UPDATE ON {table} ({}) TO {account};", quote(&spec.flag));
    Ok(front::grants(spec, update, &table, &account))
}

/// A flag as SQL has it: a plain one, which a column of bytes of text is compared by as it is.
fn literal(value: &str) -> String {
    let national = if value.is_ascii() { "" } else { "N" };
    format!("{national}'{value}'")
}

/// How a table's name is written.
const FORM: &str = "schema.table";
/// On a table, on a column of it.
const NO_RIGHT: [u32; 2] = [229, 230];
const BEGIN: &str = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; BEGIN TRANSACTION";
