//! The staging table takes the target's name: one RENAME TABLE moves the target out of the way, the staging table to its
//! place, and a marker to the name that says it is done. A server's DDL commits by itself, so this statement is the
//! commit. Where it was cut off in the middle (MySQL 5.7, and MariaDB before 10.6, rename one by one), which names exist
//! tells how far it came: what is past the point is completed, what is before it is undone. Only then is the outcome
//! written to `posthouse_applied`, and what is left over dropped.

use super::catalog::{Kind, Relation};
use super::client::{Client, text};
use super::control;
use super::fail::Fail;
use super::place::{Place, TableName, literal};
use super::publish::referrers;
use super::staging::Staging;
use crate::Published;
use mysql_async::ServerError;
use posthouse_protocol::problem::{Code, Problem};

/// The names that one swap moves between.
pub(super) struct Names {
    /// Holds the outcome, until the statement.
    pub(super) mark: TableName,
    /// The same table, after it.
    pub(super) done: TableName,
    /// The target's rows, after it.
    pub(super) old: TableName,
}

impl Names {
    pub(super) fn of(place: &Place) -> Self {
        let beside = |what: &str| place.beside(what, place.transfer());
        Self { mark: beside("mark"), done: beside("done"), old: beside("old") }
    }
}

/// Why another table cannot take this one's place; none where it can. A view names its tables and finds the new one.
pub(super) fn obstacles(client: &mut Client, target: &Relation) -> Result<Vec<String>, Fail> {
    let mut found = Vec::new();
    if target.kind == Kind::Versioned {
        found.push("it keeps what its rows were before".to_owned());
    }
    if !target.engine.eq_ignore_ascii_case("InnoDB") {
        found.push(format!("its engine is {}", target.engine));
    }
    let by_name = || vec![target.name.schema.as_str().into(), target.name.table.as_str().into()];
    for referrer in referrers(client, &target.name)? {
        found.push(format!("{} refers to it", referrer.table));
    }
    if client.count(REFERS, by_name())? > 0 {
        found.push("it refers to other tables".to_owned());
    }
    if client.count(TRIGGERS, by_name())? > 0 {
        found.push("it has triggers".to_owned());
    } else if client.count(
        SEES_TRIGGERS,
        vec![target.name.schema.as_str().into(), target.name.schema.as_str().into(), target.name.table.as_str().into()],
    )? == 0
    {
        found.push("the account may not see whether it has triggers".to_owned());
    }
    Ok(found)
}

/// Swaps; where the server refuses, nothing is changed and the refusal is told. `result` but for the rows that go.
pub(super) fn swap(
    client: &mut Client,
    place: &Place,
    staging: &Staging,
    target: Option<&Relation>,
    result: &Published,
) -> Result<Result<Published, ServerError>, Fail> {
    let Names { mark, done, old } = Names::of(place);
    let made =
        client.run(&format!("CREATE TABLE {mark} (outcome longtext NOT NULL) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"));
    if let Err(fail) = made {
        return refused(fail);
    }
    client.run(&format!("INSERT INTO {mark} VALUES ({})", literal(&control::outcome(result))))?;
    let away = target.map(|target| format!("{} TO {old}, ", target.name)).unwrap_or_default();
    let rename = format!("RENAME TABLE {away}{} TO {}, {mark} TO {done}", staging.name, place.target);
    // Who reads the table now holds this up, and this holds up everyone behind it: not for long.
    client.run(&format!("SET SESSION lock_wait_timeout = {LOCK_SECONDS}"))?;
    let renamed = client.run(&rename);
    if let Err(Fail::Lost(why)) = renamed {
        return Err(Fail::Lost(why));
    }
    client.run("SET SESSION lock_wait_timeout = 3600")?;
    if let Err(fail) = renamed {
        client.run(&format!("DROP TABLE IF EXISTS {mark}"))?;
        return refused(fail);
    }
    finish(client, place).map(Ok)
}

