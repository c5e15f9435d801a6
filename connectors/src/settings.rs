//! What the keys of `[connection.X]` share for every kind of database server: an address, how the line to it is
//! secured, where a password is kept, durations and names. Each is parsed once, and all mistakes of a table are told at
//! once. A password is read when a server asks for it, so that a changed one counts with the next login.
//! Deliberately absent: the keys of one kind, which stand with its connector.

use crate::SettingError;
use percent_encoding::percent_decode_str;
use posthouse_platform::identity::{read_public, read_secret};
use posthouse_platform::settings::{Interval, nearest};
use posthouse_protocol::problem::{Code, Problem};
use std::fmt;
use std::path::{Path, PathBuf};

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
pub(crate) enum Secret {
    File(PathBuf),
    /// What systemd hands to this service alone.
    Credential(String),
    Environment(String),
}

impl Address {
    /// `HOST[:PORT]`, an IPv6 address in brackets.
    pub(crate) fn parse(text: &str, default_port: u16) -> Result<Self, String> {
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
        Ok(Self::Tcp { host, port: port.map_or(Ok(default_port), parse_port)? })
    }

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
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "require" => Ok(Self::Require),
            "verify-full" => Ok(Self::VerifyFull),
            _ => Err("it is one of off, require, verify-full".to_owned()),
        }
    }

    /// How the line to a server is to be secured, by what the operator says: verified, unless it stays on this machine.
    pub(crate) fn of(said: Option<Self>, address: &Address, has_ca_file: bool) -> Self {
        match (said, address) {
            // Nobody can stand in a Unix socket's way; no server speaks TLS there.
            (_, Address::Unix(_)) => Self::Off,
            (Some(mode), _) => mode,
            (None, address) if address.is_local() && !has_ca_file => Self::Off,
            (None, _) => Self::VerifyFull,
        }
    }

    /// What a statement says of such a line. None of one that is encrypted to a server that is verified, or that no
    /// network carries.
    pub(crate) fn told(self, address: &Address) -> Option<&'static str> {
        match (self, address) {
            (Self::VerifyFull, _) | (_, Address::Unix(_)) => None,
            (Self::Off, address) if address.is_local() => Some("not encrypted, on this machine"),
            (Self::Off, _) => Some("not encrypted"),
            (Self::Require, _) => Some("encrypted, the server not verified"),
        }
    }

    /// The same of several servers of which any may be the one: the least secure.
    pub(crate) fn told_of<'a>(lines: impl Iterator<Item = (Self, &'a Address)>) -> Option<&'static str> {
        let open = |(mode, address): &(Self, &Address)| match mode {
            Self::Off if !address.is_local() => 2,
            Self::Require => 1,
            _ => 0,
        };
        let told = lines.filter(|(mode, address)| mode.told(address).is_some());
        told.max_by_key(open).and_then(|(mode, address)| mode.told(address))
    }
}

impl Secret {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
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
    pub(crate) fn read(&self) -> Result<Vec<u8>, Problem> {
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

/// `USER@REST`, where no password may stand; `example` says what a URL with a user looks like.
pub(crate) fn split_user<'t>(authority: &'t str, example: &str) -> Result<(String, &'t str), String> {
    let (user, rest) = authority.rsplit_once('@').unwrap_or(("", authority));
    if user.contains(':') {
        return Err("it holds a password, which anyone who sees this file could read: put it into a file of its own \
                        and name that with `password_file`"
            .to_owned());
    }
    let user = decode(user)?;
    if user.is_empty() {
        return Err(format!("it names no user: {example}"));
    }
    Ok((user, rest))
}

pub(crate) fn parse_port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|port| *port > 0).ok_or_else(|| format!("`{text}` is no port"))
}

/// A part of a URL as it is meant.
pub(crate) fn decode(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| "it is not UTF-8 once decoded")?;
    if decoded.contains('\0') { Err("it holds a zero byte".to_owned()) } else { Ok(decoded.into_owned()) }
}

