//! Looks whether an account can read and land what is configured, and what of the server's settings, its encoding and
//! its clock bears on that. Rights are asked of the catalogue, object by object; a right that is missing is told with
//! the statement that gives it.

use super::catalog::{Column, Kind, Relation, TableName, quote};
use super::place::Place;
use super::settings::Settings;
use super::wire::{Client, WireError};
use super::{Faults, control};
use crate::charset::Charset;
use crate::examine::{Asked, Columns, Finding, Found, Grade, ROW_RIGHTS, ROWS_LOOKED_AT, Topic, VALUES_MAX, named};
use posthouse_protocol::pgcopy::NativeType;
use posthouse_protocol::pgcopy::native::Plain;
use posthouse_protocol::problem::Problem;

pub(super) fn examine(faults: &Faults, settings: &Settings, asked: &Asked<'_, Place>) -> Result<Vec<Finding>, Problem> {
    let tables = named(asked.reads, TableName::parse)?;
    let examined = Client::connect(settings).and_then(|mut client| {
        let mut examination = Examination { found: Found::new(quote(&settings.user), &faults.name) };
        examination.clock(&mut client, asked.now)?;
        examination.settings(&mut client, !asked.reads.is_empty(), !asked.places.is_empty())?;
        tables.iter().try_for_each(|(name, columns)| examination.read(&mut client, name, columns))?;
        if asked.reads.iter().any(|read| read.spec.query.is_some()) {
            examination.query(&mut client, &settings.database)?;
        }
        asked.places.iter().try_for_each(|place| examination.landing(&mut client, place))?;
        examination.charset(&mut client, settings, tables.iter().map(|(name, _)| name))?;
        Ok(examination.found.findings())
    });
    examined.map_err(|error| faults.connection(error))
}

struct Examination {
    found: Found,
}

/// What the catalogue says of a name.
struct Seen {
    may_use: bool,
    may_create: bool,
    /// None: there is no such table.
    rights: Option<String>,
    is_filtered: bool,
}

impl Seen {
    /// None where there is no such schema.
    fn find(client: &mut Client, name: &TableName) -> Result<Option<Self>, WireError> {
        // Before 9.5 nothing hides rows.
        let filtered = if client.version() < 90_500 { "false" } else { FILTERED };
        let rows = client.query(&SEEN.replace("{filtered}", filtered), &[Some(&name.schema), Some(&name.table)])?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(Self {
            may_use: row.flag(0)?,
            may_create: row.flag(1)?,
            rights: row.optional(2).map(str::to_owned),
            is_filtered: row.flag(3)?,
        }))
    }
    fn has(&self, right: &str) -> bool {
        self.rights.as_ref().is_some_and(|rights| rights.split(',').any(|has| has == right))
    }
}

impl Examination {
    fn usage(&mut self, schema: &str, may_use: bool) {
        let object = format!("schema {}", quote(schema));
        let grant = format!("GRANT USAGE ON SCHEMA {} TO {};", quote(schema), self.found.account);
        self.found.say(Finding::right(object, "USAGE", may_use, grant));
    }

    fn read(&mut self, client: &mut Client, name: &TableName, columns: &Columns) -> Result<(), WireError> {
        let Some(seen) = Seen::find(client, name)? else {
            self.found.say(Finding::absent(name));
            return Ok(());
        };
        self.usage(&name.schema, seen.may_use);
        if seen.rights.is_none() {
            self.found.say(Finding::absent(name));
            return Ok(());
        }
        let (readable, is_all) = if seen.has("SELECT") { (Vec::new(), true) } else { readable(client, name)? };
        match is_all {
            true => self.found.right(name, "SELECT", true),
            false => self.found.columns(name, columns, &readable, quote),
        }
        if seen.is_filtered {
            let en = "a policy on rows hides some of them from the account, and a part is not read for the whole";
            let zh = "行级安全策略对该账号隐藏部分行；不会把一部分当作全部读取";
            let exempt = format!("ALTER ROLE {} BYPASSRLS;", self.found.account);
            self.found.say(Finding::new(Topic::Rights, Grade::Wrong, name, en, zh).fix(exempt));
        }
        Ok(())
    }

