//! Front-end tables in PostgreSQL. A row's version is a hash of the texts of all of its values, which the server makes
//! both when it is read and when its flag is set: values go to and fro as parameters, a page of rows by one statement.

use super::Faults;
use super::catalog::{Kind, Relation, TableName, literal, quote};
use super::place::Fail;
use super::settings::Settings;
use super::wire::Client;
use crate::front::{self, FrontPlan, FrontRow, FrontSpec, FrontTable, Part};
use posthouse_protocol::problem::Problem;

pub(super) struct PgFront {
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
}

impl PgFront {
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
        let begun = client.batch(BEGIN).map_err(Fail::Wire);
        let done = begun.and_then(|()| work(&mut client, self));
        let done = done.and_then(|done| client.batch("COMMIT").map(|()| done).map_err(Fail::Wire));
        match done {
            Ok(done) => {
                self.client = Some(client);
                Ok(done)
            }
            Err(Fail::Problem(problem)) => Err(problem),
            Err(Fail::Wire(error)) if error.is_lost() => Err(self.faults.connection(error)),
            Err(Fail::Wire(error)) => Err(front::unfit(&self.spec.resource, error)),
        }
    }

    fn find(&self, client: &mut Client) -> Result<Found, Fail> {
        let (spec, table) = (&self.spec, &self.table);
        let relation = Relation::find(client, table)?.ok_or_else(|| front::absent(spec, table))?;
        if !matches!(relation.kind, Kind::Table | Kind::Partitioned) {
            return Err(front::unfit(&spec.resource, format!("{table} is no table of this database")).into());
        }
        let takes_null = |name: &str| relation.column(name).map(|column| !column.not_null);
        let row = front::row_key(spec, &relation.primary, &relation.unique, takes_null)?;
        Ok(Found { relation, row })
    }

    /// What rows `t` are, but for their flag.
    fn version(&self, found: &Found) -> String {
        let beside = found.relation.columns.iter().filter(|column| column.name != self.spec.flag);
        let parts = beside.map(|column| format!("t.{}", quote(&column.name))).collect::<Vec<_>>().join(", ");
        format!("pg_catalog.md5(ROW({parts})::pg_catalog.text)")
    }

    /// Does `change`, which ends before its condition on rows `t` and `v`, to those that bear `flag` and are as they were.
    fn each(&mut self, rows: &[FrontRow], flag: &str, change: Change) -> Result<u64, Problem> {
        if rows.is_empty() {
            return Ok(0);
        }
        self.transact(|client, front| {
            let found = front.find(client)?;
            let types: Vec<&str> = found
                .row
                .iter()
                .map(|name| found.relation.column(name).map_or("text", |column| column.plain.as_str()))
                .collect();
            let (table, column) = (&front.table, quote(&front.spec.flag));
            let (begin, join) = match change {
                Change::Mark => {
                    let set = format!("UPDATE {table} AS t SET {column} = {}", literal(&front.spec.to));
                    (set, "FROM")
                }
                Change::Purge => (format!("DELETE FROM {table} AS t"), "USING"),
            };
            let same = found.row.iter().enumerate().map(|(at, name)| format!("t.{} = v.k{at}", quote(name)));
            let same = same.collect::<Vec<_>>().join(" AND ");
            let names = (0..found.row.len()).map(|at| format!("k{at}, ")).collect::<String>();
            let version = front.version(&found);
            // Triggers of the table run as they do for its other users.
            client.batch("SET LOCAL search_path TO DEFAULT")?;
            let mut changed = 0;
            for page in rows.chunks(PAGE) {
                let (mut values, mut params): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
                // Of another key than tells them apart now, nothing is known.
                for row in page.iter().filter(|row| row.row.len() == types.len()) {
                    let mut places = Vec::with_capacity(types.len() + 1);
                    for (part, cast) in row.row.iter().zip(&types) {
                        params.push(text(part));
                        places.push(format!("${}::{cast}", params.len()));
                    }
                    params.push(row.version.clone());
                    places.push(format!("${}::pg_catalog.text", params.len()));
                    values.push(format!("({})", places.join(", ")));
                }
                if values.is_empty() {
                    continue;
                }
                let sql = format!(
                    "{begin} {join} (VALUES {}) AS v({names}version) WHERE {same} AND t.{column} = {} AND {version} = v.version",
                    values.join(", "),
                    literal(flag)
                );
                let params: Vec<Option<&str>> = params.iter().map(|param| Some(param.as_str())).collect();
                changed += client.execute(&sql, &params)?;
            }
            Ok(changed)
        })
    }
}

#[derive(Clone, Copy)]
enum Change {
    Mark,
    Purge,
}

impl FrontTable for PgFront {
    fn plan(&mut self) -> Result<FrontPlan, Problem> {
        self.transact(|client, front| {
            let found = front.find(client)?;
            let FrontSpec { flag, from, to, purges, .. } = &front.spec;
            let (table, flag) = (&front.table, quote(flag));
            // Of no row, but with every right and every type that is needed for one.
            let needs = |client: &mut Client, right: &str, sql: &str| {
                client.batch(sql).map_err(|error| match error.sqlstate() == Some(NO_RIGHT) {
                    true => Fail::Problem(front::lacks(&front.spec.resource, right, error)),
                    false => Fail::Wire(error),
                })
            };
            needs(client, "UPDATE", &format!("UPDATE {table} SET {flag} = {} WHERE false", literal(to)))?;
            if *purges {
                needs(client, "DELETE", &format!("DELETE FROM {table} WHERE false"))?;
            }
            let columns = found.relation.columns.iter().map(|column| column.name.clone()).collect();
            let words = [front.version(&found), literal(from)];
            Ok(FrontPlan::unread(&front.spec, table, quote, words, columns, found.row))
        })
    }

    fn mark(&mut self, rows: &mut [FrontRow]) -> Result<u64, Problem> {
        let from = self.spec.from.clone();
        self.each(rows, &from, Change::Mark)
    }

    fn purge(&mut self, rows: &[FrontRow]) -> Result<u64, Problem> {
        let to = self.spec.to.clone();
        self.each(rows, &to, Change::Purge)
    }
}

fn text(part: &Part) -> String {
    match part {
        Part::Integer(value) => value.to_string(),
        Part::Digits(text) | Part::Text(text) => text.clone(),
    }
}

/// What gives an account the rights beyond reading.
pub(super) fn grants(account: &str, spec: &FrontSpec) -> Result<Vec<String>, Problem> {
    let (table, account) = (front::named(spec, TableName::parse, FORM)?, quote(account));
    let update = format!("GRANT UPDATE ({}) ON {table} TO {account};", quote(&spec.flag));
    Ok(front::grants(spec, update, &table, &account))
}

/// How a table's name is written.
const FORM: &str = "schema.table";
const NO_RIGHT: &str = "42501";
/// Rows of one statement.
const PAGE: usize = 500;
/// A flag that is set is on the disk before the node forgets that it was to be: a server or an account may be set to
/// answer before that.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
  SELECT pg_catalog.set_config('synchronous_commit', 'on', true)
  WHERE pg_catalog.current_setting('synchronous_commit') = 'off'";
