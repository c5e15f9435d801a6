//! COPY: the same bytes out as in, memory that does not know how large a row is, and every way in which one ends early.

use super::*;

const TABLE: &str = "(id int8, name text, paid numeric, at timestamptz, note bytea)";

/// A table of `rows` rows that differ.
fn filled(client: &mut Client, name: &str, rows: u32) {
    let sql = format!(
        "CREATE TEMPORARY TABLE {name} {TABLE}; INSERT INTO {name} SELECT g, '名字 ' || g, g / 7.0, \
         to_timestamp(g * 1000.5), CASE WHEN g % 3 > 0 THEN decode(md5(g::text), 'hex') END FROM generate_series(1, {rows}) g"
    );
    client.batch(&sql).unwrap();
}

fn read_all(client: &mut Client, sql: &str, step: usize) -> (Vec<u8>, u64) {
    read_to_end(client.copy_out(sql, None).unwrap(), step)
}

fn read_to_end(mut copy: CopyOut<'_>, step: usize) -> (Vec<u8>, u64) {
    let mut all = Vec::new();
    loop {
        let target = all.len() + step;
        match copy.fill(&mut all, target).unwrap() {
            Copied::More => assert_eq!(all.len(), target),
            Copied::End(rows) => return (all, rows),
        }
    }
}

#[test]
fn what_is_copied_out_and_in_again_is_the_same() {
    let mut client = TestServer::shared().owner();
    filled(&mut client, "a", 100_000);
    client.batch(&format!("CREATE TEMPORARY TABLE b {TABLE}")).unwrap();
    for (format, step) in [("binary", 1 << 20), ("binary", 777), ("text", 64 << 10)] {
        let (bytes, rows) = read_all(&mut client, &format!("COPY a TO STDOUT (FORMAT {format})"), step);
        assert_eq!(rows, 100_000);
        assert_eq!(format == "binary", bytes.starts_with(b"PGCOPY\n\xff\r\n\0"));
        for step in [1 << 30, 300_000, 1_001] {
            client.batch("TRUNCATE b").unwrap();
            let mut copy = client.copy_in(&format!("COPY b FROM STDIN (FORMAT {format})")).unwrap();
            bytes.chunks(step).for_each(|piece| copy.write(piece).unwrap());
            assert_eq!(copy.finish().unwrap(), 100_000);
            let differ = "SELECT count(*) FROM a FULL JOIN b USING (id) WHERE a IS DISTINCT FROM b";
            assert_eq!(client.query(differ, &[]).unwrap()[0].text(0).unwrap(), "0", "{format} {step}");
        }
    }
    assert_eq!(client.transaction_status(), TransactionStatus::Idle);
}

#[test]
fn what_is_asked_ahead_comes_next_and_passes_where_something_else_is_asked() {
    let mut client = TestServer::shared().owner();
    filled(&mut client, "a", 100_000);
    client.batch("BEGIN").unwrap();
    let part = |part: u32| format!("COPY (SELECT * FROM a WHERE id % 4 = {part}) TO STDOUT (FORMAT binary)");
    let alone: Vec<_> = (0..4).map(|at| read_all(&mut client, &part(at), 1 << 20)).collect();
    let read = |client: &mut Client, at: u32, next: Option<u32>| {
        let next = next.map(part);
        read_to_end(client.copy_out(&part(at), next.as_deref()).unwrap(), 1 << 20)
    };
    let ahead: Vec<_> = (0..4).map(|at| read(&mut client, at, Some(at + 1).filter(|next| *next < 4))).collect();
    assert!(ahead == alone && client.ahead.is_none());
    // The same once more, and then another than was asked for ahead.
    for (at, next) in [(1, Some(2)), (1, Some(2)), (3, Some(0)), (2, None)] {
        assert!(read(&mut client, at, next) == alone[at as usize]);
    }
    // A question of another kind; the transaction has seen no error.
    read(&mut client, 0, Some(1));
    assert_eq!(client.query("SELECT count(*) FROM a", &[]).unwrap()[0].text(0).unwrap(), "100000");
    assert_eq!(client.transaction_status(), TransactionStatus::Open);
    read(&mut client, 0, Some(1));
    client.batch("ROLLBACK").unwrap();
    assert_eq!(client.transaction_status(), TransactionStatus::Idle);
    // One that fails takes what was asked after it along, within a transaction.
    client.batch("BEGIN").unwrap();
    let fails = "COPY (SELECT 1 / (3 - id) FROM a) TO STDOUT";
    let mut copy = client.copy_out(fails, Some(&part(1))).unwrap();
    assert_eq!(copy.fill(&mut Vec::new(), 1 << 20).unwrap_err().sqlstate(), Some("22012"));
    drop(copy);
    assert_eq!(client.copy_out(&part(1), None).map(|_| ()).unwrap_err().sqlstate(), Some("25P02"));
    client.batch("ROLLBACK").unwrap();
    assert_eq!(read(&mut client, 1, None).1, 25_000);
    // A reader that stops early: the first is cancelled, what was asked after it passes.
    let endless = "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 300000000)) TO STDOUT";
    for (begin, status) in [("", TransactionStatus::Idle), ("BEGIN", TransactionStatus::Failed)] {
        client.batch(begin).unwrap();
        let mut copy = client.copy_out(endless, Some(&part(1))).unwrap();
        copy.fill(&mut Vec::new(), 5_000_000).unwrap();
        drop(copy);
        client.batch("").unwrap();
        assert!(!client.is_broken() && client.ahead.is_none());
        assert_eq!(client.transaction_status(), status);
        client.batch("ROLLBACK").unwrap();
        assert_eq!(read(&mut client, 1, None).1, 25_000);
    }
}

