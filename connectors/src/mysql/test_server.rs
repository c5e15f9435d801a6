//! A MariaDB of one's own for tests: new data in a temporary folder, on a Unix socket and on loopback with TLS. It ends
//! with the process that started it, however that ends.

use super::client::Client;
use super::fail::Fail;
use super::settings::Settings;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustix::process::Signal;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

pub(crate) struct TestServer {
    folder: PathBuf,
    port: u16,
    keeper: Child,
}

/// May do everything, and is let in over the socket without a question.
pub(crate) const OWNER: &str = "root";
/// Comes over loopback, without a password, and may do what it is told.
pub(crate) const GUEST: &str = "guest";

impl TestServer {
    /// One for all tests that leave it as it is.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<TestServer> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&[]))
    }

    /// With settings of its own.
    pub(crate) fn start(more: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("posthouse-my-").tempdir().unwrap().keep();
        // Its own free port; nobody else takes it in the moment between.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (data, at) = (folder.join("data"), folder.display().to_string());
        // A server that starts, and the one that makes the data too, clears its folder for temporary tables, of other
        // servers' too.
        std::fs::create_dir(folder.join("tmp")).unwrap();
        let made = Command::new(program("mariadb-install-db"))
            .env("TMPDIR", folder.join("tmp"))
            .args([
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-name-resolve",
            ])
            .arg(format!("--datadir={}", data.display()))
            .args(as_root())
            .output()
            .unwrap();
        assert!(made.status.success(), "mariadb-install-db: {}", String::from_utf8_lossy(&made.stderr));
        certify(&folder);
        // The shell holds the server and reads from this process: when that ends, so do the server and its folder.
        let keeper = Command::new("/bin/sh")
            .current_dir(&folder)
            .args(["-c", KEEPER, "keeper"])
            .arg(program("mariadbd"))
            .arg("--no-defaults")
            .arg(format!("--datadir={}", data.display()))
            .args([format!("--socket={at}/s"), format!("--port={port}"), format!("--pid-file={at}/pid")])
            .arg(format!("--tmpdir={at}/tmp"))
            .args([format!("--ssl-cert={at}/server.crt"), format!("--ssl-key={at}/server.key")])
            .args(["--bind-address=127.0.0.1", "--skip-name-resolve", "--local-infile=1", "--max-connections=500"])
            .args(["--innodb-buffer-pool-size=64M", "--innodb-flush-method=nosync", "--sync-frm=0"])
            .args(as_root())
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { folder, port, keeper };
        let mut owner = server.wait();
        for statement in ["DROP USER IF EXISTS ''@'localhost'", "CREATE USER 'guest'@'%'"] {
            owner.run(statement).unwrap();
        }
        server
    }

    pub(crate) fn owner(&self) -> Client {
        connect(&self.url(OWNER, "mysql"), &[]).unwrap()
    }

    pub(crate) fn url(&self, user: &str, database: &str) -> String {
        match user {
            OWNER => format!("mysql://{user}@/{database}?socket={}/s", self.folder.display()),
            user => format!("mysql://{user}@127.0.0.1:{}/{database}", self.port),
        }
    }

    /// Over loopback by the name that stands in the server's certificate.
    pub(crate) fn by_name(&self, database: &str) -> String {
        format!("mysql://{GUEST}@localhost:{}/{database}", self.port)
    }

    pub(crate) fn ca_file(&self) -> String {
        self.folder.join("ca.crt").display().to_string()
    }

    /// Ends it before the process does.
    pub(crate) fn kill(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGKILL, and a start on the data that it has; back when it lets someone in.
    pub(crate) fn crash(&self) {
        self.signal(Signal::KILL);
        let mut keeper: &ChildStdin = self.keeper.stdin.as_ref().unwrap();
        keeper.write_all(b"again\n").unwrap();
        drop(self.wait());
    }

    fn signal(&self, signal: Signal) {
        let pid = std::fs::read_to_string(self.folder.join("pid")).unwrap();
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Until it lets someone in.
    fn wait(&self) -> Client {
        for _ in 0..600 {
            match connect(&self.url(OWNER, "mysql"), &[]) {
                Ok(client) => return client,
                Err(Fail::Lost(_)) => std::thread::sleep(Duration::from_millis(50)),
                Err(fail) => panic!("{fail:?}"),
            }
        }
        let log = std::fs::read(self.folder.join("log")).unwrap_or_default();
        panic!("the server did not start: {}", String::from_utf8_lossy(&log));
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// A database of the shared one as its owner reaches it, for tests beside this connector.
pub(crate) fn test_url(database: &str) -> String {
    TestServer::shared().url(OWNER, database)
}

pub(crate) fn connect(url: &str, more: &[(&str, &str)]) -> Result<Client, Fail> {
    let all = [("url", url)].into_iter().chain(more.iter().copied());
    let settings = Settings::parse(&all.map(|(key, value)| (key.to_owned(), value.into())).collect()).unwrap();
    Client::connect(&settings)
}

fn program(name: &str) -> PathBuf {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/libexec", "/usr/local/bin"];
    let found = folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
    found.expect("these tests need MariaDB: apt-get install mariadb-server-core mariadb-client-core")
}

/// The server refuses to run as root by itself.
fn as_root() -> Vec<String> {
    if rustix::process::geteuid().is_root() { vec!["--user=root".to_owned()] } else { Vec::new() }
}

/// A CA, and the server's certificate from it.
fn certify(folder: &Path) {
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
    std::fs::write(folder.join("server.key"), key.serialize_pem()).unwrap();
}

/// Each line that it reads starts the server again, once that has ended.
const KEEPER: &str = r#""$@" >log 2>&1 & server=$!
    while read -r _; do wait "$server"; "$@" >>log 2>&1 & server=$!; done
    kill -TERM "$server"; wait "$server"; cd /; rm -rf "$OLDPWD""#;