/// A duration that fits into the 31 bits of milliseconds that servers count in.
fn interval(text: &str) -> Result<Interval, String> {
    let interval = text.parse::<Interval>().map_err(|_| "it is a duration, such as \"30m\"")?;
    let fits = (1..=i32::MAX as u64).contains(&interval.0);
    if fits { Ok(interval) } else { Err("it lies between 1ms and 24d".to_owned()) }
}

/// Reads the keys of one connection, and notes what is wrong with any of them.
pub(crate) struct Reader<'a> {
    settings: &'a crate::Settings,
    known: &'static [&'static str],
    pub(crate) errors: Vec<SettingError>,
}

impl<'a> Reader<'a> {
    /// Keys that are not `known` are mistakes.
    pub(crate) fn new(settings: &'a crate::Settings, known: &'static [&'static str]) -> Self {
        let mut reader = Self { settings, known, errors: Vec::new() };
        reader.refuse_unknown();
        reader
    }

    fn refuse_unknown(&mut self) {
        for key in self.settings.keys().filter(|key| !self.known.contains(&key.as_str())) {
            let what = "there is no such key".to_owned();
            let nearest = nearest(key, self.known.iter().copied());
            self.errors.push(SettingError { key: key.clone(), what, nearest });
        }
    }
    pub(crate) fn read<T>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.settings.get(key)?.as_str().filter(|text| !text.is_empty());
        match text.map_or_else(|| Err("it is text".to_owned()), parse) {
            Ok(value) => Some(value),
            Err(what) => {
                self.wrong(key, &what);
                None
            }
        }
    }
    pub(crate) fn require<T>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        if !self.settings.contains_key(key) {
            self.wrong(key, &format!("`{key}` is missing"));
        }
        self.read(key, parse)
    }
    /// A CA's file means nothing to a line on which nobody is verified.
    fn check_ca_file(&mut self, ca_file: Option<&PathBuf>, tls: Option<TlsMode>) {
        if ca_file.is_some() && tls.is_some_and(|mode| mode != TlsMode::VerifyFull) {
            self.wrong("ca_file", "it counts with tls = \"verify-full\" only");
        }
    }
    pub(crate) fn wrong(&mut self, key: &str, what: &str) {
        self.errors.push(SettingError { key: key.to_owned(), what: what.to_owned(), nearest: None });
    }
}

/// What every kind of server is told in the same way.
pub(crate) struct Common {
    pub(crate) password: Option<Secret>,
    pub(crate) tls: Option<TlsMode>,
    pub(crate) ca_file: Option<PathBuf>,
    /// Schema of `posthouse_applied` and its kin; the target's where absent.
    pub(crate) control_schema: Option<String>,
    /// How long one snapshot may be held.
    pub(crate) snapshot_max: Interval,
    /// Absent: what the server says.
    pub(crate) statement_timeout: Option<Interval>,
}

impl Common {
    /// `schema`: what a schema's name is to this kind of server.
    pub(crate) fn read(reader: &mut Reader<'_>, schema: impl FnOnce(&str) -> Result<String, String>) -> Self {
        let common = Self {
            password: reader.read("password_file", Secret::parse),
            tls: reader.read("tls", TlsMode::parse),
            ca_file: reader.read("ca_file", |text| Ok(PathBuf::from(text))),
            control_schema: reader.read("control_schema", schema),
            snapshot_max: reader.read("snapshot_max", interval).unwrap_or(SNAPSHOT_MAX),
            statement_timeout: reader.read("statement_timeout", interval),
        };
        reader.check_ca_file(common.ca_file.as_ref(), common.tls);
        common
    }
}

/// How long one snapshot may be held where nothing is said.
const SNAPSHOT_MAX: Interval = Interval::seconds(30 * 60);
const PASSWORD_MAX: usize = 4 << 10;
