//! The TDS test server, driven by clients of other people: python-tds and FreeTDS. What they agree on with it is TDS,
//! and not what one driver of ours takes for it.

use crate::support::{run, text};
use posthouse_test_tds::{Encryption, Fault, Options, Server};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn python_tds_reads_and_writes_every_type_over_tls_with_the_servers_authority() {
    let server = Server::start(Options::default()).expect("a server");
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, server.ca_pem()).expect("a file");
    let compared = python(&server, &["--ca", text(&ca)]);
    assert_eq!(compared, COMPARED);
    assert_eq!(server.unknown(), Vec::<String>::new());
}

#[test]
fn python_tds_with_the_login_alone_encrypted_and_with_nothing_encrypted() {
    let server = Server::start(Options { encryption: Encryption::Off, ..Options::default() }).expect("a server");
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, server.ca_pem()).expect("a file");
    assert_eq!(python(&server, &["--ca", text(&ca), "--login-only"]), COMPARED);
    assert_eq!(python(&server, &[]), COMPARED);
    assert_eq!(server.unknown(), Vec::<String>::new());
}

#[test]
fn python_tds_does_not_trust_another_authority() {
    let server = Server::start(Options::default()).expect("a server");
    let other = Server::start(Options::default()).expect("a server");
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, other.ca_pem()).expect("a file");
    let refused = run(&mut script(&server, &["--ca", text(&ca)]));
    assert_ne!(refused.code, 0, "{refused:#?}");
    assert!(refused.stderr.contains("certificate verify failed"), "{refused:#?}");
}

#[test]
fn freetds_reads_what_is_there_and_is_told_its_errors() {
    let server = freetds_server(Encryption::Off);
    server
        .batch(
            "CREATE TABLE [dbo].[人] ([id] int NOT NULL PRIMARY KEY, [名] nvarchar(20) NULL, [钱] money NULL, \
             [数] decimal(38,10) NULL, [旧] varchar(20) NULL, [日] date NULL); \
             INSERT INTO [dbo].[人] VALUES (1, N'张三😀', 922337203685477.5807, 0.0000000123, N'驿站', '2024-02-29'), \
             (2, NULL, NULL, NULL, NULL, NULL)",
        )
        .expect("rows");
    for encryption in ["off", "request"] {
        let said = tsql(&server, encryption, "SELECT * FROM [dbo].[人] ORDER BY [id]\nGO\n");
        let rows: Vec<&str> = said.lines().collect();
        let first = rows.iter().find(|row| row.starts_with("1\t")).unwrap_or_else(|| panic!("{said}"));
        let values: Vec<&str> = first.split('\t').collect();
        assert_eq!(values[1..5], ["张三😀", "922337203685477.5807", "0.0000000123", "驿站"], "{said}");
        assert!(rows.iter().any(|row| row.starts_with("2\tNULL\tNULL\tNULL\tNULL")), "{said}");
    }
    let said = tsql(&server, "off", "INSERT INTO [dbo].[人] ([id]) VALUES (1)\nGO\nSELECT 40 + 2\nGO\n");
    assert!(said.contains("2627") && said.contains("42"), "an error, and the connection serves on: {said}");
    assert_eq!(server.unknown(), Vec::<String>::new());
}

#[test]
fn freetds_speaks_tls_to_the_servers_authority() {
    let server = freetds_server(Encryption::Required);
    let said = tsql(&server, "require", "SELECT N'驿站', @@SPID\nGO\n");
    assert!(said.contains("驿站"), "{said}");
    let sqsh = bsqldb(&server, "SELECT CAST(12.34 AS decimal(9,2)), CAST(N'字' AS nvarchar(5))\ngo\n");
    assert!(sqsh.contains("12.34") && sqsh.contains('字'), "{sqsh}");
    assert_eq!(server.unknown(), Vec::<String>::new());
}

#[test]
fn what_is_not_known_is_an_error_for_a_foreign_client_too_and_is_noted() {
    let server = freetds_server(Encryption::Off);
    let said = tsql(&server, "off", "MERGE INTO t USING u ON 1 = 1 WHEN MATCHED THEN DELETE;\nGO\n");
    assert!(said.contains("Msg"), "{said}");
    assert!(!server.unknown().is_empty(), "{said}");
}

#[test]
fn a_line_that_is_cut_in_the_middle_of_a_result_is_an_error_and_no_shorter_result() {
    let server = freetds_server(Encryption::Off);
    server.batch("CREATE TABLE [dbo].[n] ([id] int NOT NULL PRIMARY KEY, [t] nvarchar(200) NULL)").expect("a table");
    for first in (0..2000).step_by(500) {
        let rows: Vec<String> = (first..first + 500).map(|id| format!("({id}, N'{}')", "行".repeat(100))).collect();
        server.batch(&format!("INSERT INTO [dbo].[n] VALUES {}", rows.join(", "))).expect("rows");
    }
    server.fault(Fault::CutAfterSent(100_000));
    let said = tsql(&server, "off", "SELECT * FROM [dbo].[n]\nGO\n");
    let rows = |said: &str| said.lines().filter(|line| line.contains("行行")).count();
    assert!(rows(&said) < 2000, "{} rows", rows(&said));
    assert!(server.faults_left().is_empty(), "the line was cut");
    assert_eq!(rows(&tsql(&server, "off", "SELECT * FROM [dbo].[n]\nGO\n")), 2000);
}

/// How many values the script compared.
fn python(server: &Server, more: &[&str]) -> u64 {
    let said = run(&mut script(server, more)).ok().json();
    said["compared"].as_u64().unwrap_or_default()
}

fn script(server: &Server, more: &[&str]) -> Command {
    let python = std::env::var("POSTHOUSE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verify/tds.py");
    let options = server.options();
    let mut command = Command::new(python);
    command.arg(script).args(["localhost", &server.addr().port().to_string()]);
    command.args([&options.user, &options.password, &options.database]).args(more);
    command
}

fn freetds_server(encryption: Encryption) -> Server {
    let options = Options { password: "pass word-1".to_owned(), encryption, ..Options::default() };
    Server::start(options).expect("a server")
}

pub(crate) fn tsql(server: &Server, encryption: &str, statements: &str) -> String {
    freetds(server, encryption, statements, "tsql", &["-o", "q"])
}

fn bsqldb(server: &Server, statements: &str) -> String {
    freetds(server, "require", statements, "bsqldb", &[])
}

/// What a program of FreeTDS says to statements on its input, both its outputs together.
fn freetds(server: &Server, encryption: &str, statements: &str, program: &str, more: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, server.ca_pem()).expect("a file");
    let file = folder.path().join("freetds.conf");
    let port = server.addr().port();
    let content = format!(
        "[global]\ntds version = 7.4\nclient charset = UTF-8\n[test]\nhost = localhost\nport = {port}\n\
         encryption = {encryption}\nca file = {}\ncheck certificate hostname = yes\n",
        ca.display()
    );
    std::fs::write(&file, content).expect("a file");
    let options = server.options();
    let mut child = Command::new(program)
        .args(["-S", "test", "-U", &options.user, "-P", &options.password, "-D", &options.database])
        .args(more)
        .env("FREETDSCONF", &file)
        .env("FREETDS", &file)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().expect("its input").write_all(statements.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("its end");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// What the script compares, and none of it less: of 34 types twice a value with the names and the end of its result
/// (72), NULL in a row and alone (69), 16 parameters, 35 of bulk copies, 10 errors and a wrong password, 4 results, 5 of
/// transactions.
const COMPARED: u64 = 212;