fn refused<T>(fail: Fail) -> Result<Result<T, ServerError>, Fail> {
    match fail {
        Fail::Server(error) => Ok(Err(error)),
        fail => Err(fail),
    }
}

/// Completes or undoes what an earlier run has begun; what it published, if it did.
pub(super) fn recover(client: &mut Client, place: &Place) -> Result<Option<Published>, Fail> {
    let Names { mark, done, old } = Names::of(place);
    if control::is_there(client, &done)? {
        return finish(client, place).map(Some);
    }
    if !control::is_there(client, &mark)? {
        return Ok(None);
    }
    let has_target = control::is_there(client, &place.target)?;
    if !control::is_there(client, &place.staging())? {
        if !has_target {
            let cause = format!("neither the table nor what was to replace it is there; the old one is {old}");
            return Err(Problem::new(Code::DestinationFailed)
                .with("target", place.target.to_string())
                .cause(cause)
                .into());
        }
        client.run(&format!("RENAME TABLE {mark} TO {done}"))?;
        return finish(client, place).map(Some);
    }
    if !has_target && control::is_there(client, &old)? {
        client.run(&format!("RENAME TABLE {old} TO {}", place.target))?;
    }
    client.run(&format!("DROP TABLE {mark}"))?;
    Ok(None)
}

/// Writes down what was done, and drops what it took.
fn finish(client: &mut Client, place: &Place) -> Result<Published, Fail> {
    let Names { done, old, .. } = Names::of(place);
    let had_rows = control::is_there(client, &old)?;
    let result = match control::published(client, place)? {
        Some(before) => before,
        None => {
            let rows = client.rows(&format!("SELECT outcome FROM {done}"), vec![])?;
            let outcome = rows.first().and_then(|row| row.first()).map(text).unwrap_or_default();
            let odd = |e: serde_json::Error| {
                let problem = Problem::new(Code::DestinationFailed).with("target", place.target.to_string());
                problem.cause(format!("{done} holds no outcome: {e}"))
            };
            let mut result: Published = serde_json::from_str(&outcome).map_err(odd)?;
            if had_rows {
                result.deleted = client.count(&format!("SELECT COUNT(*) FROM {old}"), vec![])?;
            }
            client.run("START TRANSACTION")?;
            control::leave(client, place, &result, &[])?;
            client.run("COMMIT")?;
            result
        }
    };
    if had_rows && let Err(fail) = client.run(&format!("DROP TABLE {old}")) {
        // A table that this account cannot see refers to it: the rows are kept for whoever can.
        match fail {
            Fail::Server(error) => tracing::warn!(table = %old, %error, "Kept the replaced table"),
            fail => return Err(fail),
        }
    }
    client.run(&format!("DROP TABLE {done}"))?;
    Ok(result)
}

const LOCK_SECONDS: u32 = 5;

const REFERS: &str = "SELECT COUNT(*) FROM information_schema.KEY_COLUMN_USAGE
  WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND REFERENCED_TABLE_NAME IS NOT NULL";
const TRIGGERS: &str = "SELECT COUNT(*) FROM information_schema.TRIGGERS
  WHERE EVENT_OBJECT_SCHEMA = ? AND EVENT_OBJECT_TABLE = ?";
/// A right that is given by a role is not seen here, and the table then stays.
const SEES_TRIGGERS: &str = "SELECT COUNT(*) FROM (
    SELECT GRANTEE FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE IN ('TRIGGER', 'SUPER')
    UNION ALL SELECT GRANTEE FROM information_schema.SCHEMA_PRIVILEGES
      WHERE PRIVILEGE_TYPE = 'TRIGGER' AND ? LIKE TABLE_SCHEMA
    UNION ALL SELECT GRANTEE FROM information_schema.TABLE_PRIVILEGES
      WHERE PRIVILEGE_TYPE = 'TRIGGER' AND TABLE_SCHEMA = ? AND TABLE_NAME = ?) g
  WHERE g.GRANTEE = CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''')";
