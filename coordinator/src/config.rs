//! `coordinator.toml`: every option, its default, and what is accepted.
//! An unknown key, a wrong type or a value out of bounds is an error with its place; all are told at once.
//! `config/coordinator.toml` shows all of them; `init` writes it with its own values in place.

use posthouse_platform::settings::{self, Interval, Mistakes, Table, say};
use posthouse_protocol::id::NodeId;
use posthouse_protocol::problem::{Code, Lang, Problem};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

/// What a coordinator runs by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub name: NodeId,
    pub data_dir: PathBuf,
    /// Where nodes reach it, UDP and TCP.
    pub listen: String,
    /// Where people reach it; None = no HTTP.
    pub http: Option<String>,
    /// PEM files of a certificate for HTTPS; None = one of the coordinator's own CA.
    pub http_certificate: Option<HttpCertificate>,
    pub store: StoreUrl,
    /// IANA name; the day of the balance.
    pub timezone: String,
    pub heartbeat: Interval,
    pub certificate_life: Interval,
    pub policy_staleness: Interval,
    pub overdue_after: Interval,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCertificate {
    pub certificate_file: PathBuf,
    pub key_file: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// `coordinator.db` in the data folder.
    Sqlite,
}

impl Config {
    /// All defaults.
    pub fn new(name: NodeId, data_dir: PathBuf) -> Self {
        Self {
            name,
            data_dir,
            listen: LISTEN.to_owned(),
            http: Some(HTTP.to_owned()),
            http_certificate: None,
            store: StoreUrl::Sqlite,
            timezone: TIMEZONE.to_owned(),
            heartbeat: Interval::seconds(30),
            certificate_life: Interval::seconds(7 * DAY),
            policy_staleness: Interval::seconds(72 * HOUR),
            overdue_after: Interval::seconds(24 * HOUR),
        }
    }

    /// Reads a file: PH1002 where it can't be read, PH1001 with every mistake in `lang`.
    pub fn load(file: &Path, lang: Lang) -> Result<Self, Problem> {
        let text = settings::load(file)?;
        Self::parse(file, &text).map_err(|mistakes| mistakes.problem(lang))
    }

    pub fn parse(file: &Path, text: &str) -> Result<Self, Mistakes> {
        settings::read(file, text, |root| {
            let table = root.require_table("coordinator")?;
            read(&table)
        })
    }

    /// `DATA_DIR/admin.sock`
    pub fn admin_socket(&self) -> PathBuf {
        self.data_dir.join("admin.sock")
    }
    pub fn database(&self) -> PathBuf {
        self.data_dir.join(crate::keys::DATABASE_FILE)
    }
    /// `<name>/log1`
    pub fn ledger_origin(&self) -> String {
        format!("{}/log1", self.name)
    }
    pub(crate) fn zone(&self) -> Result<jiff::tz::TimeZone, Problem> {
        jiff::tz::TimeZone::get(&self.timezone)
            .map_err(|e| Problem::new(Code::ConfigInvalid).with("file", "coordinator.toml").cause(e))
    }
}

/// The commented configuration with these values in place, as `init` writes it.
pub fn written(config: &Config) -> Result<String, Problem> {
    let data_dir = config
        .data_dir
        .to_str()
        .ok_or_else(|| Problem::new(Code::UsageInvalid).with("what", "the path of the data folder is not UTF-8"))?;
    let mut out = String::with_capacity(TEMPLATE.len());
    for line in TEMPLATE.lines() {
        let value = match line.split_once(" = ").map(|(key, _)| key) {
            Some("name") => Some(("name", config.name.as_str())),
            Some("data_dir") => Some(("data_dir", data_dir)),
            Some("listen") => Some(("listen", config.listen.as_str())),
            Some("http") => Some(("http", config.http.as_deref().unwrap_or(""))),
            _ => None,
        };
        match value {
            Some((key, value)) => out.push_str(&format!("{key} = {}", toml::Value::String(value.to_owned()))),
            None => out.push_str(line),
        }
        out.push('\n');
    }
    Ok(out)
}

fn read(table: &Table<'_>) -> Option<Config> {
    let name = table.require_parse::<NodeId>("name", "名称");
    let data_dir = table.require::<PathBuf>("data_dir");
    let listen = address(table, "listen", LISTEN);
    let http = address(table, "http", HTTP);
    let http_certificate = certificate(table);
    table.choice("store", &[("sqlite", ())]);
    let timezone = table.or("timezone", TIMEZONE.to_owned());
    if jiff::tz::TimeZone::get(&timezone).is_err() {
        table.mistake(
            "timezone",
            say(format!("`{timezone}` is not a known time zone"), format!("未知的时区 `{timezone}`")),
            settings::nearest(
                &timezone,
                jiff::tz::db().available().map(|n| n.to_string()).collect::<Vec<_>>().iter().map(String::as_str),
            ),
        );
    }
    let default = Config::new(NodeId::parse("default").ok()?, PathBuf::new());
    let heartbeat = interval(table, "heartbeat", default.heartbeat, 1, 600);
    let certificate_life = interval(table, "certificate_life", default.certificate_life, 10, 366 * DAY);
    let policy_staleness = interval(table, "policy_staleness", default.policy_staleness, HOUR, 30 * DAY);
    let overdue_after = interval(table, "overdue_after", default.overdue_after, 60, 90 * DAY);
    let listen = match listen {
        Some(listen) if listen.is_empty() => {
            table.mistake("listen", say("nodes need an address to reach", "节点需要一个可接入的地址"), None);
            None
        }
        other => other,
    };
    Some(Config {
        name: name?,
        data_dir: data_dir?,
        listen: listen?,
        http: http.filter(|http| !http.is_empty()),
        http_certificate,
        store: StoreUrl::Sqlite,
        timezone,
        heartbeat,
        certificate_life,
        policy_staleness,
        overdue_after,
    })
}

