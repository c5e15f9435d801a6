//! The keys of `[connection.X]` with `kind = "sqlserver"`: parsed once, all mistakes at once. TLS is verified wherever
//! the line leaves this machine; `tls = "off"` has to name the addresses it is meant for, and is logged at each use.

use super::client::SqlError;
use crate::SettingError;
use crate::charset::Charset;
use crate::settings::{Address, Common, Reader, Secret, TlsMode, decode, split_user};
use posthouse_platform::settings::Interval;
use std::path::PathBuf;

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) address: Address,
    pub(super) user: String,
    pub(super) database: String,
    password: Option<Secret>,
    tls: Option<TlsMode>,
    pub(super) ca_file: Option<PathBuf>,
    /// What bytes of `char` and `varchar` columns are, where their collation says something else.
    pub(super) charset: Option<Charset>,
    /// Schema of `posthouse_applied` and its kin; the target's where absent.
    pub(super) control_schema: Option<String>,
    /// How long one snapshot may be held.
    pub(super) snapshot_max: Interval,
    /// Absent: a statement may take any time.
    pub(super) statement_timeout: Option<Interval>,
}

impl Settings {
    pub(super) fn parse(settings: &crate::Settings) -> Result<Self, Vec<SettingError>> {
        let mut reader = Reader::new(settings, KEYS);
        let url = reader.require("url", parse_url);
        let open = reader.read("tls_off_for", parse_hosts);
        let charset = reader.read("charset", Charset::parse);
        let Common { password, tls, ca_file, control_schema, snapshot_max, statement_timeout } =
            Common::read(&mut reader, parse_schema);
        if open.is_some() && tls != Some(TlsMode::Off) {
            reader.wrong("tls_off_for", "it counts with tls = \"off\" only");
        }
        if let Some(Url { address, .. }) = &url
            && tls == Some(TlsMode::Off)
            && !address.is_local()
            && !open.is_some_and(|hosts| hosts.iter().any(|host| is_host(address, host)))
        {
            let what = format!(
                "password and rows would pass in the clear: leave it out, or name the server in `tls_off_for = \"{}\"` \
                 where its line is safe",
                host_of(address)
            );
            reader.wrong("tls", &what);
        }
        match url {
            Some(Url { address, user, database }) if reader.errors.is_empty() => Ok(Self {
                address,
                user,
                database,
                password,
                tls,
                ca_file,
                charset,
                control_schema,
                snapshot_max,
                statement_timeout,
            }),
            _ => Err(reader.errors),
        }
    }

    /// How the line to the server is secured.
    pub(super) fn tls(&self) -> TlsMode {
        TlsMode::of(self.tls, &self.address, self.ca_file.is_some())
    }
    /// The same in the words of a statement.
    pub(super) fn line(&self) -> Option<&'static str> {
        self.tls().told(&self.address)
    }

    /// A line that others could read, or on which anyone could answer, is never used without a word.
    pub(super) fn tell_what_is_open(&self, name: &str) {
        if self.address.is_local() {
            return;
        }
        let server = self.address.to_string();
        match self.tls() {
            TlsMode::Off => tracing::warn!(connection = name, server, "password and rows pass in the clear"),
            TlsMode::Require => tracing::warn!(connection = name, server, "whoever answers is taken for the server"),
            TlsMode::VerifyFull => {}
        }
    }

    /// The password as it stands now; an empty one where none is configured.
    pub(super) fn password(&self) -> Result<String, SqlError> {
        let Some(secret) = &self.password else { return Ok(String::new()) };
        let bytes = secret.read().map_err(SqlError::Secret)?;
        String::from_utf8(bytes).map_err(|_| SqlError::Odd("the password is not UTF-8".to_owned()))
    }
}

/// `sqlserver://USER@HOST[:PORT]/DATABASE`
#[derive(Debug)]
struct Url {
    address: Address,
    user: String,
    database: String,
}

fn parse_url(text: &str) -> Result<Url, String> {
    let rest = text.strip_prefix("sqlserver://").ok_or("it begins with sqlserver://")?;
    if let Some((_, query)) = rest.split_once('?') {
        let key = query.split(['=', '&']).next().unwrap_or_default();
        return Err(format!("`{key}` cannot be set here"));
    }
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, host) = split_user(authority, EXAMPLE)?;
    if host.contains('\\') {
        return Err("a named instance has a port of its own: write HOST:PORT".to_owned());
    }
    let address = Address::parse(host, PORT)?;
    let database = decode(database)?;
    if database.is_empty() {
        return Err(format!("it names no database: {EXAMPLE}"));
    }
    Ok(Url { address, user, database })
}

fn parse_hosts(text: &str) -> Result<Vec<String>, String> {
    let hosts: Vec<String> = text.split(',').map(|host| host.trim().to_owned()).collect();
    match hosts.iter().any(|host| host.is_empty() || host.contains(['*', '/'])) {
        true => Err("it is a list of hosts parted by commas, each written out".to_owned()),
        false => Ok(hosts),
    }
}

