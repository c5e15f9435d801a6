//! Looks whether an account can read and land what is configured, and what of the database's settings, its collations
//! and its clock bears on that. Rights are what `HAS_PERMS_BY_NAME` says of the account, roles included.

use super::client::{Client, SqlError, bytes, number, param, text};
use super::name::{TableName, literal, quote};
use super::place::Place;
use super::settings::Settings;
use super::{Faults, catalog, control};
use crate::examine::{Asked, Finding, Found, Grade, ROW_RIGHTS, ROWS_LOOKED_AT, Topic, VALUES_MAX, named};
use posthouse_protocol::problem::Problem;

pub(super) fn examine(faults: &Faults, settings: &Settings, asked: &Asked<'_, Place>) -> Result<Vec<Finding>, Problem> {
    let tables = named(asked.reads, TableName::parse)?;
    let examined = Client::connect(settings).and_then(|mut client| {
        let mut examination = Examination { found: Found::new(quote(&settings.user), &faults.name) };
        examination.clock(&mut client, asked.now)?;
        examination.settings(&mut client, !tables.is_empty())?;
        tables.iter().try_for_each(|(name, _)| examination.read(&mut client, settings, name))?;
        asked.places.iter().try_for_each(|place| examination.landing(&mut client, place))?;
        Ok(examination.found.findings())
    });
    examined.map_err(|error| faults.connection(error))
}

struct Examination {
    found: Found,
}

impl Examination {
    fn read(&mut self, client: &mut Client, settings: &Settings, name: &TableName) -> Result<(), SqlError> {
        let Some(relation) = catalog::Relation::find(client, name)? else {
            self.found.say(Finding::absent(name).fix(format!("GRANT SELECT ON {name} TO {};", self.found.account)));
            return Ok(());
        };
        let may_read = has(client, &name.to_string(), "OBJECT", "SELECT")?;
        self.found.right(name, "SELECT", may_read);
        for column in relation.columns.iter().filter(|column| column.kind.is_none()) {
            let object = format!("{name}.{}", quote(&column.name));
            let en = format!("{} does not move: leave the column out or convert it in a view", column.declared);
            let zh = format!("{} 类型无法交换：请排除该列，或用视图转换", column.declared);
            self.found.say(Finding::new(Topic::Charset, Grade::Note, object, en, zh));
        }
        if may_read && relation.is_table { self.texts(client, settings, name, relation.id) } else { Ok(()) }
    }

    /// Columns of bytes in Latin letters, as departments' programs fill them with something else.
    fn texts(&mut self, client: &mut Client, settings: &Settings, name: &TableName, id: i32) -> Result<(), SqlError> {
        let rows = client.query(COLLATED, &[tiberius::ColumnData::I32(Some(id))])?;
        for row in &rows {
            let is_narrow = matches!(number(row, 1), Some(CHAR | VARCHAR));
            let (Some(column), true, Some(LATIN1)) = (text(row, 0), is_narrow, number(row, 2)) else { continue };
            let part = quote(column);
            let sql = format!("SELECT TOP ({ROWS_LOOKED_AT}) CAST(t.{part} AS varbinary(8000)) FROM {name} AS t");
            let mut values: Vec<Vec<u8>> = Vec::new();
            // An answer is read to its end; of what comes only values that tell something are held.
            client.stream(&sql, &[], &mut |row: &tiberius::Row| {
                let value = bytes(row, 0).filter(|value| !value.is_ascii() && values.len() < VALUES_MAX as usize);
                values.extend(value.map(<[u8]>::to_vec));
                Ok::<(), SqlError>(())
            })?;
            let object = format!("{name}.{part}");
            let finding = match settings.charset {
                None => Finding::disguised(&object, &values),
                Some(charset) => Finding::texts(&object, &values, charset),
            };
            finding.into_iter().for_each(|finding| self.found.say(finding));
        }
        Ok(())
    }

    fn landing(&mut self, client: &mut Client, place: &Place) -> Result<(), SqlError> {
        let [applied, quarantine] = control::names(place);
        for name in [&place.target, &applied, &quarantine] {
            self.table(client, name)?;
        }
        // One for each transfer, made by the account, or the one of the script for all.
        let staging = place.premade();
        if catalog::is_there(client, &staging)? || !may_make(client, &staging.schema)? {
            self.table(client, &staging)?;
        }
        Ok(())
    }

    fn table(&mut self, client: &mut Client, name: &TableName) -> Result<(), SqlError> {
        if !catalog::is_there(client, name)? {
            let may_make = may_make(client, &name.schema)?;
            self.found.missing(name, may_make);
            return Ok(());
        }
        for right in ROW_RIGHTS {
            let is_there = has(client, &name.to_string(), "OBJECT", right)?;
            self.found.right(name, right, is_there);
        }
        Ok(())
    }