    /// A query is read through a view of the session's own.
    fn query(&mut self, client: &mut Client, database: &str) -> Result<(), WireError> {
        let may_make = client.query(MAY_MAKE_VIEWS, &[])?;
        let may_make = may_make.first().map_or(Ok(false), |row| row.flag(0))?;
        let object = format!("database {}", quote(database));
        let grant = format!("GRANT TEMPORARY ON DATABASE {} TO {};", quote(database), self.found.account);
        self.found.say(Finding::right(object, "TEMPORARY", may_make, grant));
        Ok(())
    }

    /// Rows of what stands; what does not stand is made by the account, where it may, or by the script.
    fn landing(&mut self, client: &mut Client, place: &Place) -> Result<(), WireError> {
        let [applied, quarantine] = control::names(place);
        for name in [&place.target, &applied, &quarantine] {
            self.table(client, name)?;
        }
        let staging = place.premade();
        match Seen::find(client, &staging)? {
            Some(seen) if seen.may_create => {
                let schema = format!("schema {}", quote(&staging.schema));
                self.found.say(Finding::right(schema, "CREATE", true, String::new()));
            }
            _ => self.table(client, &staging)?,
        }
        Ok(())
    }

    fn table(&mut self, client: &mut Client, name: &TableName) -> Result<(), WireError> {
        let Some(seen) = Seen::find(client, name)? else {
            let may_make = client.query(MAY_MAKE_SCHEMAS, &[])?;
            self.found.missing(name, may_make.first().map_or(Ok(false), |row| row.flag(0))?);
            return Ok(());
        };
        self.usage(&name.schema, seen.may_use);
        match &seen.rights {
            Some(_) => ROW_RIGHTS.into_iter().for_each(|right| self.found.right(name, right, seen.has(right))),
            None => self.found.missing(name, seen.may_create),
        }
        Ok(())
    }

    fn clock(&mut self, client: &mut Client, now: &dyn Fn() -> i64) -> Result<(), WireError> {
        let before = now();
        let rows = client.query(CLOCK, &[])?;
        let after = now();
        let server: i64 = rows.first().map_or(Ok(before), |row| row.number(0))?;
        self.found.say(Finding::clock(server, before, after, 1));
        Ok(())
    }

    fn settings(&mut self, client: &mut Client, reads: bool, lands: bool) -> Result<(), WireError> {
        let version = client.version();
        let mut lacks = Vec::new();
        if version < 90_600 {
            lacks.push((
                "which rows are late is not told by their transaction: all are read again",
                "无法按事务识别迟到的行，每次全部重读",
            ));
        }
        if version < 140_000 {
            lacks.push(("it has no multirange types", "没有多重范围类型"));
        }
        let name = client.query("SELECT pg_catalog.current_setting('server_version')", &[])?;
        let name = name.first().and_then(|row| row.optional(0)).unwrap_or_default().to_owned();
        self.found.say(Finding::version(&name, &lacks));
        let rows = client.query(SESSIONS, &[])?;
        if let Some(row) = rows.first() {
            self.found.say(Finding::sessions(row.number(0)?, row.number(1)?));
        }
        let is_standby = client.query("SELECT pg_catalog.pg_is_in_recovery()", &[])?;
        let is_standby = is_standby.first().map_or(Ok(false), |row| row.flag(0))?;
        if is_standby && lands {
            let (en, zh) = ("this server is a standby, and takes no rows", "该服务器为备库，不能写入");
            self.found.say(Finding::new(Topic::Settings, Grade::Wrong, "pg_is_in_recovery", en, zh));
        }
        for row in client.query(SETTINGS, &[])? {
            let (name, value) = (row.text(0)?, row.optional(1).unwrap_or_default());
            let Some((grade, en, zh)) = judge(name, value, is_standby, reads, lands) else {
                continue;
            };
            let finding =
                Finding::new(Topic::Settings, grade, name, format!("{value}: {en}"), format!("{value}：{zh}"));
            let calm = format!("ALTER ROLE {} SET {name} = {};", self.found.account, calm(name));
            self.found.say(if grade == Grade::Well || name == "max_standby_streaming_delay" {
                finding
            } else {
                finding.fix(calm)
            });
        }
        Ok(())
    }