fn parse_schema(text: &str) -> Result<String, String> {
    match super::name::is_name(text) {
        true => Ok(text.to_owned()),
        false => Err("it is the name of a schema, in at most 128 characters".to_owned()),
    }
}

fn host_of(address: &Address) -> &str {
    match address {
        Address::Tcp { host, .. } => host,
        Address::Unix(_) => "",
    }
}

/// A name is the same in any case.
fn is_host(address: &Address, host: &str) -> bool {
    host_of(address).eq_ignore_ascii_case(host)
}

const KEYS: &[&str] = &[
    "url",
    "password_file",
    "tls",
    "ca_file",
    "tls_off_for",
    "charset",
    "control_schema",
    "snapshot_max",
    "statement_timeout",
];
const EXAMPLE: &str = "sqlserver://USER@HOST[:PORT]/DATABASE";
const PORT: u16 = 1433;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(keys: &[(&str, &str)]) -> Result<Settings, Vec<SettingError>> {
        Settings::parse(&keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect())
    }

    #[test]
    fn a_url_names_server_user_and_database() {
        let settings = parse(&[("url", "sqlserver://post%40house@db.example/%E5%89%8D%E7%BD%AE%E5%BA%93")]).unwrap();
        assert_eq!((settings.user.as_str(), settings.database.as_str()), ("post@house", "前置库"));
        assert_eq!(settings.address.to_string(), "db.example:1433");
        for (url, part) in [
            ("mssql://u@h/d", "sqlserver://"),
            ("sqlserver://u:secret@h/d", "password_file"),
            ("sqlserver://h/d", "no user"),
            ("sqlserver://u@h", "no database"),
            ("sqlserver://u@h\\EXPRESS/d", "HOST:PORT"),
            ("sqlserver://u@h/d?encrypt=no", "`encrypt`"),
        ] {
            let errors = parse(&[("url", url)]).unwrap_err();
            assert!(errors.len() == 1 && errors[0].what.contains(part), "{url}: {errors:?}");
        }
    }

    #[test]
    fn a_line_is_verified_unless_it_stays_here_or_is_named() {
        let mode = |keys: &[(&str, &str)]| parse(keys).map(|settings| settings.tls());
        let far = ("url", "sqlserver://u@10.1.2.3/d");
        assert_eq!(mode(&[far]).unwrap(), TlsMode::VerifyFull);
        assert_eq!(mode(&[("url", "sqlserver://u@127.0.0.1/d")]).unwrap(), TlsMode::Off);
        assert_eq!(mode(&[("url", "sqlserver://u@localhost/d"), ("ca_file", "ca.pem")]).unwrap(), TlsMode::VerifyFull);
        let refused = mode(&[far, ("tls", "off")]).unwrap_err();
        assert!(refused[0].key == "tls" && refused[0].what.contains("tls_off_for = \"10.1.2.3\""), "{refused:?}");
        assert!(mode(&[far, ("tls", "off"), ("tls_off_for", "10.1.2.30, 10.1.2.4")]).is_err());
        assert_eq!(mode(&[far, ("tls", "off"), ("tls_off_for", "10.9.9.9, 10.1.2.3")]).unwrap(), TlsMode::Off);
        assert!(mode(&[far, ("tls_off_for", "10.1.2.3")]).is_err());
        assert!(mode(&[far, ("tls", "off"), ("tls_off_for", "10.1.2.*")]).is_err());
        assert!(mode(&[far, ("tls", "require"), ("ca_file", "ca.pem")]).is_err());
    }

    #[test]
    fn a_statement_says_of_a_line_what_it_lacks() {
        let line = |keys: &[(&str, &str)]| parse(keys).unwrap().line();
        let (far, here) = (("url", "sqlserver://u@10.1.2.3/d"), ("url", "sqlserver://u@[::1]/d"));
        assert_eq!(line(&[far]), None);
        assert_eq!(line(&[far, ("tls", "off"), ("tls_off_for", "10.1.2.3")]), Some("not encrypted"));
        assert_eq!(line(&[far, ("tls", "require")]), Some("encrypted, the server not verified"));
        assert_eq!(line(&[here]), Some("not encrypted, on this machine"));
        assert_eq!(line(&[here, ("tls", "verify-full")]), None);
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let errors = parse(&[("urll", "x"), ("charset", "klingon"), ("snapshot_max", "soon")]).unwrap_err();
        let keys: Vec<&str> = errors.iter().map(|error| error.key.as_str()).collect();
        assert_eq!(keys, ["urll", "url", "charset", "snapshot_max"]);
        assert_eq!(errors[0].nearest.as_deref(), Some("url"));
    }
}