    fn clock(&mut self, client: &mut Client, now: &dyn Fn() -> i64) -> Result<(), SqlError> {
        let before = now();
        let seconds = client.number(CLOCK, &[])?;
        let after = now();
        let server = seconds.map_or(before, |seconds| seconds.saturating_mul(1_000));
        self.found.say(Finding::clock(server, before, after, 1_000));
        Ok(())
    }

    fn settings(&mut self, client: &mut Client, reads: bool) -> Result<(), SqlError> {
        let rows = client.query(DATABASE, &[])?;
        let Some(row) = rows.first() else { return Ok(()) };
        let version = text(row, 0).unwrap_or_default().to_owned();
        let level = number(row, 3).unwrap_or(110);
        let lacks: &[(&str, &str)] = match level {
            ..110 => &[("its compatibility level is below that of SQL Server 2012", "兼容级别低于 SQL Server 2012")],
            _ => &[],
        };
        self.found.say(Finding::version(&version, lacks));
        let (has_snapshots, is_versioned) = (number(row, 1) == Some(1), number(row, 2) == Some(1));
        let finding = match (has_snapshots, reads) {
            (true, _) => Finding::new(Topic::Settings, Grade::Well, "ALLOW_SNAPSHOT_ISOLATION", "ON", "ON"),
            (false, false) => Finding::new(Topic::Settings, Grade::Well, "ALLOW_SNAPSHOT_ISOLATION", "OFF", "OFF"),
            (false, true) => {
                let en = "OFF: a table that is read is locked against writers until it is read";
                let zh = "OFF：读取期间表被锁定，写入方须等待";
                Finding::new(Topic::Settings, Grade::Note, "ALLOW_SNAPSHOT_ISOLATION", en, zh)
                    .fix("ALTER DATABASE CURRENT SET ALLOW_SNAPSHOT_ISOLATION ON;")
            }
        };
        self.found.say(finding);
        let (en, zh) = match is_versioned {
            true => ("ON: other readers do not wait for what is landed", "ON：其他读者无需等待入库"),
            false => ("OFF: other readers wait while rows are published", "OFF：入库发布期间其他读者须等待"),
        };
        self.found.say(Finding::new(Topic::Settings, Grade::Well, "READ_COMMITTED_SNAPSHOT", en, zh));
        let (en, zh) = ("60 s: a lock that does not come by then is tried again", "60 秒：届时未取得的锁会重试");
        self.found.say(Finding::new(Topic::Settings, Grade::Well, "LOCK_TIMEOUT", en, zh));
        let collation = text(row, 4).unwrap_or_default();
        self.found.say(Finding::new(Topic::Charset, Grade::Well, "collation", collation, collation));
        Ok(())
    }
}

/// Whether the account has a right on something; what it may not know of it has none on.
fn has(client: &mut Client, object: &str, class: &str, right: &str) -> Result<bool, SqlError> {
    let asked =
        client.number("SELECT HAS_PERMS_BY_NAME(@P1, @P2, @P3)", &[param(object), param(class), param(right)])?;
    Ok(asked == Some(1))
}
fn has_in_database(client: &mut Client, right: &str) -> Result<bool, SqlError> {
    let sql = format!("SELECT HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', {})", literal(right));
    Ok(client.number(&sql, &[])? == Some(1))
}
/// Whether it can make tables in a schema: that takes two rights.
fn may_make(client: &mut Client, schema: &str) -> Result<bool, SqlError> {
    Ok(has_in_database(client, "CREATE TABLE")? && has(client, &quote(schema), "SCHEMA", "ALTER")?)
}

const CLOCK: &str = "SELECT DATEDIFF(second, CAST('1970-01-01' AS datetime2(0)), SYSUTCDATETIME())";
const DATABASE: &str = "SELECT CAST(SERVERPROPERTY('ProductVersion') AS nvarchar(128)), d.snapshot_isolation_state, \
     d.is_read_committed_snapshot_on, d.compatibility_level, d.collation_name FROM sys.databases AS d WHERE d.name = DB_NAME()";
const COLLATED: &str = "SELECT c.name, c.system_type_id, CAST(COLLATIONPROPERTY(c.collation_name, N'CodePage') AS int) \
     FROM sys.columns AS c WHERE c.object_id = @P1 ORDER BY c.column_id";
/// Types by the engine's numbers.
const CHAR: i64 = 175;
const VARCHAR: i64 = 167;
/// The code page.
const LATIN1: i64 = 1_252;
