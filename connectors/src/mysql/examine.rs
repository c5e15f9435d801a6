//! Looks whether an account can read and land what is configured, and what of the server's settings, its character
//! sets and its clock bears on that. A right on rows is found by EXPLAIN of a statement that would need it, which the
//! server refuses like the statement itself and which does nothing: no catalogue shows what comes by roles.

use super::catalog::Relation;
use super::client::{Client, number, optional, text};
use super::fail::{self, Fail};
use super::place::{Place, TableName, literal, quote};
use super::settings::Settings;
use super::{Faults, control, grants};
use crate::examine::{Asked, Columns, Finding, Found, Grade, ROW_RIGHTS, ROWS_LOOKED_AT, Topic, VALUES_MAX, named};
use posthouse_protocol::problem::Problem;

pub(super) fn examine(faults: &Faults, settings: &Settings, asked: &Asked<'_, Place>) -> Result<Vec<Finding>, Problem> {
    let tables = named(asked.reads, |table| TableName::parse(table, &settings.database))?;
    let examined = Client::connect(settings).and_then(|mut client| {
        let mut examination = Examination { found: Found::new(account(&mut client)?, &faults.name) };
        examination.clock(&mut client, asked.now)?;
        examination.settings(&mut client, !tables.is_empty(), !asked.places.is_empty())?;
        tables.iter().try_for_each(|(name, columns)| examination.read(&mut client, settings, name, columns))?;
        asked.places.iter().try_for_each(|place| examination.landing(&mut client, place))?;
        Ok(examination.found.findings())
    });
    examined.map_err(|fail| faults.connection(fail))
}

/// Whom the server has let in, as a GRANT names it: which of the accounts of a name that is, is the server's to say.
fn account(client: &mut Client) -> Result<String, Fail> {
    let rows = client.ask("SELECT CURRENT_USER()")?;
    let current = rows.first().and_then(|row| row.as_ref(0)).map(text).unwrap_or_default();
    let (user, host) = current.rsplit_once('@').unwrap_or((current.as_str(), "%"));
    Ok(format!("{}@{}", literal(user), literal(host)))
}

/// The same for a script: of a server that does not let it in now, the account from anywhere.
pub(super) fn grantee(settings: &Settings) -> String {
    let found = Client::connect(settings).and_then(|mut client| account(&mut client));
    found.unwrap_or_else(|_| format!("{}@'%'", literal(&settings.user)))
}

struct Examination {
    found: Found,
}

impl Examination {
    fn read(
        &mut self,
        client: &mut Client,
        settings: &Settings,
        name: &TableName,
        columns: &Columns,
    ) -> Result<(), Fail> {
        // A name of which the account may know nothing is told from one that is not there only by its refusal.
        let may_read_all = match client.ask(&format!("SELECT * FROM {name} LIMIT 0")) {
            Ok(_) => true,
            Err(Fail::Server(error)) if NOT_THERE.contains(&error.code) => {
                self.found.say(Finding::absent(name));
                return Ok(());
            }
            Err(Fail::Server(error)) if fail::NO_RIGHT.contains(&error.code) => false,
            // A view, say, whose owner has lost a right.
            Err(Fail::Server(error)) => {
                let why = fail::text(&error);
                let (en, zh) = (format!("it cannot be read: {why}"), format!("无法读取：{why}"));
                self.found.say(Finding::new(Topic::Rights, Grade::Wrong, name, en, zh));
                return Ok(());
            }
            Err(fail) => return Err(fail),
        };
        let mut relation = Relation::find(client, name)?;
        if may_read_all {
            self.found.right(name, "SELECT", true);
        } else {
            let mut readable = Vec::new();
            for column in relation.iter().flat_map(|relation| &relation.columns) {
                if may(client, &format!("SELECT {} FROM {name} LIMIT 0", quote(&column.name)))? {
                    readable.push(column.name.clone());
                }
            }
            self.found.columns(name, columns, &readable, quote);
            relation.iter_mut().for_each(|relation| {
                relation.columns.retain(|column| readable.contains(&column.name));
            });
        }
        let Some(relation) = relation.filter(|relation| !relation.columns.is_empty()) else { return Ok(()) };
        if !relation.engine.is_empty() && !relation.has_snapshots() {
            let en =
                format!("{} keeps no snapshot: what others write while it is read is seen in part", relation.engine);
            let zh = format!("{} 引擎没有快照：读取期间他人的写入可能部分可见", relation.engine);
            let fix = format!("ALTER TABLE {name} ENGINE=InnoDB;");
            self.found.say(Finding::new(Topic::Settings, Grade::Note, name, en, zh).fix(fix));
        }
        self.charset(client, settings, &relation)
    }

