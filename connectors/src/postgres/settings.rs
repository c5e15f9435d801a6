//! The keys of `[connection.X]` with `kind = "postgres"`: parsed once, all mistakes at once. Where the password is read
//! from is known here; it is read when a server asks for it, so that a changed one counts with the next login.

use super::wire::WireError;
use crate::SettingError;
use crate::charset::Charset;
use percent_encoding::percent_decode_str;
use posthouse_platform::identity::{read_public, read_secret};
use posthouse_platform::settings::{Interval, nearest};
use posthouse_protocol::problem::{Code, Problem};
use std::fmt;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Tried in turn; never empty.
    pub(crate) servers: Vec<Address>,
    pub(crate) user: String,
    pub(crate) database: String,
    password: Option<Secret>,
    tls: Option<TlsMode>,
    pub(crate) ca_file: Option<PathBuf>,
    /// Schema of `posthouse_applied` and its kin; the target's where absent.
    pub(crate) control_schema: Option<String>,
    /// How long one snapshot may be held.
    pub(crate) snapshot_max: Interval,
    /// Absent: what the database says.
    pub(crate) statement_timeout: Option<Interval>,
    pub(crate) dialect: Dialect,
    /// What the database takes for text, where its server does not convert.
    pub(crate) charset: Option<Charset>,
}

/// Whose server it is, where it cannot be told by what the server says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Dialect {
    #[default]
    Postgres,
    /// KingbaseES, which may take an empty text for NULL as Oracle does.
    Kingbase,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp {
        host: String,
        port: u16,
    },
    /// The socket itself, in the server's folder.
    Unix(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsMode {
    Off,
    /// Encrypted, whoever answers.
    Require,
    /// Encrypted, to a server whose certificate bears its name and comes from a CA that is trusted.
    VerifyFull,
}

/// Where the password is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Secret {
    File(PathBuf),
    /// What systemd hands to this service alone.
    Credential(String),
    Environment(String),
}

impl Settings {
    pub(crate) fn parse(settings: &crate::Settings) -> Result<Self, Vec<SettingError>> {
        let mut reader = Reader { settings, errors: Vec::new() };
        reader.refuse_unknown();
        let url = reader.require("url", Url::parse);
        let password = reader.read("password_file", Secret::parse);
        let tls = reader.read("tls", TlsMode::parse);
        let ca_file = reader.read("ca_file", |text| Ok(PathBuf::from(text)));
        let control_schema = reader.read("control_schema", identifier);
        let snapshot_max = reader.read("snapshot_max", interval).unwrap_or(SNAPSHOT_MAX);
        let statement_timeout = reader.read("statement_timeout", interval);
        let dialect = reader.read("dialect", Dialect::parse).unwrap_or_default();
        let charset = reader.read("charset", Charset::parse);
        if ca_file.is_some() && tls.is_some_and(|mode| mode != TlsMode::VerifyFull) {
            reader.wrong("ca_file", "it counts with tls = \"verify-full\" only");
        }
        match url {
            Some(url) if reader.errors.is_empty() => Ok(Self {
                servers: url.servers,
                user: url.user,
                database: url.database,
                password,
                tls,
                ca_file,
                control_schema,
                snapshot_max,
                statement_timeout,
                dialect,
                charset,
            }),
            _ => Err(reader.errors),
        }
    }

    /// How the line to this server is to be secured.
    pub(crate) fn tls(&self, address: &Address) -> TlsMode {
        match (self.tls, address) {
            // Nobody can stand in a Unix socket's way; no server speaks TLS there.
            (_, Address::Unix(_)) => TlsMode::Off,
            (Some(mode), _) => mode,
            (None, address) if address.is_local() && self.ca_file.is_none() => TlsMode::Off,
            (None, _) => TlsMode::VerifyFull,
        }
    }

    /// The password, if one is configured.
    pub(crate) fn password(&self) -> Result<Option<Vec<u8>>, WireError> {
        self.password.as_ref().map(Secret::read).transpose().map_err(WireError::Secret)
    }
}

impl Address {
    /// Whether what is said there stays on this machine.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl TlsMode {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "require" => Ok(Self::Require),
            "verify-full" => Ok(Self::VerifyFull),
            _ => Err("it is one of off, require, verify-full".to_owned()),
        }
    }
}

impl Dialect {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "postgres" => Ok(Self::Postgres),
            "kingbase" => Ok(Self::Kingbase),
            _ => Err("it is one of postgres, kingbase".to_owned()),
        }
    }
}

impl Secret {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix("credential:") {
            let plain = !name.is_empty() && !name.contains('/') && name != "." && name != "..";
            return if plain {
                Ok(Self::Credential(name.to_owned()))
            } else {
                Err("`credential:` takes a name".to_owned())
            };
        }
        match text.strip_prefix("env:") {
            Some(name) if name.is_empty() || name.contains('=') => Err("`env:` takes a variable's name".to_owned()),
            Some(name) => Ok(Self::Environment(name.to_owned())),
            None => Ok(Self::File(PathBuf::from(text))),
        }
    }

    /// One line break at the end belongs to the editor, not to the password.
    fn read(&self) -> Result<Vec<u8>, Problem> {
        let mut password = match self {
            Self::File(path) => read_secret(path, PASSWORD_MAX)?,
            Self::Credential(name) => {
                // The folder is closed to others; a file's mode there shows systemd's access list.
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                    let cause = "systemd handed over no credentials: add `LoadCredential=` to the service";
                    Problem::new(Code::ConfigMissing).with("file", format!("credential:{name}")).cause(cause)
                })?;
                read_public(&Path::new(&folder).join(name), PASSWORD_MAX)?
            }
            Self::Environment(name) => {
                use std::os::unix::ffi::OsStringExt;
                let value = std::env::var_os(name).ok_or_else(|| {
                    Problem::new(Code::ConfigMissing).with("file", format!("env:{name}")).cause("it is not set")
                })?;
                value.into_vec()
            }
        };
        for end in [b'\n', b'\r'] {
            password.pop_if(|last| *last == end);
        }
        Ok(password)
    }
}

