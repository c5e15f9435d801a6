//! The client against a real server: ways to be let in, statements, COPY of many and of huge rows, and each way in which
//! a connection is lost or a row refused.

mod copying;
mod letting_in;
mod strange_servers;

use super::*;
use crate::postgres::test_server::{TestServer, kill};

#[test]
fn a_statement_takes_parameters_and_gives_rows_of_text() {
    let mut client = TestServer::shared().owner();
    let rows = client
        .query(
            "SELECT $1::int8 + 1, $2::text, $3::text IS NULL, NULL, g FROM generate_series(1, 3) g ORDER BY g",
            &[Some("41"), Some("住建局 'x' \\ \n"), None],
        )
        .unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[2].number::<i64>(0).unwrap(), 42);
    assert_eq!(rows[2].text(1).unwrap(), "住建局 'x' \\ \n");
    assert!(rows[2].flag(2).unwrap());
    assert_eq!(rows[2].optional(3), None);
    assert_eq!(rows[2].number::<u8>(4).unwrap(), 3);
    assert!(matches!(rows[0].text(3), Err(WireError::Protocol(_))));
    assert!(matches!(rows[0].number::<u8>(1), Err(WireError::Protocol(_))));
    assert!(matches!(rows[0].flag(1), Err(WireError::Protocol(_))));
    assert!(client.query("SELECT 1 WHERE false", &[]).unwrap().is_empty());
    assert!(matches!(client.query("SELECT 'a\0b'", &[]), Err(WireError::Protocol(_))));
    assert_eq!(client.query("SELECT 1", &[]).unwrap().len(), 1);
}

#[test]
fn touched_rows_are_counted_and_transactions_are_seen() {
    let mut client = TestServer::shared().owner();
    client.batch("CREATE TEMPORARY TABLE t (a int PRIMARY KEY); CREATE INDEX ON t (a)").unwrap();
    assert_eq!(client.execute("INSERT INTO t SELECT generate_series(1, $1::int)", &[Some("5")]).unwrap(), 5);
    assert_eq!(client.execute("DELETE FROM t WHERE a > 3", &[]).unwrap(), 2);
    assert_eq!(client.execute("CREATE TEMPORARY TABLE u ()", &[]).unwrap(), 0);
    assert_eq!(client.transaction_status(), TransactionStatus::Idle);
    client.batch("BEGIN").unwrap();
    assert_eq!(client.transaction_status(), TransactionStatus::Open);
    let error = client.execute("INSERT INTO t VALUES (1)", &[]).unwrap_err();
    assert!(error.is_refusal() && !error.is_lost(), "{error}");
    let WireError::Server(told) = error else { panic!("{error}") };
    assert_eq!((told.severity.as_str(), told.sqlstate.as_str()), ("ERROR", "23505"));
    assert_eq!((told.table.as_deref(), told.constraint.as_deref()), (Some("t"), Some("t_pkey")));
    assert_eq!(told.detail.as_deref(), Some("Key (a)=(1) already exists."));
    assert_eq!(client.transaction_status(), TransactionStatus::Failed);
    client.batch("ROLLBACK").unwrap();
    assert_eq!(client.transaction_status(), TransactionStatus::Idle);
    let error = client.batch("INSERT INTO t VALUES (9); SELECT no_such_column").unwrap_err();
    assert_eq!(error.sqlstate(), Some("42703"));
    assert_eq!(client.query("SELECT count(*) FROM t", &[]).unwrap()[0].text(0).unwrap(), "3");
}

#[test]
fn every_session_renders_values_alike() {
    let server = TestServer::shared();
    let preferences = "ALTER ROLE odd SET DateStyle = 'German'; ALTER ROLE odd SET TimeZone = 'Asia/Shanghai';
        ALTER ROLE odd SET bytea_output = 'escape'; ALTER ROLE odd SET search_path = public;
        ALTER ROLE odd SET extra_float_digits = 0; ALTER ROLE odd SET IntervalStyle = 'iso_8601';
        ALTER ROLE odd SET statement_timeout = 7000; ALTER ROLE odd SET idle_in_transaction_session_timeout = 7000";
    server.owner().batch(preferences).unwrap();
    // Another server's dialect changes nothing here.
    let said = [("statement_timeout", "90s"), ("dialect", "kingbase")];
    let mut client = Client::connect(&server.by_tcp("127.0.0.1", "odd", &said)).unwrap();
    let shown = client
        .query(
            "SELECT timestamptz '2026-01-02 03:04:05+08', '\\x00ff'::bytea, interval '1 day 2 hours', 0.1::float8 + 0.2,
               current_setting('search_path'), current_setting('application_name'),
               current_setting('statement_timeout'), current_setting('client_encoding'), current_setting('lc_monetary'),
               current_setting('idle_in_transaction_session_timeout')",
            &[],
        )
        .unwrap();
    let shown: Vec<_> = (0..10).map(|column| shown[0].text(column).unwrap()).collect();
    let expected = [
        "2026-01-01 19:04:05+00",
        "\\x00ff",
        "1 day 02:00:00",
        "0.30000000000000004",
        "pg_catalog",
        "posthouse",
        "90s",
        "UTF8",
        "C",
        "0",
    ];
    assert_eq!(shown, expected);
    assert!(client.version() >= 90_000);
    assert_eq!(client.parameter("server_encoding"), Some("UTF8"));
    assert_eq!(client.parameter("no_such"), None);
}

