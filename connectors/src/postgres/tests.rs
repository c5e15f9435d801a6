//! The suite on PostgreSQL, and what PostgreSQL alone can do wrong: tables that others depend on, readers that
//! look while a table is replaced, constraints and triggers that refuse rows, accounts that may only read and
//! write rows, rows in the server's own form.

mod charsets;
mod examining;
mod incremental;
mod native;
mod pushed;
mod refusing;
mod replacing;
mod splitting;
mod taking_over;

use super::test_server::{OWNER, TestServer};
use super::*;
use crate::contract::{Bench, Rows, item, land, landing, people, small, spec, standing};
use crate::{Published, RawRows, Read};
use posthouse_protocol::batch::{BatchBuilder, Value};
use posthouse_protocol::format::Native;
use posthouse_protocol::job::Write;
use posthouse_protocol::schema::{Contract, ContractType};
use posthouse_protocol::watermark::Watermark;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// A database of its own on the one server.
struct PgBench {
    server: &'static TestServer,
    database: String,
    user: String,
    control: Option<String>,
    charset: Option<&'static str>,
    is_lost: AtomicBool,
}

impl PgBench {
    fn settings(&self, user: &str) -> crate::Settings {
        let (folder, port) = self.server.socket();
        let port = if self.is_lost.load(Ordering::Relaxed) { 1 } else { port };
        let url = match user {
            OWNER => format!("postgres://{user}@/{}?host={}&port={port}", self.database, folder.display()),
            user => format!("postgres://{user}@127.0.0.1:{port}/{}", self.database),
        };
        let control = self.control.iter().map(|control| ("control_schema".to_owned(), control.as_str().into()));
        let charset = self.charset.iter().map(|charset| ("charset".to_owned(), (*charset).into()));
        control.chain(charset).chain([("url".to_owned(), url.into())]).collect()
    }
    fn on(server: &'static TestServer) -> Self {
        Self::with(server, "", None)
    }
    fn with(server: &'static TestServer, options: &str, charset: Option<&'static str>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let database = format!("bench_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        server.owner().batch(&format!("CREATE DATABASE {database} {options}")).unwrap();
        Self { server, database, user: OWNER.to_owned(), control: None, charset, is_lost: AtomicBool::new(false) }
    }
    fn connection(&self) -> Box<dyn Connection> {
        Postgres.connect("db", &self.settings(&self.user)).unwrap()
    }
    fn client(&self) -> Client {
        let mut client = Client::connect(&parse("db", &self.settings(OWNER)).unwrap()).unwrap();
        client.batch("SET search_path TO DEFAULT").unwrap();
        client
    }
    fn run(&self, sql: &str) {
        self.client().batch(sql).unwrap();
    }
    /// The one value, or the rows' first values on lines.
    fn text(&self, sql: &str) -> String {
        let rows = self.client().query(sql, &[]).unwrap();
        rows.iter().map(|row| row.optional(0).unwrap_or("NULL").to_owned()).collect::<Vec<_>>().join("\n")
    }
    fn reasons(&self) -> String {
        self.text("SELECT key || ' ' || coalesce(sqlstate, '-') || ' ' || reason FROM posthouse_quarantine ORDER BY at, number")
    }
    fn leftovers(&self) -> String {
        self.text("SELECT relname FROM pg_class WHERE relname ~ '^posthouse_(staging|new|refused)' AND relkind = 'r'")
    }
}

impl Bench for PgBench {
    const KEYED: bool = true;
    const HOLDS_NUL: bool = false;
    const HAS_OWN_COLUMNS: bool = true;
    const TAKES_SEVERAL: bool = true;
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
        let natives: Vec<_> = contract.items.iter().map(|item| ddl::of_contract(item.r#type)).collect();
        let name = catalog::TableName::parse(table).unwrap();
        let key: Vec<String> = ddl::primary_key(&contract.key).into_iter().collect();
        self.run(&ddl::create_table(&name, &ddl::made(&contract, &natives, 150_000), &key));
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

crate::contract::suite!(PgBench);

/// The bytes of a binary COPY, as a provider hands them over, cut anywhere.
struct Raw {
    bytes: Vec<u8>,
    piece: usize,
    at: usize,
}

impl Raw {
    fn of(bench: &PgBench, query: &str, piece: usize) -> Self {
        let (mut client, mut bytes) = (bench.client(), Vec::new());
        let mut copy = client.copy_out(&format!("COPY ({query}) TO STDOUT (FORMAT binary)"), None).unwrap();
        while copy.fill(&mut bytes, usize::MAX).unwrap() == wire::Copied::More {}
        Self { bytes, piece, at: 0 }
    }
}

impl RawRows for Raw {
    fn next(&mut self) -> Result<Option<&[u8]>, Problem> {
        let from = self.at;
        self.at = (from + self.piece).min(self.bytes.len());
        Ok((from < self.at).then(|| &self.bytes[from..self.at]))
    }
    fn rewind(&mut self) -> Result<(), Problem> {
        self.at = 0;
        Ok(())
    }
}

/// A landing of native rows: pairs of a column's name and its type in the format's grammar.
fn native(number: u8, write: Write, columns: &[(&str, &str)], key: &[&str]) -> Landing {
    let mut items = Vec::new();
    for (name, native) in columns {
        let native: posthouse_protocol::pgcopy::NativeType = native.parse().unwrap();
        let mut item = item(name, native.contract_type());
        item.nullable = !key.contains(name);
        items.push(item);
    }
    let contract = Contract { items, key: key.iter().map(|name| (*name).to_owned()).collect() };
    let natives = columns.iter().map(|(_, native)| (*native).to_owned()).collect();
    Landing { native: Some(Native::new(Format::PgCopy, natives)), ..landing(number, write, &contract) }
}

/// Prepares, stages the rows of a query as one split, and publishes; how many were refused on staging.
fn land_raw(bench: &PgBench, landing: &Landing, query: &str, piece: usize) -> (usize, Published) {
    let mut destination = bench.destination(landing).unwrap();
    destination.prepare().unwrap();
    let staged = destination.stage_raw("only", [1; 32], &mut Raw::of(bench, query, piece)).unwrap();
    (staged.bad.len(), destination.publish().unwrap())
}

const TARGET: &str = "\"人口 base\"";

#[test]
fn identity_and_generated_columns_are_the_tables_own_business() {
    let bench = PgBench::new();
    let contract = small();
    let make = |identity: &str| {
        format!(
            "DROP TABLE IF EXISTS {TARGET}; CREATE TABLE {TARGET} (id bigint {identity} PRIMARY KEY, name text, seen timestamp,
             upper text GENERATED ALWAYS AS (upper(name)) STORED, number bigserial)"
        )
    };
    let mut number = 0;
    for identity in ["GENERATED ALWAYS AS IDENTITY", "GENERATED BY DEFAULT AS IDENTITY", "NOT NULL"] {
        bench.run(&make(identity));
        for write in [Write::Append, Write::Upsert, Write::Replace, Write::Mirror, Write::Replace] {
            number += 1;
            let published =
                land(&bench, &landing(number, write, &contract), people(&contract, &[(4, "ab", 1), (9, "cd", 2)]));
            assert_eq!((published.rows, published.quarantined), (2, 0), "{identity} {write}");
            assert_eq!(
                bench.text(&format!("SELECT string_agg(id || upper, ',' ORDER BY id) FROM {TARGET}")),
                "4AB,9CD"
            );
        }
    }
    // A column that the resource has, and the table computes.
    let mut wider = contract.clone();
    wider.items.push(item("upper", ContractType::Text));
    let mut builder = BatchBuilder::new(&wider);
    builder.push(&[Value::Integer(1), Value::Text("x"), Value::Null, Value::Text("X")]).unwrap();
    for write in [Write::Replace, Write::Upsert] {
        number += 1;
        let mut builder = BatchBuilder::new(&wider);
        builder.push(&[Value::Integer(1), Value::Text("x"), Value::Null, Value::Text("X")]).unwrap();
        land(&bench, &landing(number, write, &wider), builder.finish().unwrap());
        assert_eq!(bench.text(&format!("SELECT upper FROM {TARGET} WHERE id = 1")), "X");
    }
}

#[test]
fn names_of_any_kind_are_names() {
    let bench = PgBench { control: Some("控制 \"c\"".to_owned()), ..PgBench::new() };
    bench.run("CREATE SCHEMA \"select\"; CREATE SCHEMA \"控制 \"\"c\"\"\"");
    let mut contract = small();
    for (item, name) in contract.items.iter_mut().zip(["order", "na\"me'; --", "时间"]) {
        item.name = name.to_owned();
    }
    contract.key = vec!["order".to_owned()];
    for (number, write) in
        [Write::Append, Write::Upsert, Write::Mirror, Write::Replace, Write::Append].into_iter().enumerate()
    {
        let mut landing = landing(number as u8, write, &contract);
        landing.table = "select.\"ta.\"\"ble\"".to_owned();
        let rows = people(&contract, &[(1, "王", 1), (1, "李", 1), (2, "", 2)]);
        let published = land(&bench, &landing, rows);
        assert_eq!((published.rows, published.quarantined), (2, 1), "{write}");
        let mut rows = Rows::default();
        assert_eq!(bench.destination(&landing).unwrap().read_standing(None, &mut rows).unwrap(), 2);
    }
    assert_eq!(bench.text("SELECT count(*) FROM \"控制 \"\"c\"\"\".posthouse_quarantine"), "5");
    assert_eq!(bench.text("SELECT string_agg(relname, ',') FROM pg_class WHERE relnamespace = 'select'::regnamespace AND relkind = 'r'"), "ta.\"ble");
}

#[test]
fn an_account_without_the_right_to_create_lands_by_the_script() {
    let mut bench = PgBench::new();
    let contract = small();
    bench.run(&format!(
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC; GRANT CONNECT ON DATABASE {} TO \"trust\"",
        bench.database
    ));
    bench.user = "trust".to_owned();
    let script = |landing: &Landing| {
        let landings = [landing.clone(), landing.clone()];
        Postgres.script("db", &bench.settings("trust"), &[], &landings).unwrap().unwrap()
    };
    let first = landing(1, Write::Replace, &contract);
    let problem = bench.destination(&first).unwrap().prepare().unwrap_err();
    assert!(
        problem.code == Code::DestinationFailed && problem.cause.contains("doctor --config FILE --sql"),
        "{problem}"
    );
    let made = script(&first);
    bench.run(&made);
    bench.run(&made);
    let rows = |names: [&str; 2]| people(&contract, &[(1, names[0], 1), (2, names[1], 2), (1, "again", 3)]);
    for (number, write) in
        [Write::Replace, Write::Append, Write::Upsert, Write::Mirror, Write::Replace].into_iter().enumerate()
    {
        let landing = landing(number as u8, write, &contract);
        // What another transfer of the job has staged is not touched.
        let mut other = bench.destination(&landing_other(&contract, number as u8)).unwrap();
        other.prepare().unwrap();
        other.stage("x", [1; 32], &mut [Ok(people(&contract, &[(77, "other", 1)]))].into_iter()).unwrap();
        let published = land(&bench, &landing, rows(["王", "李"]));
        assert_eq!((published.rows, published.quarantined), (2, 1), "{write}");
        assert_eq!(bench.text(&format!("SELECT string_agg(name, ',' ORDER BY id) FROM {TARGET}")), "王,李", "{write}");
        assert_eq!(bench.text("SELECT count(*) FROM posthouse_staging_suite"), "1");
        other.discard().unwrap();
        assert_eq!(bench.text("SELECT count(*) FROM posthouse_staging_suite"), "0");
    }
    let dry = bench.destination(&landing(9, Write::Replace, &contract)).unwrap().dry_run().unwrap().join("\n");
    assert!(dry.contains("belongs to the account owner"), "{dry}");
}

#[test]
fn rows_that_say_what_they_do_land_by_the_script_beside_others_that_do_not() {
    let mut bench = PgBench::new();
    let contract = small();
    bench.run(&format!(
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC; GRANT CONNECT ON DATABASE {} TO \"trust\"",
        bench.database
    ));
    bench.user = "trust".to_owned();
    let of = |number: u8| Landing {
        operation: Some(posthouse_protocol::operation::COLUMN.to_owned()),
        ..landing(number, Write::Upsert, &contract)
    };
    bench.run(&Postgres.script("db", &bench.settings("trust"), &[], &[of(1)]).unwrap().unwrap());
    let changes = crate::contract::fronts::changes;
    let first = land(&bench, &of(1), changes(&of(1), &[(1, "王", "I"), (2, "李", "I")]));
    assert_eq!((first.rows, first.inserted, first.deleted), (2, 2, 0));
    let second = land(&bench, &of(2), changes(&of(2), &[(2, "", "D"), (3, "赵", "U"), (9, "", "D")]));
    assert_eq!((second.rows, second.inserted, second.deleted), (3, 1, 1));
    land(&bench, &landing(3, Write::Upsert, &contract), people(&contract, &[(4, "钱", 4)]));
    assert_eq!(bench.text(&format!("SELECT string_agg(name, ',' ORDER BY id) FROM {TARGET}")), "王,赵,钱");
    assert_eq!(bench.text("SELECT count(*) FROM posthouse_staging_suite"), "0");
}

#[test]
fn the_script_grants_what_is_read_and_nothing_else() {
    let mut bench = PgBench::new();
    bench.run(r#"CREATE SCHEMA "源"; CREATE TABLE "源"."Ta""b" (id bigint); INSERT INTO "源"."Ta""b" VALUES (1)"#);
    bench.user = "trust".to_owned();
    let named = spec(r#"源."Ta""b""#);
    let query = TableSpec { table: None, query: Some("SELECT 1 AS id".to_owned()), ..named.clone() };
    let reads = [named.clone(), named.clone(), query];
    let made = Postgres.script("db", &bench.settings("trust"), &reads, &[]).unwrap().unwrap();
    assert_eq!(made.lines().filter(|line| line.starts_with("GRANT ")).count(), 2, "{made}");
    assert!(made.lines().any(|line| line.starts_with("-- node.example/suite is a query")), "{made}");
    let begun = |bench: &PgBench| bench.source(&named).unwrap().begin(&Read::default()).map(|plan| plan.splits.len());
    assert_eq!(begun(&bench).map_err(|problem| problem.code), Err(Code::SourceFailed));
    bench.run(&made);
    assert_eq!(begun(&bench).map_err(|problem| problem.code), Ok(1));
    assert_eq!(bench.text("SELECT has_table_privilege('trust', '\"源\".\"Ta\"\"b\"', 'INSERT')"), "f");
}

/// Another transfer of the same job.
fn landing_other(contract: &Contract, number: u8) -> Landing {
    landing(100 + number, Write::Append, contract)
}

#[test]
fn a_connection_that_was_lost_is_opened_again() {
    let bench = PgBench::new();
    let contract = small();
    let landing = landing(1, Write::Append, &contract);
    let mut destination = bench.destination(&landing).unwrap();
    let cut = || {
        bench.text(&format!("SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid()", bench.database))
    };
    destination.prepare().unwrap();
    assert_eq!(cut(), "1");
    destination.stage("a", [1; 32], &mut [Ok(people(&contract, &[(1, "王", 1)]))].into_iter()).unwrap();
    // Within a split: nothing of it stays, and the next call goes on.
    let mut batches = [0, 1].into_iter().map(|number| {
        if number == 1 {
            cut();
        }
        Ok(people(&contract, &[(10 + number, "李", 1)]))
    });
    let problem = destination.stage("b", [2; 32], &mut batches).unwrap_err();
    assert_eq!(problem.code, Code::ConnectionFailed, "{problem}");
    assert_eq!(destination.applied().unwrap().len(), 1);
    destination.stage("b", [2; 32], &mut [Ok(people(&contract, &[(2, "李", 1)]))].into_iter()).unwrap();
    cut();
    assert_eq!(destination.publish().unwrap().rows, 2);
    cut();
    assert_eq!(destination.published().unwrap().unwrap().rows, 2);
    cut();
    assert_eq!(standing(&bench, &landing).count(), 2);
}

#[test]
fn a_target_without_the_keys_uniqueness_is_changed_under_a_lock() {
    let bench = PgBench::new();
    bench.run(&format!("CREATE TABLE {TARGET} (id numeric, name varchar(10), seen timestamp(3), mine int DEFAULT 7)"));
    let contract = small();
    let all: Vec<(i64, &str, i64)> = (0..30).map(|id| (id, "王", id)).collect();
    let published = land(&bench, &landing(1, Write::Upsert, &contract), people(&contract, &all));
    assert_eq!((published.inserted, published.updated), (30, 0));
    let mut some = all.clone();
    some[3].1 = "李";
    some.push((3, "twice", 3));
    some.push((99, "", 9));
    let published = land(&bench, &landing(2, Write::Upsert, &contract), people(&contract, &some));
    assert_eq!((published.inserted, published.updated, published.quarantined), (1, 1, 1));
    let published = land(&bench, &landing(3, Write::Mirror, &contract), people(&contract, &some[..30]));
    assert_eq!((published.inserted, published.updated, published.deleted), (0, 0, 1));
    let published = land(
        &bench,
        &landing(4, Write::Append, &contract),
        people(&contract, &[(3, "赵", 3), (50, "钱", 5), (0, "王", 0)]),
    );
    assert_eq!((published.rows, published.inserted, published.quarantined), (2, 1, 1));
    assert!(bench.reasons().contains("3 - its key is there with other contents"), "{}", bench.reasons());
    assert_eq!(bench.text(&format!("SELECT count(*) || sum(mine)::text FROM {TARGET}")), "31217");
    let dry = bench.destination(&landing(5, Write::Replace, &contract)).unwrap().dry_run().unwrap();
    assert!(dry[0].contains("stands with 31 rows"), "{dry:?}");
}

#[test]
fn a_standing_table_is_read_up_to_a_mark_and_as_the_contract_has_it() {
    let bench = PgBench::new();
    bench.run(
        "CREATE TABLE t (id numeric PRIMARY KEY, seen timestamptz, day date, word text, amount numeric);
         INSERT INTO t VALUES (1, '2020-01-01 08:00+08', '2020-01-01', 'B', 1.50), (2, '2020-01-02', '2020-01-02', 'a', 2),
           (3, NULL, NULL, NULL, NULL), (4, '2020-01-02 00:00:01', '2020-01-03', 'b', 4.123), (5.5, NULL, NULL, NULL, NULL)",
    );
    let mut id = item("id", ContractType::Integer);
    id.nullable = false;
    let amount = ContractType::Decimal { precision: 10, scale: 2 };
    let items = vec![
        id,
        item("seen", ContractType::Timestamp),
        item("day", ContractType::Date),
        item("word", ContractType::Text),
        item("amount", amount),
    ];
    let contract = Contract { items, key: vec!["id".to_owned()] };
    let second = types_timestamp("2020-01-02 00:00:00");
    for (mark, to, expected, bad) in [
        ("seen", Watermark::Timestamp(second), 3, 1),
        ("day", Watermark::Timestamp(second), 3, 1),
        ("word", Watermark::Text("a".to_owned()), 3, 1),
        ("id", Watermark::Integer(3), 3, 0),
        ("id", Watermark::Integer(9), 3, 2),
    ] {
        let mut landing = landing(1, Write::Append, &contract);
        (landing.table, landing.watermark_column) = ("t".to_owned(), Some(mark.to_owned()));
        let mut rows = Rows::default();
        let count = bench.destination(&landing).unwrap().read_standing(Some(&to), &mut rows).unwrap();
        assert_eq!((rows.count(), rows.bad.len(), count), (expected, bad, (expected + bad) as u64), "{mark}");
        assert!(
            rows.json(&contract)[0]
                .starts_with(r#"{"id":1,"seen":"2020-01-01T00:00:00Z","day":"2020-01-01","word":"B","amount":1.50}"#),
            "{:?}",
            rows.json(&contract)
        );
    }
}

fn types_timestamp(text: &str) -> i64 {
    crate::types::parse_timestamp(text).unwrap()
}
