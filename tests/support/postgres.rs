//! A throw-away PostgreSQL server on a Unix socket, for tests that ask the real one. It stands alone, so that
//! any crate's tests take it in by its path.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// A running server with one superuser `postgres` and one database `postgres`; gone when dropped.
pub(crate) struct Postgres {
    folder: tempfile::TempDir,
    /// None once it was stopped.
    pub(crate) server: Option<Child>,
    settings: Vec<(String, String)>,
}

impl Postgres {
    /// Starts an empty server of the newest version that is installed, with these settings beside the defaults.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("posthouse-pg-").tempdir().expect("a temporary folder");
        if is_root() {
            std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("the folder is handed over");
        }
        let data = folder.path().join("data");
        let made = command("initdb")
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "-D"])
            .arg(&data)
            .output()
            .expect("initdb starts");
        assert!(made.status.success(), "{made:?}");
        let quick = [("fsync", "off"), ("max_wal_size", "4GB"), ("shared_buffers", "64MB")];
        let settings = quick.iter().chain(settings).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings: Vec<_> = settings.collect();
        let mut started = Self { folder, server: None, settings };
        assert!(started.launch(), "postgres does not start: {}", started.log());
        started
    }

    /// Starts it on the data that it has, and waits until it answers; false where it ends instead.
    pub(crate) fn launch(&mut self) -> bool {
        let mut server = launch(self.folder.path(), &self.settings);
        for _ in 0..1200 {
            let mut ready = command("pg_isready");
            let ready = ready.arg("-q").arg("-h").arg(self.socket()).status();
            match server.try_wait() {
                Ok(None) if ready.is_ok_and(|ready| ready.success()) => {
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

    /// The folder of its socket: the host in a connection. What the server may write goes beside it.
    pub(crate) fn socket(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a script and gives what it prints, without headings; ends the test where a statement fails.
    pub(crate) fn psql(&self, script: &str) -> Vec<u8> {
        let output = self.try_psql(script);
        assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), self.log());
        output.stdout
    }

    /// Runs a script up to the first statement that fails.
    pub(crate) fn try_psql(&self, script: &str) -> Output {
        let mut psql = command("psql");
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "postgres",
            "-d",
            "postgres",
            "-f",
            "-",
            "-h",
        ]);
        psql.arg(self.socket()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = psql.spawn().expect("psql starts");
        let mut input = child.stdin.take().expect("its input");
        let script = script.to_owned();
        let writer = std::thread::spawn(move || input.write_all(script.as_bytes()));
        let output = child.wait_with_output().expect("psql ends");
        // A script that failed is not read to its end.
        let _ = writer.join();
        output
    }

    /// What the server has said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let stop =
            command("pg_ctl").args(["stop", "-m", "immediate", "-D"]).arg(self.folder.path().join("data")).output();
        let Some(server) = &mut self.server else { return };
        if !stop.is_ok_and(|stop| stop.status.success()) {
            let _ = server.kill();
        }
        let _ = server.wait();
    }
}

/// The server itself, on the data in this folder.
fn launch(folder: &Path, settings: &[(String, String)]) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).expect("its log");
    let mut server = command("postgres");
    server.arg("-D").arg(folder.join("data")).arg("-k").arg(folder).args(["-c", "listen_addresses="]);
    for (name, value) in settings {
        server.arg("-c").arg(format!("{name}={value}"));
    }
    server.stdin(Stdio::null()).stdout(log.try_clone().expect("its log")).stderr(log);
    server.spawn().expect("postgres starts")
}

/// One of the server's programs, as a user that the server accepts: never root.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(binaries().join(program));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").current_dir("/");
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Where the newest installed server's programs are.
fn binaries() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed (`tests/run` does it)");
    let versions = versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let newest = versions.max().expect("a version of PostgreSQL");
    PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin"))
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    // Without a crate for it: who owns this process's entry is who runs it.
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

const NOBODY: u32 = 65_534;