/// `host:port`, or "" for none.
fn address(table: &Table<'_>, key: &str, default: &str) -> Option<String> {
    let text: String = table.or(key, default.to_owned());
    if text.is_empty() || text.parse::<SocketAddr>().is_ok() {
        return Some(text);
    }
    let named = text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if named {
        return Some(text);
    }
    table.mistake(
        key,
        say(
            format!("`{text}` is not an address such as \"{default}\""),
            format!("`{text}` 不是地址；写法如 \"{default}\""),
        ),
        None,
    );
    None
}

fn certificate(table: &Table<'_>) -> Option<HttpCertificate> {
    let certificate_file = table.get::<PathBuf>("http_certificate");
    let key_file = table.get::<PathBuf>("http_key");
    match (certificate_file, key_file) {
        (Some(certificate_file), Some(key_file)) => Some(HttpCertificate { certificate_file, key_file }),
        (None, None) => None,
        (Some(_), None) => {
            table.mistake("http_certificate", say("it needs `http_key` beside it", "还须同时填写 `http_key`"), None);
            None
        }
        (None, Some(_)) => {
            table.mistake(
                "http_key",
                say("it needs `http_certificate` beside it", "还须同时填写 `http_certificate`"),
                None,
            );
            None
        }
    }
}

fn interval(table: &Table<'_>, key: &str, default: Interval, seconds_min: u64, seconds_max: u64) -> Interval {
    let value = table.or(key, default);
    let (min, max) = (Interval::seconds(seconds_min), Interval::seconds(seconds_max));
    if value < min || value > max {
        table.mistake(key, say(format!("it is from {min} to {max}"), format!("应在 {min} 至 {max} 之间")), None);
        return default;
    }
    value
}

/// Whether everything an address stands for is this machine itself.
pub(crate) fn is_loopback(address: &str) -> bool {
    match address.to_socket_addrs() {
        Ok(mut all) => all.by_ref().all(|a| a.ip().is_loopback()),
        Err(_) => false,
    }
}

const LISTEN: &str = "[::]:7840";
const HTTP: &str = "127.0.0.1:7880";
const TIMEZONE: &str = "Asia/Shanghai";
const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
const TEMPLATE: &str = include_str!("../../config/coordinator.toml");

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("coordinator.toml"), text).map_err(|m| m.render(Lang::En))
    }

    #[test]
    fn the_shipped_file_names_every_option_with_its_default() {
        let shipped = parse(TEMPLATE).unwrap();
        let code = Config::new(shipped.name.clone(), shipped.data_dir.clone());
        assert_eq!(shipped, code);
        let minimal = "[coordinator]\nname = \"centre.example\"\ndata_dir = \"/var/lib/posthouse-coordinator\"\n";
        assert_eq!(parse(minimal).unwrap(), code);
        for key in [
            "name",
            "data_dir",
            "listen",
            "http",
            "http_certificate",
            "http_key",
            "store",
            "timezone",
            "heartbeat",
            "certificate_life",
            "policy_staleness",
            "overdue_after",
        ] {
            assert!(TEMPLATE.lines().any(|l| l.trim_start_matches("# ").starts_with(&format!("{key} = "))), "{key}");
        }
    }

    #[test]
    fn every_comment_of_the_shipped_file_stands_in_both_languages() {
        let chinese = |line: &&str| line.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
        let blocks = TEMPLATE.split("\n\n").filter(|b| b.lines().any(|l| l.starts_with("# ")));
        for block in blocks {
            let comments: Vec<&str> = block.lines().filter(|l| l.starts_with("# ")).collect();
            assert!(comments.iter().any(chinese) && !comments.iter().all(chinese), "{block}");
        }
    }

    #[test]
    fn what_init_writes_reads_back_as_it_was_meant() {
        let mut config = Config::new("centre.xian.example".parse().unwrap(), "/tmp/a \"quoted\" place".into());
        config.http = None;
        config.listen = "127.0.0.1:0".to_owned();
        assert_eq!(parse(&written(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn all_mistakes_are_told_at_once_with_the_nearest_key() {
        let text = "[coordinator]\nname = \"Centre\"\ndata_dirr = \"/x\"\nheartbeat = \"0s\"\nlisten = 5\n\
                    timezone = \"Asia/Shanghay\"\nhttp_key = \"k\"\n";
        let told = parse(text).unwrap_err();
        for place in ["toml:2:8", "toml:3:1", "toml:4:13", "toml:5:10", "toml:6:12", "toml:7:12"] {
            assert!(told.contains(place), "{place} in\n{told}");
        }
        assert!(told.contains("did you mean `data_dir`?"), "{told}");
        assert!(told.contains("did you mean `Asia/Shanghai`?"), "{told}");
    }

    #[test]
    fn an_unknown_section_is_refused() {
        assert!(parse(&format!("{TEMPLATE}\n[nodes]\n")).is_err());
    }
}
