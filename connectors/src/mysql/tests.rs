//! The suite on MariaDB, and what a server of this family alone can do wrong: values that change without an error,
//! statements that commit by themselves, accounts that may only read and write rows.

mod changing;
mod examining;
mod kills;
mod loading;
mod premade;
mod reading;
mod refusing;
mod swapping;

use super::destination::MyDestination;
use super::test_server::{GUEST, OWNER, TestServer, connect};
use super::*;
use crate::contract::{Bench, Rows, digest, item, land, landing, people, read_all, small, spec, standing};
use crate::{BadRow, Published, Read};
use posthouse_protocol::batch::{BatchBuilder, Value};
use posthouse_protocol::job::Write;
use posthouse_protocol::schema::{Contract, ContractType};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// A database of its own on the one server.
struct MyBench {
    server: &'static TestServer,
    database: String,
    user: String,
    control: Option<String>,
    is_lost: AtomicBool,
}

impl MyBench {
    fn settings(&self) -> crate::Settings {
        let url = match self.is_lost.load(Ordering::Relaxed) {
            true => format!("mysql://{OWNER}@127.0.0.1:1/{}", self.database),
            false => self.server.url(&self.user, &self.database),
        };
        let control = self.control.iter().map(|control| ("control_schema".to_owned(), control.as_str().into()));
        control.chain([("url".to_owned(), url.into())]).collect()
    }
    fn on(server: &'static TestServer) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let database = format!("bench_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        server.owner().run(&format!("CREATE DATABASE {database} CHARACTER SET utf8mb4")).unwrap();
        Self { server, database, user: OWNER.to_owned(), control: None, is_lost: AtomicBool::new(false) }
    }
    fn connection(&self) -> Box<dyn Connection> {
        Mysql.connect("db", &self.settings()).unwrap()
    }
    /// As the connector makes it, with its own ways open to a test.
    fn inner(&self, landing: &Landing) -> MyDestination {
        let settings = parse("db", &self.settings()).unwrap();
        MyDestination::new(Faults { name: "db".to_owned() }, settings, landing).unwrap()
    }
    fn client(&self) -> Client {
        connect(&self.server.url(OWNER, &self.database), &[]).unwrap()
    }
    /// Statements, one by one, in a session of the connector's own kind.
    fn run(&self, statements: &[&str]) {
        let mut client = self.client();
        for statement in statements {
            client.run(statement).unwrap_or_else(|fail| panic!("{statement}: {fail:?}"));
        }
    }
    /// The first values of the rows, on lines, as the server writes them.
    fn text(&self, sql: &str) -> String {
        let rows = self.client().ask(sql).unwrap();
        let first = |row: &mysql_async::Row| match row.as_ref(0) {
            None | Some(mysql_async::Value::NULL) => "NULL".to_owned(),
            Some(value) => client::text(value),
        };
        rows.iter().map(first).collect::<Vec<_>>().join("\n")
    }
    fn reasons(&self) -> String {
        self.text(
            "SELECT CONCAT(row_key, ' ', COALESCE(code, '-'), ' ', reason) FROM posthouse_quarantine ORDER BY number",
        )
    }
    /// What is left of transfers.
    fn leftovers(&self) -> String {
        self.text(&format!(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{}' AND TABLE_NAME LIKE 'posthouse\\_%'
             AND TABLE_NAME NOT IN ('posthouse_applied', 'posthouse_quarantine') ORDER BY 1",
            self.database
        ))
    }
    /// All rows of a table or a query as JSON, and what was refused of them.
    fn read(&self, spec: &TableSpec) -> (crate::Plan, Vec<String>, Vec<BadRow>) {
        let mut source = self.connection().source(spec).unwrap();
        let (plan, rows) = read_all(source.as_mut(), &Read::default());
        let json = rows.json(&plan.contract);
        (plan, json, rows.bad)
    }
}

impl Bench for MyBench {
    const KEYED: bool = true;
    const HOLDS_INFINITIES: bool = false;
    const HAS_OWN_COLUMNS: bool = true;
    fn new() -> Self {
        Self::on(TestServer::shared())
    }
    fn destination(&self, landing: &Landing) -> Result<Box<dyn Destination>, Problem> {
        self.connection().destination(landing)
    }
    fn source(&self, spec: &TableSpec) -> Option<Box<dyn Source>> {
        Some(self.connection().source(spec).unwrap())
    }
    fn make_strict(&self, table: &str, contract: &Contract, column: &str) -> bool {
        let mut contract = contract.clone();
        contract.items.iter_mut().filter(|item| item.name == column).for_each(|item| item.nullable = false);
        let mut client = self.client();
        let name = place::TableName::parse(table, &self.database).unwrap();
        let create = ddl::create_table(&name, &contract, &client.server, &[]).unwrap();
        client.run(&create).unwrap();
        true
    }
    const HAS_FRONT_TABLES: bool = true;
    fn front(&self, spec: &FrontSpec) -> Option<Box<dyn FrontTable>> {
        Some(self.connection().front(spec).unwrap())
    }
    fn lose(&self) {
        self.is_lost.store(true, Ordering::Relaxed);
    }
}

