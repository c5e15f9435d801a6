//! The ways by hand on servers of their own: all rows arrive, and whatever does not is found, value by value.

use super::*;
use crate::tables::subjects::SUBJECTS;
use crate::tables::table::TABLES;

const ROWS: u64 = 400;

fn case(route: Route) -> &'static Table {
    TABLES.iter().find(|table| table.route == route).expect("a case")
}

/// Row 7 with another value, in one engine or the other.
fn change(name: &str, kind: &str, route: Route) -> String {
    let other = match content::base(kind) {
        "bigint" | "smallint" => format!("coalesce({name}, 0) + 1"),
        "numeric" => format!("coalesce({name}, 0) + 0.01"),
        "boolean" if route == Route::FromSqlite => format!("NOT coalesce({name}, false)"),
        "boolean" => format!("1 - coalesce({name}, 0)"),
        // As long as before: no text of the register begins so.
        "varchar" | "text" => format!("concat('x', substr(coalesce({name}, ''), 2))"),
        "date" => format!("{name} + INTERVAL '1' DAY"),
        "timestamp" | "timestamptz" => format!("{name} + INTERVAL '0.000001' SECOND"),
        "jsonb" => "'{\"lv\": 9, \"src\": \"部门9\", \"made_up\": true}'".to_owned(),
        "bytea" if route == Route::ToMariadb => "UNHEX('00')".to_owned(),
        "bytea" => "decode('00', 'hex')".to_owned(),
        other => panic!("a change of {other}"),
    };
    format!("UPDATE person SET {name} = {other} WHERE person_id = 7")
}

/// What the target has after a change that is taken back.
fn after(way: &Way, change: &str) -> String {
    let (maria, content) = match way.table.route {
        Route::ToMariadb => (way.maria, content::of_mariadb(way.table)),
        _ => (None, content::of_postgres(way.table, "public")),
    };
    let sql = format!("BEGIN; {change}; {content}; ROLLBACK");
    maria.map_or_else(|| way.server.ask(TARGET, &sql), |maria| maria.ask(TARGET, &sql)).expect("a changed target")
}

fn every_change_is_found(way: &Way) {
    assert_eq!(after(way, "DELETE FROM person WHERE person_id < 0"), way.expected);
    let (first, rest) = way.table.columns.split_first().expect("columns");
    assert_eq!(first.0, "person_id");
    for (name, kind) in rest {
        let change = change(name, kind, way.table.route);
        assert_ne!(after(way, &change), way.expected, "{change}");
    }
    for change in [
        "DELETE FROM person WHERE person_id = 7",
        "UPDATE person SET person_id = 100007 WHERE person_id = 7",
        "UPDATE person SET remark = '' WHERE remark IS NULL AND person_id < 20",
        "UPDATE person SET name_pinyin = full_name, full_name = coalesce(name_pinyin, '') WHERE person_id < 20",
        "UPDATE person SET ext = '{}' WHERE ext IS NOT NULL AND person_id < 20",
    ] {
        assert_ne!(after(way, change), way.expected, "{change}");
    }
}

#[test]
fn a_table_goes_to_mariadb_and_back_by_hand_and_every_other_value_is_found() {
    let server = Server::start(None).expect("a server");
    let maria = Maria::start(None).expect("a MariaDB");
    for route in [Route::ToMariadb, Route::FromMariadb] {
        // Filling compares the two servers' renderings of the same rows.
        let (way, _) = Way::new(&server, Some(&maria), case(route), ROWS, None).expect("a source");
        way.renew().expect("a target");
        assert!(way.check(Subject::LoadDataPipe).is_err(), "there is no table yet");
        way.carry(Subject::LoadDataPipe).expect("a run");
        way.check(Subject::LoadDataPipe).expect("all rows");
        every_change_is_found(&way);
        way.warm_up().expect("a run that does not count");
        way.check(Subject::LoadDataPipe).expect("all rows");
        assert_eq!(way.servers(), [server.pid(), maria.pid()]);
    }

    // Other types for the same values, as some subjects have them, are no difference.
    let (way, _) = Way::new(&server, Some(&maria), case(Route::ToMariadb), ROWS, None).expect("a source");
    way.renew().expect("a target");
    way.carry(Subject::LoadDataPipe).expect("a run");
    for change in [
        "ALTER TABLE person MODIFY balance decimal(30,6), MODIFY income double, MODIFY gender bigint, MODIFY full_name longtext",
        "ALTER TABLE person MODIFY is_resident char(5), MODIFY birth_date datetime",
        "UPDATE person SET is_resident = IF(is_resident = '1', 'true', 'false')",
        "ALTER TABLE person ADD hex text",
        "UPDATE person SET hex = CONCAT('\\\\x', LOWER(HEX(photo_hash)))",
        "ALTER TABLE person DROP photo_hash, CHANGE hex photo_hash text",
    ] {
        maria.ask(TARGET, change).expect("another type");
        way.check(Subject::Sling).unwrap_or_else(|error| panic!("{change}: {error:#}"));
    }
}

#[test]
fn a_table_leaves_sqlite_by_hand_and_another_value_there_is_found() {
    let server = Server::start(None).expect("a server");
    let (way, bytes) = Way::new(&server, None, case(Route::FromSqlite), ROWS, None).expect("a source");
    assert!(bytes / ROWS > 300, "{bytes} bytes");
    let carried = || {
        way.renew().expect("a target");
        way.carry(Subject::CsvPipe).expect("a run");
        way.check(Subject::CsvPipe)
    };
    carried().expect("all rows");
    every_change_is_found(&way);
    let source = rusqlite::Connection::open(way.file()).expect("the file");
    let types = "SELECT count(*) FROM person WHERE typeof(balance) IN ('real', 'integer') AND typeof(photo_hash) IN ('blob', 'null') AND typeof(person_id) = 'integer' AND typeof(updated_at) = 'text'";
    let strict: u64 = source.query_row(types, [], |row| row.get::<_, i64>(0)).expect("a count").unsigned_abs();
    assert_eq!(strict, ROWS, "each value has its column's type");
    source.execute_batch("UPDATE person SET balance = balance + 0.01 WHERE person_id = 7").expect("a change");
    let error = carried().expect_err("one value is another");
    assert!(format!("{error:#}").contains("the target has 400|"), "{error:#}");
}

#[test]
fn every_case_has_posthouse_and_somebody_beside_it() {
    for table in TABLES {
        let takes_part: Vec<Subject> = SUBJECTS.iter().copied().filter(|subject| subject.takes(table.route)).collect();
        assert!(takes_part.iter().any(|subject| subject.is_own()), "{}", table.case());
        assert!(takes_part.iter().any(|subject| !subject.is_own()), "{}", table.case());
    }
}