    /// What the database takes for text, and whether its texts are that: a server that knows no encoding checks none.
    fn charset<'n>(
        &mut self,
        client: &mut Client,
        settings: &Settings,
        reads: impl Iterator<Item = &'n TableName>,
    ) -> Result<(), WireError> {
        let rows = client.query("SELECT pg_catalog.current_setting('server_encoding')", &[])?;
        let server = rows.first().and_then(|row| row.optional(0)).unwrap_or_default().to_owned();
        let configured = client.charset();
        let (en, zh) = (
            format!("the database is {server}, its texts are read as {}", configured.name()),
            format!("数据库编码为 {server}，按 {} 读取", configured.name()),
        );
        let is_open = server == "SQL_ASCII" && settings.charset.is_none();
        let grade = if is_open { Grade::Note } else { Grade::Well };
        let finding = Finding::new(Topic::Charset, grade, "server_encoding", en, zh);
        self.found.say(if is_open { finding.fix("charset = \"gbk\"") } else { finding });
        if server != "SQL_ASCII" {
            return Ok(());
        }
        for name in reads {
            let may_use = Seen::find(client, name)?.is_some_and(|seen| seen.may_use);
            let Some(relation) = Relation::find(client, name)?.filter(|_| may_use) else { continue };
            // What a view computes may take any time.
            if !matches!(relation.kind, Kind::Table | Kind::Partitioned | Kind::Materialised) {
                continue;
            }
            let (readable, _) = readable(client, name)?;
            let is_readable = |column: &&Column| readable.contains(&column.name);
            for column in relation.columns.iter().filter(|column| is_text(column)).filter(is_readable) {
                self.texts(client, name, column, configured)?;
            }
        }
        Ok(())
    }

    fn texts(
        &mut self,
        client: &mut Client,
        name: &TableName,
        column: &Column,
        configured: Charset,
    ) -> Result<(), WireError> {
        let part = quote(&column.name);
        let sql = format!(
            "SELECT pg_catalog.encode(pg_catalog.convert_to(s.v, 'SQL_ASCII'), 'hex') FROM
               (SELECT t.{part}::pg_catalog.text AS v FROM {name} t LIMIT {ROWS_LOOKED_AT}) s
             WHERE s.v ~ '[^\\x01-\\x7f]' LIMIT {VALUES_MAX}"
        );
        let rows = client.query(&sql, &[])?;
        let values: Vec<Vec<u8>> = rows.iter().filter_map(|row| hex::decode(row.optional(0)?).ok()).collect();
        if let Some(finding) = Finding::texts(&format!("{name}.{part}"), &values, configured) {
            self.found.say(finding);
        }
        Ok(())
    }
}

/// The columns that the account may read, in the table's order, and whether there are no others.
fn readable(client: &mut Client, name: &TableName) -> Result<(Vec<String>, bool), WireError> {
    let rows = client.query(READABLE, &[Some(&name.schema), Some(&name.table)])?;
    let mut readable = Vec::new();
    for row in &rows {
        if row.flag(1)? {
            readable.push(row.text(0)?.to_owned());
        }
    }
    let is_all = !rows.is_empty() && readable.len() == rows.len();
    Ok((readable, is_all))
}

fn is_text(column: &Column) -> bool {
    use NativeType::{Bpchar, Plain as Of, Varchar};
    matches!(&column.native, Some(Of(Plain::Text | Plain::Name) | Varchar(_) | Bpchar(_)))
}

