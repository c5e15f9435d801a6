//! A PostgreSQL of one's own for tests: a new cluster in a temporary folder, on a Unix socket and on loopback with TLS,
//! with an account for each way to be let in. It ends with the process that started it, however that ends.

use super::settings::Settings;
use super::wire::Client;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustix::process::{Pid, Signal};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

pub(crate) struct TestServer {
    folder: PathBuf,
    port: u16,
    keeper: Child,
}

/// Superuser, let in over the socket without a question.
pub(crate) const OWNER: &str = "owner";
/// Of every account that is asked for one.
pub(crate) const PASSWORD: &str = "pass-字 word";

impl TestServer {
    /// One for all tests that leave it as it is.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<TestServer> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    pub(crate) fn start() -> Self {
        let binaries = binaries();
        let folder = tempfile::Builder::new().prefix("posthouse-pg-").tempdir().unwrap().keep();
        let user = ServerUser::find();
        user.owns(&folder);
        // Its own free port; nobody else takes it in the moment between.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let data = folder.join("data");
        let made = user
            .command(&binaries.join("initdb"), &folder)
            .args(["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=trust", "--username", OWNER, "--pgdata"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        certify(&folder, &user);
        std::fs::write(data.join("pg_hba.conf"), ACCESS).unwrap();
        let mut more = std::fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).unwrap();
        let at = folder.display();
        write!(
            more,
            "\nlisten_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{at}'\nfsync = off\n\
             ssl = on\nssl_cert_file = '{at}/server.crt'\nssl_key_file = '{at}/server.key'\nlog_connections = on\n\
             shared_buffers = 64MB\nmax_wal_size = 2GB\nlc_messages = 'C'\n"
        )
        .unwrap();
        drop(more);
        // The shell holds the server and reads from this process: when that ends, so do the server and its folder.
        let keeper = user
            .command(Path::new("/bin/sh"), &folder)
            .args(["-c", KEEPER, "keeper"])
            .arg(binaries.join("postgres"))
            .arg("-D")
            .arg(&data)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { folder, port, keeper };
        let mut owner = server.wait();
        for account in ["md5", "scram", "clear", "tls", "trust", "odd"] {
            let encryption = if account == "md5" { "md5" } else { "scram-sha-256" };
            let made = format!(
                "SET password_encryption = '{encryption}'; CREATE ROLE \"{account}\" LOGIN PASSWORD '{PASSWORD}'"
            );
            owner.batch(&made).unwrap();
        }
        server
    }

    /// A session of the owner over the socket.
    pub(crate) fn owner(&self) -> Client {
        Client::connect(&self.by_socket(OWNER, &[])).unwrap()
    }

    pub(crate) fn by_socket(&self, user: &str, more: &[(&str, &str)]) -> Settings {
        settings(&format!("postgres://{user}@/postgres?host={}&port={}", self.folder.display(), self.port), more)
    }

    pub(crate) fn by_tcp(&self, host: &str, user: &str, more: &[(&str, &str)]) -> Settings {
        settings(&format!("postgres://{user}@{host}:{}/postgres", self.port), more)
    }

    /// A file that holds a password, as `password_file` takes it.
    pub(crate) fn password_file(&self, password: &str) -> String {
        let mut file = tempfile::NamedTempFile::new_in(&self.folder).unwrap();
        file.write_all(format!("{password}\n").as_bytes()).unwrap();
        file.into_temp_path().keep().unwrap().display().to_string()
    }

    /// The CA of its certificate, which is for `localhost`.
    pub(crate) fn ca_file(&self) -> String {
        self.folder.join("ca.crt").display().to_string()
    }

    pub(crate) fn certificate_file(&self) -> String {
        self.folder.join("server.crt").display().to_string()
    }

    /// For `psql`.
    pub(crate) fn socket(&self) -> (PathBuf, u16) {
        (self.folder.clone(), self.port)
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.join("log")).unwrap()).into_owned()
    }

    /// Kills the server's first process, without a chance to say anything.
    pub(crate) fn kill(&self) {
        let pid = std::fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap();
        kill(pid.lines().next().unwrap().parse().unwrap());
    }

    /// Until it lets someone in.
    pub(crate) fn wait(&self) -> Client {
        let owner = self.by_socket(OWNER, &[]);
        for _ in 0..600 {
            match Client::connect(&owner) {
                Ok(client) => return client,
                Err(error) if error.is_lost() => std::thread::sleep(Duration::from_millis(50)),
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the server did not start: {}", self.log());
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// Where the shared one listens, for tests beside this connector.
pub(crate) fn test_socket() -> (PathBuf, u16) {
    TestServer::shared().socket()
}

/// `kill -9`.
pub(crate) fn kill(process: i32) {
    rustix::process::kill_process(Pid::from_raw(process).unwrap(), Signal::KILL).unwrap();
}

/// The newest installed.
pub(crate) fn binaries() -> PathBuf {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = installed.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max();
    let newest = newest.expect("these tests need PostgreSQL: apt-get install postgresql");
    PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin"))
}

fn settings(url: &str, more: &[(&str, &str)]) -> Settings {
    let all = [("url", url)].into_iter().chain(more.iter().copied());
    Settings::parse(&all.map(|(key, value)| (key.to_owned(), value.into())).collect()).unwrap()
}

/// A CA, and the server's certificate from it.
fn certify(folder: &Path, user: &ServerUser) {
    let mut params = CertificateParams::default();
    // Two servers' CAs are two.
    params.distinguished_name.push(DnType::CommonName, folder.display().to_string());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(params, ca_key);
    let leaf = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    std::fs::write(folder.join("ca.crt"), ca.pem()).unwrap();
    std::fs::write(folder.join("server.crt"), leaf.pem()).unwrap();
    let file = folder.join("server.key");
    std::fs::write(&file, key.serialize_pem()).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    user.owns(&file);
}

/// The server refuses to run as root.
struct ServerUser(Option<(u32, u32)>);

impl ServerUser {
    fn find() -> Self {
        if !rustix::process::geteuid().is_root() {
            return Self(None);
        }
        let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
        let account = accounts.lines().find(|line| line.starts_with("postgres:")).expect("an account `postgres`");
        let mut ids = account.split(':').skip(2).map(|id| id.parse().unwrap());
        Self(Some((ids.next().unwrap(), ids.next().unwrap())))
    }

    fn owns(&self, path: &Path) {
        if let Some((user, group)) = self.0 {
            chown(path, Some(user), Some(group)).unwrap();
        }
    }

    fn command(&self, program: &Path, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(folder).env("LC_ALL", "C");
        if let Some((user, group)) = self.0 {
            command.uid(user).gid(group);
        }
        command
    }
}

const KEEPER: &str =
    r#""$@" >log 2>&1 & server=$!; read -r _; kill -INT "$server"; wait "$server"; cd /; rm -rf "$OLDPWD""#;

const ACCESS: &str = "
local   all owner trust
local   all md5   md5
local   all scram scram-sha-256
local   all clear password
host    all md5   127.0.0.1/32 md5
host    all scram 127.0.0.1/32 scram-sha-256
host    all clear 127.0.0.1/32 password
hostssl all tls   127.0.0.1/32 scram-sha-256
host    all trust,odd 127.0.0.1/32 trust
";