/// `postgres://USER@HOST[:PORT][,HOST[:PORT]…]/DATABASE[?host=/SOCKET/FOLDER&port=PORT]`
struct Url {
    servers: Vec<Address>,
    user: String,
    database: String,
}

impl Url {
    fn parse(text: &str) -> Result<Self, String> {
        let rest = text
            .strip_prefix("postgres://")
            .or_else(|| text.strip_prefix("postgresql://"))
            .ok_or("it begins with postgres://")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        if user.contains(':') {
            return Err(
                "it holds a password, which anyone who sees this file could read: put it into a file of its own \
                        and name that with `password_file`"
                    .to_owned(),
            );
        }
        let user = decode(user)?;
        if user.is_empty() {
            return Err("it names no user: postgres://USER@HOST/DATABASE".to_owned());
        }
        let (mut socket_folder, mut port) = (None, PORT);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "host" => socket_folder = Some(PathBuf::from(decode(value)?)).filter(|path| path.is_absolute()),
                "port" => port = parse_port(value)?,
                "sslmode" | "sslrootcert" => return Err(format!("`{key}` is set by the keys `tls` and `ca_file`")),
                _ => return Err(format!("`{key}` cannot be set here")),
            }
            if key == "host" && socket_folder.is_none() {
                return Err("`host` names the folder of a socket, from the root".to_owned());
            }
        }
        let servers = match socket_folder {
            Some(_) if !hosts.is_empty() => return Err("it names a host and a socket's folder".to_owned()),
            Some(folder) => vec![Address::Unix(folder.join(format!(".s.PGSQL.{port}")))],
            None => hosts.split(',').map(|host| parse_host(host, port)).collect::<Result<_, _>>()?,
        };
        let database = decode(database)?;
        let database = if database.is_empty() { user.clone() } else { database };
        Ok(Self { servers, user, database })
    }
}

fn parse_host(text: &str, default_port: u16) -> Result<Address, String> {
    let (host, port) =
        match text.strip_prefix('[').map(|rest| rest.split_once(']').ok_or("`[` has no `]`")).transpose()? {
            Some((host, "")) => (host, None),
            Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or("a colon stands before a port")?)),
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
    let host = decode(host)?;
    if host.is_empty() {
        return Err("it names no host".to_owned());
    }
    Ok(Address::Tcp { host, port: port.map_or(Ok(default_port), parse_port)? })
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|port| *port > 0).ok_or_else(|| format!("`{text}` is no port"))
}

fn decode(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| "it is not UTF-8 once decoded")?;
    if decoded.contains('\0') { Err("it holds a zero byte".to_owned()) } else { Ok(decoded.into_owned()) }
}

fn identifier(text: &str) -> Result<String, String> {
    if text.len() > 63 || text.contains('\0') {
        Err("a name has at most 63 bytes".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

fn interval(text: &str) -> Result<Interval, String> {
    let interval = text.parse::<Interval>().map_err(|_| "it is a duration, such as \"30m\"")?;
    // The server counts milliseconds in 31 bits.
    let fits = (1..=i32::MAX as u64).contains(&interval.0);
    if fits { Ok(interval) } else { Err("it lies between 1ms and 24d".to_owned()) }
}

struct Reader<'a> {
    settings: &'a crate::Settings,
    errors: Vec<SettingError>,
}

impl Reader<'_> {
    fn refuse_unknown(&mut self) {
        for key in self.settings.keys().filter(|key| !KEYS.contains(&key.as_str())) {
            let what = "there is no such key".to_owned();
            self.errors.push(SettingError { key: key.clone(), what, nearest: nearest(key, KEYS.iter().copied()) });
        }
    }
    fn read<T>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.settings.get(key)?.as_str().filter(|text| !text.is_empty());
        match text.map_or_else(|| Err("it is text".to_owned()), parse) {
            Ok(value) => Some(value),
            Err(what) => {
                self.wrong(key, &what);
                None
            }
        }
    }
    fn require<T>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        if !self.settings.contains_key(key) {
            self.wrong(key, &format!("`{key}` is missing"));
        }
        self.read(key, parse)
    }
    fn wrong(&mut self, key: &str, what: &str) {
        self.errors.push(SettingError { key: key.to_owned(), what: what.to_owned(), nearest: None });
    }
}

const KEYS: &[&str] = &[
    "url",
    "password_file",
    "tls",
    "ca_file",
    "control_schema",
    "snapshot_max",
    "statement_timeout",
    "dialect",
    "charset",
];
const PORT: u16 = 5432;
const SNAPSHOT_MAX: Interval = Interval::seconds(30 * 60);
const PASSWORD_MAX: usize = 4 << 10;

#[cfg(test)]
mod tests;
