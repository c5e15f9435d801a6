//! The staging table takes the target's name: one RENAME TABLE moves the target out of the way, the staging table to its
//! place, and a marker to the name that says it is done. A server's DDL commits by itself, so this statement is the
//! commit. Where it was cut off in the middle (MySQL 5.7, and MariaDB before 10.6, rename one by one), which names exist
//! tells how far it came: what is past the point is completed, what is before it is undone. Only then is what was
//! replaced dropped, and the outcome written to `posthouse_applied`. What cannot be dropped, since a table that nobody
//! showed us refers to it, takes its name back by the same statement the other way round.

use super::alike;
use super::catalog::{Kind, Relation};
use super::client::{Client, text};
use super::control;
use super::fail::{self, Fail};
use super::place::{Place, TableName, literal};
use super::publish::referrers;
use super::staging::Staging;
use crate::Published;
use mysql_async::ServerError;
use posthouse_protocol::problem::{Code, Problem};
use std::fmt;

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
pub(super) fn obstacles(client: &mut Client, target: &Relation, key: &[String]) -> Result<Vec<String>, Fail> {
    let mut found = Vec::new();
    if !key.is_empty() && !target.is_unique(key) {
        found.push("nothing in it keeps the key unique".to_owned());
    }
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

/// Why a table did not take another one's place. Nothing is changed then.
#[derive(Debug)]
pub(super) enum NotSwapped {
    /// The server refused.
    Refused(ServerError),
    /// Its owner has made it another one since.
    Changed,
    /// A table that this account may not see refers to it.
    Referred,
}

impl fmt::Display for NotSwapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => f.write_str(&fail::text(error)),
            Self::Changed => f.write_str("it was altered since"),
            Self::Referred => f.write_str("a table out of sight refers to it"),
        }
    }
}

/// Swaps. `result` but for the rows that go.
pub(super) fn swap(
    client: &mut Client,
    place: &Place,
    staging: &Staging,
    target: Option<&Relation>,
    result: &Published,
) -> Result<Result<Published, NotSwapped>, Fail> {
    let Names { mark, done, old } = Names::of(place);
    if let Some(target) = target
        && alike::differ(client, &target.name, &staging.name)?
    {
        return Ok(Err(NotSwapped::Changed));
    }
    let made =
        client.run(&format!("CREATE TABLE {mark} (outcome longtext NOT NULL) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"));
    if let Err(fail) = made {
        return refused(fail);
    }
    client.run(&format!("INSERT INTO {mark} VALUES ({})", literal(&control::outcome(result))))?;
    let away = target.map(|target| format!("{} TO {old}, ", target.name)).unwrap_or_default();
    let statement = format!("RENAME TABLE {away}{} TO {}, {mark} TO {done}", staging.name, place.target);
    match rename(client, &statement) {
        Ok(()) => {}
        Err(Fail::Lost(why)) => return Err(Fail::Lost(why)),
        Err(fail) => {
            client.run(&format!("DROP TABLE IF EXISTS {mark}"))?;
            return refused(fail);
        }
    }
    // The moment between the look and the statement is looked at now.
    if target.is_some() && alike::differ(client, &old, &place.target)? {
        undo(client, place)?;
        return Ok(Err(NotSwapped::Changed));
    }
    Ok(finish(client, place)?.ok_or(NotSwapped::Referred))
}

fn refused<T>(fail: Fail) -> Result<Result<T, NotSwapped>, Fail> {
    match fail {
        Fail::Server(error) => Ok(Err(NotSwapped::Refused(error))),
        fail => Err(fail),
    }
}

/// Who reads a table now holds this up, and this holds up everyone behind it: each time not for long, and with pauses in
/// which the others go on.
fn rename(client: &mut Client, statement: &str) -> Result<(), Fail> {
    client.run(&format!("SET SESSION lock_wait_timeout = {LOCK_SECONDS}"))?;
    let mut tries = RENAME_TRIES;
    let renamed = loop {
        tries -= 1;
        match client.run(statement) {
            Err(fail) if fail.code() == Some(fail::LOCK_WAIT) && tries > 0 => {
                client.rows(&format!("SELECT SLEEP({LOCK_SECONDS})"), vec![])?;
            }
            done => break done.map(|_| ()),
        }
    };
    if !matches!(renamed, Err(Fail::Lost(_))) {
        client.run("SET SESSION lock_wait_timeout = 3600")?;
    }
    renamed
}

/// All names as they were before. Wherever this is cut off, [`recover`] completes it or does it again.
fn undo(client: &mut Client, place: &Place) -> Result<(), Fail> {
    let (Names { mark, done, old }, target) = (Names::of(place), &place.target);
    let staging = place.staging();
    rename(client, &format!("RENAME TABLE {done} TO {mark}, {target} TO {staging}, {old} TO {target}"))?;
    client.run(&format!("DROP TABLE {mark}")).map(|_| ())
}

/// Completes or undoes what an earlier run has begun; what it published, if it did.
pub(super) fn recover(client: &mut Client, place: &Place) -> Result<Option<Published>, Fail> {
    let Names { mark, done, old } = Names::of(place);
    if control::is_there(client, &done)? {
        return finish(client, place);
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
        return finish(client, place);
    }
    if !has_target && control::is_there(client, &old)? {
        client.run(&format!("RENAME TABLE {old} TO {}", place.target))?;
    }
    client.run(&format!("DROP TABLE {mark}"))?;
    Ok(None)
}

/// Drops what was replaced, and writes down what was done; none where that is undone.
fn finish(client: &mut Client, place: &Place) -> Result<Option<Published>, Fail> {
    let Names { done, old, .. } = Names::of(place);
    if let Some(before) = control::published(client, place)? {
        client.run(&format!("DROP TABLE {done}"))?;
        return Ok(Some(before));
    }
    let rows = client.rows(&format!("SELECT outcome FROM {done}"), vec![])?;
    let outcome = rows.first().and_then(|row| row.first()).map(text).unwrap_or_default();
    let odd = |e: serde_json::Error| {
        let problem = Problem::new(Code::DestinationFailed).with("target", place.target.to_string());
        problem.cause(format!("{done} holds no outcome: {e}"))
    };
    let mut result: Published = serde_json::from_str(&outcome).map_err(odd)?;
    if control::is_there(client, &old)? {
        result.deleted = client.count(&format!("SELECT COUNT(*) FROM {old}"), vec![])?;
        // The rows are soon gone, and with them their number.
        client.run(&format!("UPDATE {done} SET outcome = {}", literal(&control::outcome(&result))))?;
        match client.run(&format!("DROP TABLE {old}")) {
            Ok(_) => {}
            Err(Fail::Server(error)) if fail::REFERRED.contains(&error.code) => {
                tracing::debug!(table = %place.target, %error, "Takes its name back");
                undo(client, place)?;
                return Ok(None);
            }
            Err(Fail::Server(error)) => tracing::warn!(table = %old, %error, "Kept the replaced table"),
            Err(fail) => return Err(fail),
        }
    }
    client.run("START TRANSACTION")?;
    control::leave(client, place, &result, &[])?;
    client.run("COMMIT")?;
    client.run(&format!("DROP TABLE {done}"))?;
    Ok(Some(result))
}

const LOCK_SECONDS: u32 = if cfg!(test) { 1 } else { 5 };
/// Of the one statement: two minutes, half of which belong to the others.
const RENAME_TRIES: u32 = if cfg!(test) { 3 } else { 12 };

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
