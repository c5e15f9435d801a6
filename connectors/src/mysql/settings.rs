//! The keys of `[connection.X]` with `kind = "mysql"`: parsed once, all mistakes at once. What other kinds of servers
//! are told in the same way stands in `crate::settings`.

use crate::SettingError;
use crate::charset::Charset;
use crate::settings::{Address, Common, Reader, Secret, TlsMode, decode, split_user};
use posthouse_platform::settings::Interval;
use posthouse_protocol::problem::{Code, Problem};
use std::path::PathBuf;

#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// Tried in turn; never empty.
    pub(super) servers: Vec<Address>,
    pub(super) user: String,
    pub(super) database: String,
    password: Option<Secret>,
    tls: Option<TlsMode>,
    pub(super) ca_file: Option<PathBuf>,
    /// Database of `posthouse_applied` and its kin; the target's where absent.
    pub(super) control_schema: Option<String>,
    /// How long one snapshot may be held.
    pub(super) snapshot_max: Interval,
    /// Absent: what the server says.
    pub(super) statement_timeout: Option<Interval>,
    /// What programs put into columns of `latin1`, where that is another.
    pub(super) charset: Charset,
}

impl Settings {
    pub(super) fn parse(settings: &crate::Settings) -> Result<Self, Vec<SettingError>> {
        let mut reader = Reader::new(settings, KEYS);
        let url = reader.require("url", Url::parse);
        let charset = reader.read("charset", charset).unwrap_or_default();
        let Common { password, tls, ca_file, control_schema, snapshot_max, statement_timeout } =
            Common::read(&mut reader, identifier);
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
                charset,
            }),
            _ => Err(reader.errors),
        }
    }

    /// How the line to this server is to be secured.
    pub(super) fn tls(&self, address: &Address) -> TlsMode {
        TlsMode::of(self.tls, address, self.ca_file.is_some())
    }
    /// How the line to the server is secured, in the words of a statement: of several servers, the least secure.
    pub(super) fn line(&self) -> Option<&'static str> {
        TlsMode::told_of(self.servers.iter().map(|address| (self.tls(address), address)))
    }

    /// The password, if one is configured.
    pub(super) fn password(&self) -> Result<Option<String>, Problem> {
        let Some(secret) = &self.password else { return Ok(None) };
        let text = String::from_utf8(secret.read()?).map_err(|_| {
            Problem::new(Code::ConfigMissing).with("file", "password_file").cause("the password is not UTF-8")
        })?;
        Ok(Some(text))
    }
}

/// `mysql://USER@HOST[:PORT][,HOST[:PORT]…]/DATABASE[?socket=/PATH]`
struct Url {
    servers: Vec<Address>,
    user: String,
    database: String,
}

impl Url {
    fn parse(text: &str) -> Result<Self, String> {
        let rest = text
            .strip_prefix("mysql://")
            .or_else(|| text.strip_prefix("mariadb://"))
            .ok_or("it begins with mysql://")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = split_user(authority, EXAMPLE)?;
        let mut socket = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "socket" => {
                    let path = PathBuf::from(decode(value)?);
                    if !path.is_absolute() {
                        return Err("`socket` names a socket, from the root".to_owned());
                    }
                    socket = Some(path);
                }
                "ssl-mode" | "require_ssl" | "ssl-ca" => {
                    return Err(format!("`{key}` is set by the keys `tls` and `ca_file`"));
                }
                _ => return Err(format!("`{key}` cannot be set here")),
            }
        }
        let servers = match socket {
            Some(_) if !hosts.is_empty() => return Err("it names a host and a socket".to_owned()),
            Some(path) => vec![Address::Unix(path)],
            None => hosts.split(',').map(|host| Address::parse(host, PORT)).collect::<Result<_, _>>()?,
        };
        let database = decode(database)?;
        if database.is_empty() {
            return Err(format!("it names no database: {EXAMPLE}"));
        }
        Ok(Self { servers, user, database: identifier(&database)? })
    }
}

fn identifier(text: &str) -> Result<String, String> {
    if text.chars().count() > super::place::NAME_CHARS_MAX || text.contains('\0') {
        Err("a name has at most 64 characters".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// What texts are kept in where the server does not know it. Each column's own character set is read from the catalogue.
fn charset(text: &str) -> Result<Charset, String> {
    if text.eq_ignore_ascii_case("utf8mb4") { Ok(Charset::Utf8) } else { Charset::parse(text) }
}

const KEYS: &[&str] =
    &["url", "password_file", "tls", "ca_file", "charset", "control_schema", "snapshot_max", "statement_timeout"];
const EXAMPLE: &str = "mysql://USER@HOST/DATABASE";
const PORT: u16 = 3306;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(keys: &[(&str, &str)]) -> Result<Settings, Vec<SettingError>> {
        Settings::parse(&keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect())
    }

    #[test]
    fn a_url_names_servers_user_and_database() {
        let one = parse(&[("url", "mysql://a%40b@db.example,[fd00::1]:3307/%E5%BA%93")]).unwrap();
        let tcp = |host: &str, port| Address::Tcp { host: host.to_owned(), port };
        assert_eq!(one.servers, [tcp("db.example", 3306), tcp("fd00::1", 3307)]);
        assert_eq!((one.user.as_str(), one.database.as_str()), ("a@b", "库"));
        assert_eq!(one.tls(&one.servers[0]), TlsMode::VerifyFull);
        let socket = parse(&[("url", "mysql://posthouse@/housing?socket=/run/mysqld/mysqld.sock")]).unwrap();
        assert_eq!(socket.servers, [Address::Unix("/run/mysqld/mysqld.sock".into())]);
        assert_eq!(socket.tls(&socket.servers[0]), TlsMode::Off);
        assert_eq!((one.line(), socket.line()), (None, None), "encrypted, and no network at all");
        let keys = [("url", "mysql://u@127.0.0.1,10.1.2.3/d"), ("tls", "off")];
        assert_eq!(parse(&keys).unwrap().line(), Some("not encrypted"), "either may answer");
        assert_eq!(socket.password().unwrap(), None);
    }

    #[test]
    fn a_url_that_is_wrong_says_how() {
        for (text, part) in [
            ("postgres://u@h/d", "mysql://"),
            ("mysql://u:secret@h/d", "password_file"),
            ("mysql://h/d", "no user"),
            ("mysql://u@/d", "no host"),
            ("mysql://u@h", "no database"),
            ("mysql://u@h/d?ssl-mode=DISABLED", "`tls`"),
            ("mysql://u@h/d?charset=gbk", "cannot be set"),
            ("mysql://u@h/d?socket=/run/s", "a host and"),
            ("mysql://u@/d?socket=run/s", "from the root"),
        ] {
            let errors = parse(&[("url", text)]).unwrap_err();
            assert!(errors[0].key == "url" && errors[0].what.contains(part), "{text}: {errors:?}");
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let errors = parse(&[("urll", "mysql://u@h/d"), ("charset", "klingon"), ("snapshot_max", "90d")]).unwrap_err();
        let keys: Vec<&str> = errors.iter().map(|error| error.key.as_str()).collect();
        assert_eq!(keys, ["urll", "url", "charset", "snapshot_max"]);
        assert_eq!(errors[0].nearest.as_deref(), Some("url"));
    }
}
