//! SIGKILL of the server at random moments of a load, transfer after transfer: what was cut off goes on when the server is
//! back, nothing is lost or doubled, and readers of a table that is replaced see whole ones only. Eight kills of each,
//! thirty in the long run.

use super::*;
use arrow::record_batch::RecordBatch;
use posthouse_protocol::id::TransferId;
use std::time::Duration;

#[test]
fn a_table_that_is_appended_to_survives_kills_of_its_server() {
    let (bench, transfers) = survive(Write::Append);
    let all =
        bench.text(&format!("SELECT CONCAT_WS(' ', COUNT(*), COUNT(DISTINCT id), MIN(id), MAX(id)) FROM {TARGET}"));
    assert_eq!(all, format!("{0} {0} {ROWS} {1}", ROWS * transfers, ROWS * (transfers + 1) - 1));
}

#[test]
fn a_table_that_is_upserted_survives_kills_of_its_server() {
    let (bench, transfers) = survive(Write::Upsert);
    assert_holds(&bench, Write::Upsert, transfers);
}

#[test]
fn a_table_that_is_replaced_survives_kills_and_its_readers_see_whole_ones_only() {
    let (bench, transfers) = survive(Write::Replace);
    assert_holds(&bench, Write::Replace, transfers);
}

/// Kills the server again and again while transfer comes after transfer; how many there were.
fn survive(write: Write) -> (MyBench, i64) {
    let server: &'static TestServer = Box::leak(Box::new(TestServer::start(&[])));
    let bench = MyBench::on(server);
    let kills = if std::env::var_os("POSTHOUSE_LONG").is_some() { 30 } else { 8 };
    let is_over = AtomicBool::new(false);
    let mut transfers = 1;
    carry(&bench, write, transfers);
    std::thread::scope(|scope| {
        let (bench, is_over) = (&bench, &is_over);
        scope.spawn(move || {
            for kill in 0..kills {
                let noise = blake3::hash(format!("{write} {kill}").as_bytes());
                std::thread::sleep(Duration::from_millis(u64::from(noise.as_bytes()[0]) * 3));
                server.crash();
            }
            is_over.store(true, Ordering::Relaxed);
        });
        let reader = (write == Write::Replace).then(|| scope.spawn(move || watch(bench, is_over)));
        loop {
            // One comes after the last of them too.
            let is_last = is_over.load(Ordering::Relaxed);
            transfers += 1;
            carry(bench, write, transfers);
            if is_last {
                break;
            }
        }
        if let Some(reader) = reader {
            assert!(reader.join().unwrap() > 0, "it saw something");
        }
    });
    let noted = "SELECT CONCAT(COUNT(*), ' ', COUNT(published), ' ', SUM(quarantined)) FROM posthouse_applied";
    assert_eq!((bench.text(noted), bench.leftovers()), (format!("{transfers} {transfers} 0"), String::new()));
    (bench, transfers)
}

/// One transfer, however often the server goes away under it; what it did is what it does where nothing happens.
fn carry(bench: &MyBench, write: Write, number: i64) {
    let contract = small();
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    let landing = Landing { transfer: TransferId::from_random(id), ..landing(0, write, &contract) };
    let rows = rows_of(write, number);
    let rows: Vec<(i64, &str, i64)> = rows.iter().map(|(id, name, seen)| (*id, name.as_str(), *seen)).collect();
    let splits: Vec<RecordBatch> = rows.chunks(1_000).map(|rows| people(&contract, rows)).collect();
    let published = (0..600).find_map(|_| match once(bench, &landing, &splits) {
        Ok(published) => Some(published),
        Err(problem) => {
            assert_eq!(problem.code, Code::ConnectionFailed, "{write} {number}: {problem}");
            std::thread::sleep(Duration::from_millis(50));
            None
        }
    });
    let (rows, all) = (rows.len() as u64, ROWS as u64);
    let (inserted, updated, deleted) = match write {
        Write::Upsert if number > 1 => (0, all, 0),
        Write::Replace if number > 1 => (all, 0, all),
        _ => (all, 0, 0),
    };
    let expected = Published { rows, inserted, updated, deleted, quarantined: 0, kept: 0 };
    assert_eq!(published, Some(expected), "{write} {number}");
}

/// As a node does it that finds what an earlier run has left.
fn once(bench: &MyBench, landing: &Landing, splits: &[RecordBatch]) -> Result<Published, Problem> {
    let mut destination = bench.connection().destination(landing)?;
    if let Some(published) = destination.published()? {
        return Ok(published);
    }
    destination.prepare()?;
    for (number, rows) in splits.iter().enumerate() {
        let landed = destination.stage(&format!("split {number}"), [1; 32], &mut [Ok(rows.clone())].into_iter())?;
        assert_eq!((landed.landed, landed.bad), (rows.num_rows() as u64, vec![]));
    }
    destination.publish()
}

/// What a transfer brings: new rows behind some that came before, all rows changed, or other rows.
fn rows_of(write: Write, number: i64) -> Vec<(i64, String, i64)> {
    match write {
        Write::Append => {
            let again = if number > 1 { 100 } else { 0 };
            (number * ROWS - again..(number + 1) * ROWS).map(|id| (id, "王".to_owned(), id)).collect()
        }
        Write::Replace => (number * 7..number * 7 + ROWS).map(|id| (id, number.to_string(), id)).collect(),
        _ => (0..ROWS).map(|id| (id, format!("户 {}", id % number), number)).collect(),
    }
}

fn assert_holds(bench: &MyBench, write: Write, number: i64) {
    let contract = small();
    let rows = rows_of(write, number);
    let rows: Vec<(i64, &str, i64)> = rows.iter().map(|(id, name, seen)| (*id, name.as_str(), *seen)).collect();
    let found = standing(bench, &landing(0, write, &contract));
    assert_eq!(found.digest(&contract), digest(&contract, &[people(&contract, &rows)]));
}

/// Looks at a table that is replaced until all is over; how often it saw it.
fn watch(bench: &MyBench, is_over: &AtomicBool) -> u64 {
    let (mut seen, mut client) = (0, None);
    while !is_over.load(Ordering::Relaxed) {
        let connected = match client.take() {
            Some(client) => Ok(client),
            None => connect(&bench.server.url(OWNER, &bench.database), &[]),
        };
        let sql = format!("SELECT CONCAT(COUNT(*), ' ', COUNT(DISTINCT name)) FROM {TARGET}");
        let looked = connected.and_then(|mut client: Client| client.ask(&sql).map(|rows| (client, rows)));
        match looked {
            Ok((back, rows)) => {
                assert_eq!(client::text(rows[0].as_ref(0).unwrap()), format!("{ROWS} 1"));
                (seen, client) = (seen + 1, Some(back));
            }
            Err(Fail::Lost(_)) => std::thread::sleep(Duration::from_millis(20)),
            Err(fail) => panic!("{fail:?}"),
        }
    }
    seen
}

/// Of a transfer, in three splits.
const ROWS: i64 = 3_000;