    /// Which character sets the columns say, and whether what says `latin1` is that.
    fn charset(&mut self, client: &mut Client, settings: &Settings, relation: &Relation) -> Result<(), Fail> {
        let name = &relation.name;
        let of_columns = |column: &super::catalog::Column| column.charset.clone();
        let mut charsets: Vec<String> = relation.columns.iter().filter_map(of_columns).collect();
        charsets.sort();
        charsets.dedup();
        if !charsets.is_empty() {
            let list = charsets.join(", ");
            self.found.say(Finding::new(Topic::Charset, Grade::Well, name, list.clone(), list));
        }
        let is_latin1 = |column: &&super::catalog::Column| column.charset.as_deref() == Some("latin1");
        for column in relation.columns.iter().filter(is_latin1).filter(|_| !relation.engine.is_empty()) {
            let part = quote(&column.name);
            let sql = format!(
                "SELECT HEX(s.v) FROM (SELECT t.{part} AS v FROM {name} t LIMIT {ROWS_LOOKED_AT}) s
                 WHERE LENGTH(s.v) <> LENGTH(CONVERT(s.v USING utf8mb4)) LIMIT {VALUES_MAX}"
            );
            let rows = client.ask(&sql)?;
            let values = rows.iter().filter_map(|row| hex::decode(optional(row.as_ref(0)?)?).ok());
            let values: Vec<Vec<u8>> = values.collect();
            let object = format!("{name}.{part}");
            let finding = match settings.charset.is_utf8() {
                true => Finding::disguised(&object, &values),
                false => Finding::texts(&object, &values, settings.charset),
            };
            finding.into_iter().for_each(|finding| self.found.say(finding));
        }
        Ok(())
    }

    fn landing(&mut self, client: &mut Client, place: &Place) -> Result<(), Fail> {
        let [applied, quarantine] = control::names(place);
        let column = place.landing.contract.items.first().map_or("", |item| item.name.as_str());
        for (name, column) in [(&place.target, column), (&applied, "landed"), (&quarantine, "reason")] {
            self.table(client, name, column)?;
        }
        let staging = place.premade();
        if !grants::may_create(client, &staging.schema)? || control::is_there(client, &staging)? {
            self.table(client, &staging, column)?;
        }
        Ok(())
    }

    fn table(&mut self, client: &mut Client, name: &TableName, column: &str) -> Result<(), Fail> {
        if !control::is_there(client, name)? {
            self.found.missing(name, grants::may_create(client, &name.schema)?);
            return Ok(());
        }
        let column = quote(column);
        for right in ROW_RIGHTS {
            let needs = match right {
                "SELECT" => format!("SELECT * FROM {name} LIMIT 0"),
                "INSERT" => format!("EXPLAIN INSERT INTO {name} ({column}) VALUES (DEFAULT)"),
                "UPDATE" => format!("EXPLAIN UPDATE {name} SET {column} = DEFAULT WHERE 1 = 0"),
                _ => format!("EXPLAIN DELETE FROM {name} WHERE 1 = 0"),
            };
            self.found.right(name, right, may(client, &needs)?);
        }
        Ok(())
    }

    fn clock(&mut self, client: &mut Client, now: &dyn Fn() -> i64) -> Result<(), Fail> {
        let before = now();
        let rows = client.rows("SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS UNSIGNED)", vec![])?;
        let after = now();
        let server = rows.first().and_then(|row| row.first()).map_or(0, number);
        self.found.say(Finding::clock(i64::try_from(server).unwrap_or(i64::MAX), before, after, 1));
        Ok(())
    }

