//! Front-end tables in MySQL and MariaDB. A row's version is a hash of the bytes of all of its values, which the server
//! makes both when it is read and when its flag is set. Rows are marked one by one, many in a transaction: so values are
//! literals, which every collation compares with its own column.

use super::Faults;
use super::catalog::{Column, Kind, Relation};
use super::client::Client;
use super::fail::{self, Fail};
use super::place::{TableName, literal, quote};
use super::settings::Settings;
use crate::front::{self, FrontPlan, FrontRow, FrontSpec, FrontTable, Part};
use posthouse_protocol::problem::Problem;

pub(super) struct MyFront {
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

impl MyFront {
    pub(super) fn new(faults: Faults, settings: Settings, spec: &FrontSpec) -> Result<Self, Problem> {
        let table = named(spec, &settings.database)?;
        Ok(Self { faults, settings, spec: spec.clone(), table, client: None })
    }

    /// Runs `work` as one transaction. A session in which something failed is not used again.
    fn transact<T>(&mut self, work: impl FnOnce(&mut Client, &Self) -> Result<T, Fail>) -> Result<T, Problem> {
        let connected = match self.client.take() {
            Some(client) => Ok(client),
            None => Client::connect(&self.settings),
        };
        let mut client = connected.map_err(|fail| self.faults.connection(fail))?;
        let begun = client.run("START TRANSACTION READ WRITE");
        let done = begun.and_then(|_| work(&mut client, self));
        match done.and_then(|done| client.run("COMMIT").map(|_| done)) {
            Ok(done) => {
                self.client = Some(client);
                Ok(done)
            }
            Err(Fail::Problem(problem)) => Err(problem),
            Err(Fail::Server(error)) => Err(front::unfit(&self.spec.resource, fail::text(&error))),
            Err(fail) => Err(self.faults.connection(fail)),
        }
    }

    fn find(&self, client: &mut Client) -> Result<Found, Fail> {
        let (spec, table) = (&self.spec, &self.table);
        let unfit = |cause: String| Fail::Problem(front::unfit(&spec.resource, cause));
        let relation = Relation::find(client, table)?.ok_or_else(|| front::absent(spec, table))?;
        if matches!(relation.kind, Kind::View | Kind::Query) {
            return Err(unfit(format!("{table} is a view")));
        }
        if !relation.has_snapshots() {
            return Err(unfit(format!("its engine is {}, which has no transactions", relation.engine)));
        }
        let takes_null = |name: &str| relation.column(name).map(|column| !column.not_null);
        let row = front::row_key(spec, &relation.primary, &relation.unique, takes_null)?;
        let is_coded = |name: &String| {
            let charset = relation.column(name).and_then(|column| column.charset.as_deref());
            !self.settings.charset.is_utf8() && charset == Some("latin1")
        };
        if let Some(name) = row.iter().find(|name| is_coded(name)) {
            return Err(unfit(format!(
                "`{name}` tells its rows apart, and has its texts in another charset than it says"
            )));
        }
        Ok(Found { relation, row })
    }

    /// What rows `t` are, but for their flag.
    fn version(&self, found: &Found) -> String {
        let beside = found.relation.columns.iter().filter(|column| column.name != self.spec.flag);
        // As text a FLOAT has six of its digits; as a sum it is a double, which has all of them.
        let part = |column: &Column| {
            let more = if matches!(column.r#type.as_str(), "float" | "double" | "real") { " + 0E0" } else { "" };
            format!("IFNULL(SHA2(CAST(t.{}{more} AS BINARY), 256), '-')", quote(&column.name))
        };
        let parts: Vec<String> = beside.map(part).collect();
        format!("SHA2(CONCAT_WS(',', {}), 256)", if parts.is_empty() { "''".to_owned() } else { parts.join(", ") })
    }

    /// What holds for one row `t` that bears `flag` and is as it was; none where other columns tell rows apart now.
    fn is(&self, found: &Found, row: &FrontRow, flag: &str, version: &str) -> Option<String> {
        if row.row.len() != found.row.len() {
            return None;
        }
        let part = |(name, part): (&String, &Part)| match part {
            Part::Integer(value) => format!("t.{} = {value}", quote(name)),
            // Digits and nothing else, or it would be no number of the table's.
            Part::Digits(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                format!("t.{} = {digits}", quote(name))
            }
            Part::Digits(text) | Part::Text(text) => format!("t.{} = {}", quote(name), literal(text)),
        };
        let same = found.row.iter().zip(&row.row).map(part).collect::<Vec<_>>().join(" AND ");
        let (column, flag, was) = (quote(&self.spec.flag), literal(flag), literal(&row.version));
        Some(format!("{same} AND t.{column} = {flag} AND {version} = {was}"))
    }

    fn each(&mut self, rows: &[FrontRow], flag: &str, change: impl Fn(&Self) -> String) -> Result<u64, Problem> {
        if rows.is_empty() {
            return Ok(0);
        }
        self.transact(|client, front| {
            let found = front.find(client)?;
            let (change, version) = (change(front), front.version(&found));
            let mut changed = 0;
            for row in rows {
                if let Some(is) = front.is(&found, row, flag, &version) {
                    changed += client.run(&format!("{change} WHERE {is}"))?;
                }
            }
            Ok(changed)
        })
    }
}

impl FrontTable for MyFront {
    fn plan(&mut self) -> Result<FrontPlan, Problem> {
        self.transact(|client, front| {
            let found = front.find(client)?;
            let FrontSpec { flag, from, to, purges, .. } = &front.spec;
            let (table, flag) = (&front.table, quote(flag));
            // Of no row, but with every right that is needed for one.
            let needs = |client: &mut Client, right: &str, sql: &str| match client.run(sql) {
                Err(Fail::Server(error)) if fail::NO_RIGHT.contains(&error.code) => {
                    Err(Fail::Problem(front::lacks(&front.spec.resource, right, fail::text(&error))))
                }
                done => done.map(|_| ()),
            };
            needs(client, "UPDATE", &format!("UPDATE {table} AS t SET t.{flag} = {} WHERE 1 = 0", literal(to)))?;
            if *purges {
                needs(client, "DELETE", &format!("DELETE t FROM {table} AS t WHERE 1 = 0"))?;
            }
            let columns = found.relation.columns.iter().map(|column| column.name.clone()).collect();
            let words = [front.version(&found), literal(from)];
            let plan = FrontPlan::unread(&front.spec, table, quote, words, columns, found.row);
            Ok(FrontPlan { names_table: true, ..plan })
        })
    }

    fn mark(&mut self, rows: &mut [FrontRow]) -> Result<u64, Problem> {
        let from = self.spec.from.clone();
        self.each(rows, &from, |front| {
            format!("UPDATE {} AS t SET t.{} = {}", front.table, quote(&front.spec.flag), literal(&front.spec.to))
        })
    }

    fn purge(&mut self, rows: &[FrontRow]) -> Result<u64, Problem> {
        let to = self.spec.to.clone();
        self.each(rows, &to, |front| format!("DELETE t FROM {} AS t", front.table))
    }
}

fn named(spec: &FrontSpec, database: &str) -> Result<TableName, Problem> {
    front::named(spec, |name| TableName::parse(name, database), "database.table")
}

/// What gives an account the rights beyond reading. The account as a GRANT names it.
pub(super) fn grants(account: &str, database: &str, spec: &FrontSpec) -> Result<Vec<String>, Problem> {
    let table = named(spec, database)?;
    let update = format!("GRANT UPDATE ({}) ON {table} TO {account};", quote(&spec.flag));
    Ok(front::grants(spec, update, &table, account))
}
