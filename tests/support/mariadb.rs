//! A throw-away MariaDB server on a Unix socket, and its own client, for tests that ask the real one. It stands alone,
//! so that any crate's tests take it in by its path.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// A running server with one account `root` that needs no password, and an empty database `work` in utf8mb4; gone when
/// dropped.
pub(crate) struct MariaDb {
    folder: tempfile::TempDir,
    /// None once it was stopped.
    pub(crate) server: Option<Child>,
    settings: Vec<String>,
}

impl MariaDb {
    /// Starts an empty server with these options beside the usual ones.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("posthouse-my-").tempdir().expect("a temporary folder");
        // A server that starts, and the one that makes the data too, clears its folder for temporary tables, of other
        // servers' too.
        std::fs::create_dir(folder.path().join("tmp")).expect("a folder");
        let made = command("mariadb-install-db")
            .env("TMPDIR", folder.path().join("tmp"))
            .args([
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-name-resolve",
            ])
            .arg(format!("--datadir={}", folder.path().join("data").display()))
            .args(as_root())
            .output()
            .expect("mariadb-install-db starts");
        assert!(made.status.success(), "{made:?}");
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut started = Self { folder, server: None, settings };
        assert!(started.launch(), "mariadbd does not start: {}", started.log());
        let made = output(&mut client(&started.socket(), None), "CREATE DATABASE work CHARACTER SET utf8mb4");
        assert!(made.status.success(), "{made:?}");
        started
    }

    /// Starts it on the data that it has, and waits until it answers; false where it ends instead.
    pub(crate) fn launch(&mut self) -> bool {
        let mut server = self.spawn();
        for _ in 0..1200 {
            let ready = client(&self.socket(), None).args(["-e", "SELECT 1"]).output();
            match server.try_wait() {
                Ok(None) if ready.is_ok_and(|ready| ready.status.success()) => {
                    self.server = Some(server);
                    return true;
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(50)),
                _ => return false,
            }
        }
        self.server = Some(server);
        false
    }

    fn spawn(&self) -> Child {
        let at = self.folder.path().display();
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("log"));
        let log = log.expect("its log");
        command("mariadbd")
            .arg("--no-defaults")
            .args([format!("--datadir={at}/data"), format!("--socket={at}/s"), format!("--pid-file={at}/pid")])
            .arg(format!("--tmpdir={at}/tmp"))
            .args(["--skip-networking", "--skip-name-resolve", "--local-infile=1", "--max-connections=200"])
            .args(["--innodb-buffer-pool-size=64M", "--innodb-flush-method=nosync", "--sync-frm=0"])
            .args(as_root())
            .args(&self.settings)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("its log"))
            .stderr(log)
            .spawn()
            .expect("mariadbd starts")
    }

    /// Its socket: what a connection's URL names.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    /// As `url` of a connection has it.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("mysql://root@/{database}?socket={}", self.socket().display())
    }

    /// Runs a script in `work` and gives what it prints, without headings and escapes; ends the test where a statement
    /// fails.
    pub(crate) fn sql(&self, script: &str) -> Vec<u8> {
        let output = self.try_sql(script);
        assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), self.log());
        output.stdout
    }

    /// Runs a script up to the first statement that fails.
    pub(crate) fn try_sql(&self, script: &str) -> Output {
        output(&mut client(&self.socket(), Some("work")), script)
    }

    /// One line of one value.
    pub(crate) fn value(&self, sql: &str) -> String {
        String::from_utf8_lossy(&self.sql(sql)).trim().to_owned()
    }

    /// What the server has said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        let Some(server) = &mut self.server else { return };
        let _ = server.kill();
        let _ = server.wait();
    }
}

/// The server's own client, at its socket, in a database or in none.
pub(crate) fn client(socket: &Path, database: Option<&str>) -> Command {
    let mut client = command("mariadb");
    client
        .arg("--no-defaults")
        .arg(format!("--socket={}", socket.display()))
        .args(["--user=root", "--default-character-set=utf8mb4", "--batch", "--raw", "--skip-column-names"])
        .args(["--binary-mode", "--quick"]);
    client.args(database);
    client
}

/// What a client says to a script on its input.
fn output(client: &mut Command, script: &str) -> Output {
    client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = client.spawn().expect("mariadb starts");
    let mut input = child.stdin.take().expect("its input");
    let script = script.to_owned();
    let writer = std::thread::spawn(move || input.write_all(script.as_bytes()));
    let output = child.wait_with_output().expect("mariadb ends");
    // A script that failed is not read to its end.
    let _ = writer.join();
    output
}

/// One of the server's programs, from wherever its packages put it.
fn command(program: &str) -> Command {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/libexec", "/usr/local/bin"];
    let found = folders.iter().map(|folder| Path::new(folder).join(program)).find(|path| path.exists());
    let mut command = Command::new(found.expect("MariaDB is installed (`tests/run` does it)"));
    command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    command
}

/// The server refuses to run as root by itself.
fn as_root() -> Option<&'static str> {
    use std::os::unix::fs::MetadataExt as _;
    // Without a crate for it: who owns this process's entry is who runs it.
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0).then_some("--user=root")
}