#[test]
fn a_copy_runs_under_tls_too() {
    let server = TestServer::shared();
    let mut client = Client::connect(&server.by_tcp("localhost", "trust", &[("ca_file", &server.ca_file())])).unwrap();
    filled(&mut client, "a", 50_000);
    client.batch(&format!("CREATE TEMPORARY TABLE b {TABLE}")).unwrap();
    let (bytes, rows) = read_all(&mut client, "COPY a TO STDOUT (FORMAT binary)", 1 << 20);
    assert_eq!(rows, 50_000);
    let mut copy = client.copy_in("COPY b FROM STDIN (FORMAT binary)").unwrap();
    bytes.chunks(1 << 20).for_each(|piece| copy.write(piece).unwrap());
    assert_eq!(copy.finish().unwrap(), 50_000);
    let error = unsuitable(&mut client, "b");
    assert!(error.is_refusal(), "{error}");
    assert_eq!(client.query("SELECT count(*) FROM b", &[]).unwrap()[0].text(0).unwrap(), "50000");
}

/// Sends rows of which the first is wrong, for as long as they are taken: far more than any buffer on the way holds.
fn unsuitable(client: &mut Client, table: &str) -> WireError {
    let mut copy = client.copy_in(&format!("COPY {table} (id) FROM STDIN")).unwrap();
    copy.write(b"1\nno number\n").unwrap();
    let rows = b"1234567\n".repeat(1 << 17);
    for _ in 0..1000 {
        if let Err(error) = copy.write(&rows) {
            return error;
        }
    }
    panic!("the error was not noticed within 1000 MiB");
}

#[test]
fn an_error_in_the_middle_is_noticed_before_the_end_and_leaves_nothing() {
    let mut client = TestServer::shared().owner();
    client.batch(&format!("CREATE TEMPORARY TABLE b {TABLE}")).unwrap();
    let error = unsuitable(&mut client, "b");
    let WireError::Server(told) = &error else { panic!("{error}") };
    assert_eq!(told.sqlstate, "22P02");
    assert_eq!(told.where_.as_deref(), Some("COPY b, line 2, column id: \"no number\""));
    assert!(error.is_refusal() && !client.is_broken());
    let mut copy = client.copy_in("COPY b (id) FROM STDIN").unwrap();
    copy.write(b"1\nno number\n").unwrap();
    assert_eq!(copy.finish().unwrap_err().sqlstate(), Some("22P02"));
    assert_eq!(client.query("SELECT count(*) FROM b", &[]).unwrap()[0].text(0).unwrap(), "0");
}

