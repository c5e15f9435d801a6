//! What a connection's keys mean, and how each mistake is told.

use super::*;
use posthouse_protocol::problem::Code;

fn parse(keys: &[(&str, &str)]) -> Result<Settings, Vec<SettingError>> {
    Settings::parse(&keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect())
}

fn url(url: &str) -> Settings {
    parse(&[("url", url)]).unwrap()
}

fn tcp(host: &str, port: u16) -> Address {
    Address::Tcp { host: host.to_owned(), port }
}

/// The one thing that is wrong with a URL.
fn wrong_url(url: &str) -> String {
    match parse(&[("url", url)]).unwrap_err().as_slice() {
        [SettingError { key, what, .. }] if key == "url" => what.clone(),
        other => panic!("{url}: {other:?}"),
    }
}

#[test]
fn a_url_names_servers_user_and_database() {
    let one = url("postgres://posthouse@db.example:6432/housing");
    assert_eq!(
        (one.servers, one.user, one.database),
        (vec![tcp("db.example", 6432)], "posthouse".into(), "housing".into())
    );
    let several = url("postgresql://a%40b%20@[fd00::1],10.0.0.2:5433,db/%E5%BA%93");
    assert_eq!(several.servers, [tcp("fd00::1", 5432), tcp("10.0.0.2", 5433), tcp("db", 5432)]);
    assert_eq!((several.user.as_str(), several.database.as_str()), ("a@b ", "库"));
    assert_eq!(several.servers[0].to_string(), "[fd00::1]:5432");
    let same = url("postgres://posthouse@db");
    assert_eq!(same.database, "posthouse");
    let socket = url("postgres://posthouse@/housing?host=/run/postgresql&port=5433");
    assert_eq!(socket.servers, [Address::Unix("/run/postgresql/.s.PGSQL.5433".into())]);
}

#[test]
fn a_url_that_is_wrong_says_how() {
    for (text, part) in [
        ("mysql://u@h/d", "postgres://"),
        ("postgres://u:secret@h/d", "password_file"),
        ("postgres://h/d", "no user"),
        ("postgres://u@/d", "no host"),
        ("postgres://u@h,/d", "no host"),
        ("postgres://u@h:0/d", "no port"),
        ("postgres://u@h:x/d", "no port"),
        ("postgres://u@h/d?sslmode=require", "`tls`"),
        ("postgres://u@h/d?options=x", "cannot be set"),
        ("postgres://u@h/d?host=/run", "a host and"),
        ("postgres://u@/d?host=run", "from the root"),
        ("postgres://u@h/%ff", "UTF-8"),
        ("postgres://u@h/%00", "zero byte"),
        ("postgres://u@[::1/d", "no `]`"),
    ] {
        let what = wrong_url(text);
        assert!(what.contains(part), "{text}: {what}");
    }
}

#[test]
fn all_mistakes_are_told_at_once_with_the_nearest_key() {
    let errors = parse(&[
        ("urll", "postgres://u@h/d"),
        ("tls", "prefer"),
        ("snapshot_max", "30"),
        ("statement_timeout", "90d"),
        ("dialect", "oracle"),
        ("control_schema", ""),
        ("password_file", "credential:../x"),
    ])
    .unwrap_err();
    let keys: Vec<&str> = errors.iter().map(|error| error.key.as_str()).collect();
    assert_eq!(
        keys,
        ["urll", "url", "password_file", "tls", "control_schema", "snapshot_max", "statement_timeout", "dialect"]
    );
    assert_eq!(errors[0].nearest.as_deref(), Some("url"));
    let number = [("url".to_owned(), 5.into())].into_iter().collect();
    assert_eq!(Settings::parse(&number).unwrap_err()[0].what, "it is text");
}