crate::contract::suite!(MyBench);

const TARGET: &str = "`人口 base`";

/// The suite once more, on a server that takes no files from its clients and says what it does in another dialect.
mod on_a_closed_server {
    use super::*;
    use std::sync::OnceLock;

    struct Closed(MyBench);

    impl Bench for Closed {
        const KEYED: bool = true;
        const HOLDS_INFINITIES: bool = false;
        const HAS_OWN_COLUMNS: bool = true;
        fn new() -> Self {
            static SHARED: OnceLock<TestServer> = OnceLock::new();
            let modes = "--sql-mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH,PIPES_AS_CONCAT";
            let more = [
                "--local-infile=0",
                modes,
                "--default-time-zone=+08:00",
                "--autocommit=0",
                "--lower-case-table-names=1",
            ];
            Self(MyBench::on(SHARED.get_or_init(|| TestServer::start(&more))))
        }
        fn destination(&self, landing: &Landing) -> Result<Box<dyn Destination>, Problem> {
            self.0.destination(landing)
        }
        fn source(&self, spec: &TableSpec) -> Option<Box<dyn Source>> {
            self.0.source(spec)
        }
        fn make_strict(&self, table: &str, contract: &Contract, column: &str) -> bool {
            self.0.make_strict(table, contract, column)
        }
        const HAS_FRONT_TABLES: bool = true;
        fn front(&self, spec: &FrontSpec) -> Option<Box<dyn FrontTable>> {
            self.0.front(spec)
        }
        fn lose(&self) {
            self.0.lose();
        }
    }

    crate::contract::suite!(Closed);
}

#[test]
fn a_line_is_verified_by_the_ca_that_is_named() {
    let bench = MyBench::new();
    bench.run(&[&format!("GRANT ALL ON {}.* TO '{GUEST}'@'%'", bench.database)]);
    let server = bench.server;
    let (name, ca) = (server.by_name(&bench.database), server.ca_file());
    let mut verified = connect(&name, &[("ca_file", &ca)]).unwrap();
    let cipher = verified.ask("SHOW STATUS LIKE 'Ssl_cipher'").unwrap();
    assert!(cipher[0].as_ref(1).is_some_and(|value| !client::text(value).is_empty()), "{cipher:?}");
    assert!(connect(&name, &[("tls", "require")]).is_ok());
    // The name that is dialled does not stand in the certificate, and a CA of others does not vouch for it.
    let by_number = server.url(GUEST, &bench.database);
    assert!(matches!(connect(&by_number, &[("ca_file", &ca)]), Err(Fail::Lost(_))));
    assert!(matches!(connect(&name, &[("tls", "verify-full")]), Err(Fail::Lost(_) | Fail::Problem(_))));
    let nobody = format!("mysql://nobody@127.0.0.1:{}", by_number.rsplit_once(':').unwrap().1);
    assert!(matches!(connect(&nobody, &[]), Err(Fail::Lost(why)) if why.contains("1045") || why.contains("denied")));
}

#[test]
fn a_server_that_lets_us_in_and_then_says_nothing_is_left() {
    // It runs a statement of its own first, for all but its owner: not one long sleep, which ends with what the client asks.
    let server = TestServer::start(&["--init-connect=BEGIN NOT ATOMIC WHILE 1 DO DO SLEEP(1); END WHILE; END"]);
    let silent = connect(&server.url(GUEST, "information_schema"), &[]);
    assert!(matches!(&silent, Err(Fail::Lost(why)) if why.contains("let us in")), "{:?}", silent.err());
    assert!(connect(&server.url(OWNER, "mysql"), &[]).is_ok());
}

#[test]
fn rows_that_nobody_wants_any_more_are_not_waited_for() {
    let bench = MyBench::new();
    let mut client = bench.client();
    let some = |client: &mut Client, sql: &str| {
        let mut rows = client.stream(sql, vec![]).unwrap();
        assert!(rows.fill(&mut Vec::new()).unwrap(), "there are more");
    };
    // What comes soon is taken in, and the session goes on.
    some(&mut client, "SELECT seq FROM seq_1_to_20000");
    assert_eq!(client.count("SELECT 7", vec![]).unwrap(), 7);
    // These would take an hour.
    some(&mut client, "SELECT seq, SLEEP(IF(seq > 5000, 0.1, 0)) FROM seq_1_to_40000");
    assert!(matches!(client.run("SELECT 1"), Err(Fail::Lost(_))));
}

#[test]
fn a_session_is_the_same_whatever_the_account_is_set_to() {
    let bench = MyBench::new();
    let mut client = bench.client();
    let asked =
        client.ask("SELECT CONCAT_WS(' ', @@time_zone, @@autocommit, @@character_set_client, @@sql_notes)").unwrap();
    assert_eq!(client::text(asked[0].as_ref(0).unwrap()), "+00:00 ON utf8mb4 ON");
    assert!(client.server.mariadb && client.server.packet_max >= 1 << 20, "{:?}", client.server);
}