#[test]
fn a_copy_that_is_given_up_leaves_nothing_and_the_session_goes_on() {
    let mut client = TestServer::shared().owner();
    client.batch(&format!("CREATE TEMPORARY TABLE b {TABLE}")).unwrap();
    let mut copy = client.copy_in("COPY b (id) FROM STDIN").unwrap();
    copy.write(b"1\n2\n").unwrap();
    copy.abort("the disk is full").unwrap();
    let mut copy = client.copy_in("COPY b (id) FROM STDIN").unwrap();
    copy.write(&b"1\n".repeat(1 << 20)).unwrap();
    drop(copy);
    assert_eq!(client.query("SELECT count(*) FROM b", &[]).unwrap()[0].text(0).unwrap(), "0");
    let error = client.copy_in("COPY b (no_such) FROM STDIN").map(|_| ()).unwrap_err();
    assert_eq!(error.sqlstate(), Some("42703"));
    let error = client.copy_in("SELECT 1").map(|_| ()).unwrap_err();
    assert!(matches!(error, WireError::Protocol(_)) && client.is_broken());
}

#[test]
fn a_reader_that_stops_early_can_go_on_with_something_else() {
    let mut client = TestServer::shared().owner();
    let endless =
        "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 30000) a, generate_series(1, 30000) b) TO STDOUT";
    let mut buffer = Vec::new();
    let mut copy = client.copy_out(endless, None).unwrap();
    assert_eq!(copy.fill(&mut buffer, 5_000_000).unwrap(), Copied::More);
    drop(copy);
    assert!(!client.is_broken());
    assert_eq!(client.query("SELECT 1", &[]).unwrap().len(), 1);
    // It ends by itself before anybody asks for it.
    let copy = client.copy_out("COPY (SELECT 1) TO STDOUT", None).unwrap();
    drop(copy);
    assert_eq!(client.query("SELECT 1", &[]).unwrap().len(), 1);
}

#[test]
fn an_error_in_the_middle_of_reading_is_told_after_what_came_before() {
    let mut client = TestServer::shared().owner();
    let mut copy = client.copy_out("COPY (SELECT 1 / (3 - g) FROM generate_series(1, 5) g) TO STDOUT", None).unwrap();
    let mut buffer = Vec::new();
    let error = copy.fill(&mut buffer, 1 << 20).unwrap_err();
    assert_eq!(error.sqlstate(), Some("22012"));
    assert_eq!(buffer, b"0\n1\n");
    drop(copy);
    assert_eq!(client.query("SELECT 1", &[]).unwrap().len(), 1);
    assert_eq!(client.copy_out("COPY no_such TO STDOUT", None).map(|_| ()).unwrap_err().sqlstate(), Some("42P01"));
}

/// In a process of its own: memory of others would count here.
#[test]
fn a_row_of_300_mib_passes_in_flat_memory() {
    if std::env::var_os(ALONE).is_none() {
        let program = std::env::current_exe().unwrap();
        let name = format!("{}::a_row_of_300_mib_passes_in_flat_memory", module_path!().split_once("::").unwrap().1);
        let mut alone = std::process::Command::new(program);
        let run = alone.args(["--exact", &name, "--nocapture"]).env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&run.stderr));
        return;
    }
    let server = TestServer::start();
    let (mut from, mut to) = (server.owner(), server.owner());
    to.batch("CREATE TABLE public.big (b bytea)").unwrap();
    let before = peak_memory_kib();
    let huge = "COPY (SELECT convert_to(repeat('posthous', 300 << 17), 'UTF8')) TO STDOUT (FORMAT binary)";
    let mut out = from.copy_out(huge, None).unwrap();
    let mut copy = to.copy_in("COPY public.big FROM STDIN (FORMAT binary)").unwrap();
    let mut buffer = Vec::with_capacity(1 << 20);
    let mut bytes = 0;
    loop {
        let more = out.fill(&mut buffer, 1 << 20).unwrap();
        copy.write(&buffer).unwrap();
        bytes += buffer.len();
        buffer.clear();
        if let Copied::End(rows) = more {
            assert_eq!(rows, 1);
            break;
        }
    }
    assert_eq!(copy.finish().unwrap(), 1);
    assert!(bytes > 300 << 20);
    let grown = peak_memory_kib() - before;
    assert!(grown < 8 << 10, "{grown} KiB for a row of 300 MiB");
    let row = to.query("SELECT length(b), md5(b) = md5(repeat('posthous', 300 << 17)) FROM public.big", &[]).unwrap();
    assert_eq!(row[0].number::<usize>(0).unwrap(), 300 << 20);
    assert!(row[0].flag(1).unwrap());
}

fn peak_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

const ALONE: &str = "POSTHOUSE_TEST_ALONE";