#[test]
fn a_line_is_verified_unless_it_stays_on_the_machine_or_the_operator_says_otherwise() {
    let mode = |keys: &[(&str, &str)]| {
        let settings = parse(keys).unwrap();
        settings.tls(&settings.servers[0])
    };
    assert_eq!(mode(&[("url", "postgres://u@db.example/d")]), TlsMode::VerifyFull);
    assert_eq!(mode(&[("url", "postgres://u@10.0.0.1/d")]), TlsMode::VerifyFull);
    assert_eq!(mode(&[("url", "postgres://u@db.example/d"), ("tls", "off")]), TlsMode::Off);
    assert_eq!(mode(&[("url", "postgres://u@db.example/d"), ("tls", "require")]), TlsMode::Require);
    // What a statement says of it: of several servers, the least secure.
    let line = |keys: &[(&str, &str)]| parse(keys).unwrap().line();
    assert_eq!(line(&[("url", "postgres://u@db.example/d")]), None);
    assert_eq!(line(&[("url", "postgres://u@db.example/d"), ("tls", "off")]), Some("not encrypted"));
    assert_eq!(line(&[("url", "postgres://u@127.0.0.1/d")]), Some("not encrypted, on this machine"));
    for local in ["localhost", "127.0.0.1", "127.8.0.1", "[::1]"] {
        assert_eq!(mode(&[("url", &format!("postgres://u@{local}/d"))]), TlsMode::Off, "{local}");
    }
    assert_eq!(mode(&[("url", "postgres://u@127.0.0.1/d"), ("ca_file", "/ca")]), TlsMode::VerifyFull);
    assert_eq!(mode(&[("url", "postgres://u@/d?host=/run"), ("tls", "verify-full")]), TlsMode::Off);
    let errors = parse(&[("url", "postgres://u@h/d"), ("tls", "require"), ("ca_file", "/ca")]).unwrap_err();
    assert_eq!(errors[0].key, "ca_file");
}

#[test]
fn a_password_is_read_from_where_it_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    posthouse_platform::identity::write_secret(&file, b"se cret\r\n").unwrap();
    let read = |password_file: &str| {
        parse(&[("url", "postgres://u@h/d"), ("password_file", password_file)]).unwrap().password()
    };
    assert_eq!(read(file.to_str().unwrap()).unwrap().unwrap(), b"se cret");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let exposed = read(file.to_str().unwrap()).unwrap_err();
    assert!(matches!(exposed, WireError::Secret(problem) if problem.code == Code::SecretExposed));
    assert!(matches!(read("env:POSTHOUSE_NOT_SET"), Err(WireError::Secret(_))));
    assert_eq!(read("env:PATH").unwrap().unwrap(), std::env::var("PATH").unwrap().as_bytes());
    assert!(matches!(read("credential:db"), Err(WireError::Secret(_))));
    assert_eq!(parse(&[("url", "postgres://u@h/d")]).unwrap().password().unwrap(), None);
}

/// In a process of its own, as systemd would start it.
#[test]
fn a_credential_is_read_from_the_folder_that_systemd_names() {
    if let Some(folder) = std::env::var_os("CREDENTIALS_DIRECTORY") {
        let settings = parse(&[("url", "postgres://u@h/d"), ("password_file", "credential:db")]).unwrap();
        assert_eq!(settings.password().unwrap().unwrap(), folder.as_encoded_bytes());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("db"), format!("{}\n", folder.path().display())).unwrap();
    let name = format!("{}::a_credential_is_read", module_path!().split_once("::").unwrap().1);
    let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
    let run = alone.arg(&name).env("CREDENTIALS_DIRECTORY", folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn what_is_not_said_has_its_default() {
    let settings = url("postgres://u@h/d");
    assert_eq!(settings.snapshot_max, "30m".parse().unwrap());
    assert_eq!((settings.statement_timeout, settings.dialect), (None, Dialect::Postgres));
    assert_eq!(settings.control_schema, None);
    let said = parse(&[
        ("url", "postgres://u@h/d"),
        ("snapshot_max", "2h"),
        ("statement_timeout", "90s"),
        ("dialect", "kingbase"),
        ("control_schema", "posthouse"),
    ])
    .unwrap();
    assert_eq!(said.snapshot_max, "2h".parse().unwrap());
    assert_eq!((said.statement_timeout, said.dialect), ("90s".parse().ok(), Dialect::Kingbase));
    assert_eq!(said.control_schema.as_deref(), Some("posthouse"));
}