/// What a setting does to exchanges; none where it bears on nothing that is configured.
fn judge(
    name: &str,
    value: &str,
    is_standby: bool,
    reads: bool,
    lands: bool,
) -> Option<(Grade, &'static str, &'static str)> {
    let is_set = !matches!(value, "" | "0" | "-1" | "off");
    Some(match name {
        "default_transaction_read_only" if is_set && lands => {
            (Grade::Wrong, "the account's transactions take no rows", "该账号的事务只读，无法写入")
        }
        "statement_timeout" if is_set => (
            Grade::Note,
            "longer statements are ended, unless `statement_timeout` of the connection says otherwise",
            "超时的语句会被终止，除非连接的 `statement_timeout` 另有设定",
        ),
        "transaction_timeout" if is_set => {
            (Grade::Wrong, "a longer snapshot or publishing is ended in its midst", "较长的快照或入库会被中途终止")
        }
        "lock_timeout" if is_set => (
            Grade::Note,
            "a table that others hold longer fails the transfer, which is tried again",
            "表被他人占用更久时批次失败并重试",
        ),
        "old_snapshot_threshold" if is_set && reads => {
            (Grade::Note, "a read that lasts longer may lose its snapshot", "读取超过该时长可能丢失快照")
        }
        "max_standby_streaming_delay" if is_standby && reads && value != "-1" => (
            Grade::Note,
            "on a standby a read that lasts longer may be ended by what is replayed",
            "在备库上读取超过该时长可能因回放而被终止",
        ),
        "idle_in_transaction_session_timeout" if is_set => {
            (Grade::Well, "sessions of the exchange switch it off", "交换所用会话自行关闭该限制")
        }
        "wal_level" => (Grade::Well, "exchanges need none in particular", "交换对此无特别要求"),
        _ => return None,
    })
}

/// What an account is given where a setting stands in the way.
fn calm(name: &str) -> &'static str {
    match name {
        "default_transaction_read_only" => "off",
        _ => "0",
    }
}

const SEEN: &str = "SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE'), pg_catalog.has_schema_privilege(n.oid, 'CREATE'),
    CASE WHEN c.oid IS NULL THEN NULL ELSE pg_catalog.concat_ws(',',
      CASE WHEN pg_catalog.has_table_privilege(c.oid, 'SELECT') THEN 'SELECT' END,
      CASE WHEN pg_catalog.has_table_privilege(c.oid, 'INSERT') THEN 'INSERT' END,
      CASE WHEN pg_catalog.has_table_privilege(c.oid, 'UPDATE') THEN 'UPDATE' END,
      CASE WHEN pg_catalog.has_table_privilege(c.oid, 'DELETE') THEN 'DELETE' END) END,
    {filtered}
  FROM pg_catalog.pg_namespace n
  LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  WHERE n.nspname = $1";
const READABLE: &str = "SELECT a.attname, pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')
  FROM pg_catalog.pg_namespace n
  JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  WHERE n.nspname = $1 AND c.relname = $2 ORDER BY a.attnum";
const FILTERED: &str = "CASE WHEN c.relrowsecurity THEN pg_catalog.row_security_active(c.oid) ELSE false END";
const MAY_MAKE_VIEWS: &str = "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMPORARY')";
const MAY_MAKE_SCHEMAS: &str = "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')";
const CLOCK: &str =
    "SELECT pg_catalog.trunc(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1000)::pg_catalog.int8";
const SESSIONS: &str = "SELECT (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE datid IS NOT NULL),
    pg_catalog.current_setting('max_connections')";
/// As they are to a new session of this account; this one has set some of them for itself.
const SETTINGS: &str =
    "SELECT name, reset_val FROM pg_catalog.pg_settings WHERE name IN ('default_transaction_read_only',
    'statement_timeout', 'transaction_timeout', 'lock_timeout', 'old_snapshot_threshold', 'max_standby_streaming_delay',
    'idle_in_transaction_session_timeout', 'wal_level') ORDER BY name";
