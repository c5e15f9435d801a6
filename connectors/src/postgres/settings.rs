//! The keys of `[connection.X]` with `kind = "postgres"`: parsed once, all mistakes at once. What other kinds of
//! servers are told in the same way stands in `crate::settings`.

use super::wire::WireError;
use crate::SettingError;
use crate::charset::Charset;
pub(crate) use crate::settings::{Address, TlsMode};
use crate::settings::{Common, Reader, Secret, decode, parse_port, split_user};
use posthouse_platform::settings::Interval;
use std::path::PathBuf;

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

impl Settings {
    pub(crate) fn parse(settings: &crate::Settings) -> Result<Self, Vec<SettingError>> {
        let mut reader = Reader::new(settings, KEYS);
        let url = reader.require("url", Url::parse);
        let Common { password, tls, ca_file, control_schema, snapshot_max, statement_timeout } =
            Common::read(&mut reader, identifier);
        let dialect = reader.read("dialect", Dialect::parse).unwrap_or_default();
        let charset = reader.read("charset", Charset::parse);
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
        TlsMode::of(self.tls, address, self.ca_file.is_some())
    }
    /// How the line to the server is secured, in the words of a statement: of several servers, the least secure.
    pub(crate) fn line(&self) -> Option<&'static str> {
        TlsMode::told_of(self.servers.iter().map(|address| (self.tls(address), address)))
    }

    /// The password, if one is configured.
    pub(crate) fn password(&self) -> Result<Option<Vec<u8>>, WireError> {
        self.password.as_ref().map(Secret::read).transpose().map_err(WireError::Secret)
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
        let (user, hosts) = split_user(authority, "postgres://USER@HOST/DATABASE")?;
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
            None => hosts.split(',').map(|host| Address::parse(host, port)).collect::<Result<_, _>>()?,
        };
        let database = decode(database)?;
        let database = if database.is_empty() { user.clone() } else { database };
        Ok(Self { servers, user, database })
    }
}

fn identifier(text: &str) -> Result<String, String> {
    if text.len() > 63 || text.contains('\0') {
        Err("a name has at most 63 bytes".to_owned())
    } else {
        Ok(text.to_owned())
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

#[cfg(test)]
mod tests;