#[test]
fn an_error_that_quotes_a_huge_value_is_cut_and_the_session_goes_on() {
    let mut client = TestServer::shared().owner();
    let error = client.query("SELECT repeat('y', 5000000)::int4", &[]).unwrap_err();
    assert!(error.is_refusal());
    let WireError::Server(told) = error else { panic!("{error}") };
    assert_eq!(told.sqlstate, "22P02");
    assert!((1_000_000..2_000_000).contains(&told.message.len()), "{}", told.message.len());
    assert_eq!(client.query("SELECT 1", &[]).unwrap().len(), 1);
}

#[test]
fn notices_of_any_number_are_passed_over() {
    let mut client = TestServer::shared().owner();
    client.batch("SET client_min_messages = notice").unwrap();
    client.batch("DO $$ BEGIN FOR i IN 1..2000 LOOP RAISE NOTICE 'n %', i; END LOOP; END $$").unwrap();
    assert_eq!(client.query("SELECT 1", &[]).unwrap().len(), 1);
}

#[test]
fn a_cancel_from_another_thread_stops_a_statement_and_not_the_session() {
    let mut client = TestServer::shared().owner();
    let cancel = client.cancel_handle();
    let canceller = std::thread::spawn(move || {
        // Until the statement runs there is nothing to stop.
        for _ in 0..20 {
            std::thread::sleep(std::time::Duration::from_millis(100));
            cancel.send().unwrap();
        }
    });
    let error = client.query("SELECT pg_sleep(60)", &[]).unwrap_err();
    assert_eq!(error.sqlstate(), Some("57014"));
    assert!(!error.is_lost() && !error.is_refusal());
    canceller.join().unwrap();
    assert_eq!(client.query("SELECT 1", &[]).unwrap().len(), 1);
}

#[test]
fn a_session_that_an_administrator_ends_is_lost() {
    let server = TestServer::shared();
    let mut client = server.owner();
    let pid = client.backend_pid().to_string();
    assert_eq!(client.query("SELECT pg_backend_pid()", &[]).unwrap()[0].text(0).unwrap(), pid);
    let ended = "SELECT pg_terminate_backend($1::int, 5000)";
    assert!(server.owner().query(ended, &[Some(&pid)]).unwrap()[0].flag(0).unwrap());
    let error = client.query("SELECT 1", &[]).unwrap_err();
    assert_eq!(error.sqlstate(), Some("57P01"), "{error}");
    assert!(error.is_lost() && client.is_broken());
    let error = client.query("SELECT 1", &[]).unwrap_err();
    assert!(matches!(error, WireError::Io(_)) && error.is_lost());
}

#[test]
fn a_killed_backend_and_a_killed_server_are_a_lost_connection() {
    let server = TestServer::start();
    let mut client = server.owner();
    let mut beside = server.owner();
    kill(client.backend_pid());
    assert!(client.query("SELECT pg_sleep(1)", &[]).unwrap_err().is_lost());
    // The server ends everybody else's session too, and starts over.
    assert!(beside.query("SELECT pg_sleep(5)", &[]).unwrap_err().is_lost());

    let mut client = server.wait();
    client.batch("CREATE TABLE public.t (a bytea)").unwrap();
    let pid = client.backend_pid();
    let mut copy = client.copy_in("COPY public.t FROM STDIN").unwrap();
    server.kill();
    kill(pid);
    let bytes = vec![b'x'; 1 << 20];
    let error = loop {
        if let Err(error) = copy.write(&bytes) {
            break error;
        }
    };
    assert!(error.is_lost(), "{error}");
    drop(copy);
    assert!(client.is_broken());
    let error = Client::connect(&server.by_socket("owner", &[])).map(|_| ()).unwrap_err();
    assert!(error.is_lost(), "{error}");
}