    fn settings(&mut self, client: &mut Client, reads: bool, lands: bool) -> Result<(), Fail> {
        let version = self.variable(client, "SELECT VERSION()")?.unwrap_or_default();
        let mut lacks = Vec::new();
        if !client.server.has_checks() {
            lacks.push((
                "a CHECK does not hold, so that no column for numbers of any length can be made",
                "CHECK 约束不生效，无法创建任意长度数值的列",
            ));
        }
        self.found.say(Finding::version(&version, &lacks));
        let most = self.variable(client, "SELECT @@global.max_connections")?;
        let used = client.ask("SHOW GLOBAL STATUS LIKE 'Threads_connected'")?;
        let used = used.first().and_then(|row| row.as_ref(1)).map_or(0, number);
        if let Some(most) = most.and_then(|most| most.parse().ok()) {
            self.found.say(Finding::sessions(used, most));
        }
        let packet = client.server.packet_max as u64;
        let (en, zh) = (format!("{packet} bytes"), format!("{packet} 字节"));
        self.found.say(if packet < PACKET_MIN {
            let (en, zh) = (format!("{en}: a longer row cannot move"), format!("{zh}：更长的行无法交换"));
            Finding::new(Topic::Settings, Grade::Note, "max_allowed_packet", en, zh)
                .fix(format!("SET GLOBAL max_allowed_packet = {PACKET_GOOD};"))
        } else {
            Finding::new(Topic::Settings, Grade::Well, "max_allowed_packet", en, zh)
        });
        for (name, bears, grade, en, zh, fix) in SETTINGS {
            let bears = match bears {
                Bears::Reads => reads,
                Bears::Lands => lands,
                Bears::Both => reads || lands,
            };
            let Some(value) = self.variable(client, &format!("SELECT @@global.{name}"))?.filter(|_| bears) else {
                continue;
            };
            let is_off = matches!(value.as_str(), "0" | "OFF" | "0.000000");
            // Files may be loaded, or they may not; what else there is limits something where it is set.
            let is_calm = if *name == "local_infile" { !is_off } else { is_off };
            if is_calm {
                self.found.say(Finding::new(Topic::Settings, Grade::Well, name, value.clone(), value));
            } else {
                let finding =
                    Finding::new(Topic::Settings, *grade, name, format!("{value}: {en}"), format!("{value}：{zh}"));
                self.found.say(finding.fix(*fix));
            }
        }
        for (name, en, zh) in [
            (
                "sql_mode",
                "sessions of the exchange are strict, whatever it says",
                "无论如何设定，交换所用会话均为严格模式",
            ),
            ("innodb_lock_wait_timeout", "seconds that a row's lock is waited for", "等待行锁的秒数"),
        ] {
            if let Some(value) = self.variable(client, &format!("SELECT @@global.{name}"))? {
                let (en, zh) = (format!("{value}: {en}"), format!("{value}：{zh}"));
                self.found.say(Finding::new(Topic::Settings, Grade::Well, name, en, zh));
            }
        }
        let zone = self.variable(client, "SELECT CONCAT(@@global.time_zone, ' ', @@system_time_zone)")?;
        if let Some(zone) = zone {
            let en = format!("{zone}; sessions of the exchange are in UTC");
            let zh = format!("{zone}；交换所用会话为 UTC");
            self.found.say(Finding::new(Topic::Settings, Grade::Well, "time_zone", en, zh));
        }
        let charset = self.variable(client, "SELECT @@character_set_database")?;
        if let Some(charset) = charset {
            self.found.say(Finding::new(
                Topic::Charset,
                Grade::Well,
                "character_set_database",
                charset.clone(),
                charset,
            ));
        }
        Ok(())
    }

    /// A value of the server's; none where it knows no such variable, or does not tell.
    fn variable(&self, client: &mut Client, sql: &str) -> Result<Option<String>, Fail> {
        match client.ask(sql) {
            Ok(rows) => Ok(rows.first().and_then(|row| row.as_ref(0)).and_then(optional)),
            Err(Fail::Server(_)) => Ok(None),
            Err(fail) => Err(fail),
        }
    }
}

/// Whether the account has the right that a statement needs.
fn may(client: &mut Client, needs: &str) -> Result<bool, Fail> {
    match client.ask(needs) {
        Ok(_) => Ok(true),
        // What else is wrong with such a statement is not about rights.
        Err(Fail::Server(error)) => Ok(!fail::NO_RIGHT.contains(&error.code)),
        Err(fail) => Err(fail),
    }
}

#[derive(Clone, Copy)]
enum Bears {
    Reads,
    Lands,
    Both,
}

/// Variables by name, with what they bear on, and what it means where they are not as they should be.
const SETTINGS: &[(&str, Bears, Grade, &str, &str, &str)] = &[
    (
        "local_infile",
        Bears::Lands,
        Grade::Note,
        "rows are loaded by INSERT, which takes several times as long",
        "只能用 INSERT 装载，耗时数倍",
        "SET GLOBAL local_infile = ON;",
    ),
    (
        "read_only",
        Bears::Lands,
        Grade::Wrong,
        "this server takes no rows from such an account",
        "该服务器不接受该账号写入",
        "SET GLOBAL read_only = OFF;",
    ),
    (
        "max_statement_time",
        Bears::Both,
        Grade::Note,
        "longer statements are ended, unless `statement_timeout` of the connection says otherwise",
        "超时的语句会被终止，除非连接的 `statement_timeout` 另有设定",
        "SET GLOBAL max_statement_time = 0;",
    ),
    (
        "max_execution_time",
        Bears::Reads,
        Grade::Note,
        "longer reads are ended, unless `statement_timeout` of the connection says otherwise",
        "超时的读取会被终止，除非连接的 `statement_timeout` 另有设定",
        "SET GLOBAL max_execution_time = 0;",
    ),
];

/// No such table, no such database.
const NOT_THERE: [u16; 2] = [1146, 1049];
const PACKET_MIN: u64 = 16 << 20;
const PACKET_GOOD: u64 = 64 << 20;
