//! Rows that a table does not take, or would change without a word.

use super::*;

#[test]
fn every_kind_of_bad_row_stands_alone_with_the_servers_reason() {
    let bench = PgBench::new();
    let contract = small();
    let late = 1_000_000_000;
    let rows = [
        (1, "王", 1),
        (2, "much too long", 2),
        (3, "", 3),
        (40_000, "李", 4),
        (5, "赵", late),
        (6, "钱", 6),
        (7, "钱", 7),
        (8, "rais", 8),
        (9, "drop", 9),
        (10, "孙", 10),
        (10, "周", 11),
        (11, "ab   ", 12),
        (12, "吴", 13),
    ];
    for (number, write) in [Write::Append, Write::Upsert, Write::Replace].into_iter().enumerate() {
        bench.run(&format!(
            "DROP TABLE IF EXISTS {TARGET}; DROP TABLE IF EXISTS posthouse_quarantine;
             DROP TABLE IF EXISTS posthouse_applied;
             CREATE TABLE {TARGET} (id smallint PRIMARY KEY, name varchar(4) NOT NULL UNIQUE,
               seen timestamp CONSTRAINT early CHECK (seen < '2000-01-01'));
             CREATE OR REPLACE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
               IF new.name = 'rais' OR new.id = 8 THEN RAISE 'not this one, %', new.id; END IF;
               IF new.id = 9 THEN RETURN NULL; END IF; RETURN new; END$$;
             CREATE TRIGGER judge BEFORE INSERT ON {TARGET} FOR EACH ROW EXECUTE FUNCTION judge()"
        ));
        let mut landing = landing(number as u8, write, &contract);
        // Rows from an engine of another kind are staged in the target's types; in their native form they come as
        // the source's server has them, and the target's types apply on publishing.
        if number == 0 {
            landing.native =
                Some(Native::new(Format::PgCopy, ["int8", "text", "timestamp"].map(str::to_owned).to_vec()));
        }
        let mut destination = bench.destination(&landing).unwrap();
        destination.prepare().unwrap();
        let mut staged_bad = 0;
        if number == 0 {
            let values = rows.map(|(id, name, seen)| {
                format!("({id}::int8, NULLIF('{name}', ''), 'epoch'::timestamp + {seen} * interval '1 s')")
            });
            let query = format!("SELECT * FROM (VALUES {}) v", values.join(", "));
            destination.stage_raw("a", [1; 32], &mut Raw::of(&bench, &query, 50)).unwrap();
        } else {
            let batch = people(&contract, &rows);
            staged_bad = destination.stage("a", [1; 32], &mut [Ok(batch)].into_iter()).unwrap().bad.len() as u64;
        }
        let published = destination.publish().unwrap();
        let standing = bench.text(&format!("SELECT string_agg(id::text, ',' ORDER BY id) FROM {TARGET}"));
        let reasons = bench.reasons();
        assert_eq!(standing, "1,6,10,12", "{write}: {reasons}");
        assert_eq!(published.quarantined + staged_bad, 9, "{write}: {reasons}");
        assert_eq!(published.rows, 4, "{write}");
        for expected in [
            "23502 null value in column \"name\"",
            "23514 new row for relation \"人口 base\" violates check constraint \"early\"",
            "7 23505 duplicate key value violates unique constraint \"人口 base_name_key\"; Key (name)=(钱) already exists.",
            "8 P0001 not this one, 8",
            "10 23505 duplicate key value violates unique constraint \"人口 base_pkey\"; Key (id)=(10) already exists.",
        ] {
            assert!(reasons.contains(expected), "{write}: {expected} in {reasons}");
        }
        if number == 0 {
            assert!(reasons.contains("2 22001 value too long for type character varying(4)"), "{reasons}");
            assert!(reasons.contains("40000 22003 smallint out of range"), "{reasons}");
            assert!(
                reasons.contains("11 - \"name\" is character varying(4) in the table, which would change its value"),
                "{reasons}"
            );
        } else {
            assert!(reasons.contains("2 - the column `name` is longer than 4 characters"), "{reasons}");
            assert!(reasons.contains("40000 - the column `id` holds 40000"), "{reasons}");
        }
        assert_eq!(bench.text("SELECT constraint_name FROM posthouse_quarantine WHERE sqlstate = '23514'"), "early");
        let original = bench.text("SELECT original FROM posthouse_quarantine WHERE sqlstate = '23514'");
        assert!(original.contains("\"id\":5") && original.contains("赵"), "{original}");
        assert_eq!(bench.leftovers(), "");
    }
}

#[test]
fn rows_that_copy_itself_refuses_are_found_within_their_split() {
    let bench = PgBench::new();
    bench.run(
        "CREATE TYPE wide AS ENUM ('a', 'b', 'c'); CREATE TYPE narrow AS ENUM ('a', 'b');
         CREATE TABLE t (id int8 PRIMARY KEY, kind narrow, text text, per int8 GENERATED ALWAYS AS (1000 / (id - 7)) STORED)",
    );
    let query = "SELECT i::int8, (CASE WHEN i % 1000 = 13 THEN 'c' ELSE 'a' END)::wide, repeat('字', 100) FROM generate_series(1, 30000) i";
    let columns = [("id", "int8"), ("kind", "enum"), ("text", "text")];
    let landing = Landing { table: "t".to_owned(), ..native(1, Write::Replace, &columns, &["id"]) };
    let mut destination = bench.destination(&landing).unwrap();
    destination.prepare().unwrap();
    let staged = destination.stage_raw("a", [1; 32], &mut Raw::of(&bench, query, 100_003)).unwrap();
    assert_eq!((staged.landed, staged.bad.len()), (29_969, 31));
    assert_eq!(staged.bad[0].key, "7");
    assert_eq!(staged.bad[0].reason, "division by zero");
    assert_eq!(staged.bad[1].key, "13");
    assert!(staged.bad[1].reason.contains("invalid input value for enum"), "{:?}", staged.bad[1]);
    assert!(staged.bad[1].original.contains(r#""id":13,"kind":"c""#), "{:?}", staged.bad[1]);
    assert_eq!(destination.stage_raw("a", [1; 32], &mut Raw::of(&bench, query, 9)).unwrap(), staged);
    let published = destination.publish().unwrap();
    assert_eq!((published.rows, published.quarantined), (29_969, 0));
    assert_eq!(bench.text("SELECT count(*) || ',' || sum(per) FROM t WHERE id BETWEEN 8 AND 10"), "3,1833");
    assert_eq!(bench.text("SELECT count(*) FROM posthouse_quarantine"), "31");
}

#[test]
fn a_column_that_would_round_is_told_before_a_row_is_lost() {
    let bench = PgBench::new();
    bench.run(
        "CREATE TABLE t (id int8 PRIMARY KEY, single float4, at timestamp(0), name varchar(3), money numeric(12,4))",
    );
    let columns =
        [("id", "int8"), ("single", "float8"), ("at", "timestamp"), ("name", "text"), ("money", "numeric(10,2)")];
    let query = "SELECT * FROM (VALUES (1::int8, 0.5::float8, timestamp '2020-01-01', 'abc', 1.25::numeric(10,2)),
        (2, 0.1, '2020-01-01', 'a', 1), (3, 1e300, '2020-01-01', 'a', 1), (4, 1, '2020-01-01 00:00:00.5', 'a', 1),
        (5, 'NaN', 'infinity', 'a  ', 1), (6, -0.0, NULL, 'a   ', 1)) v";
    for (number, write) in [Write::Append, Write::Replace, Write::Upsert].into_iter().enumerate() {
        let landing = Landing { table: "t".to_owned(), ..native(number as u8, write, &columns, &["id"]) };
        let (bad, published) = land_raw(&bench, &landing, query, 1 << 20);
        assert_eq!((bad, published.rows, published.quarantined), (0, 2, 4), "{write}: {}", bench.reasons());
        assert_eq!(bench.text("SELECT string_agg(id::text, ',' ORDER BY id) FROM t"), "1,5");
    }
    for (number, wrong) in
        [("money", "numeric(12,5)"), ("money", "numeric"), ("at", "date"), ("id", "text")].into_iter().enumerate()
    {
        let columns = columns.map(|column| if column.0 == wrong.0 { wrong } else { column });
        let landing = Landing { table: "t".to_owned(), ..native(10 + number as u8, Write::Append, &columns, &["id"]) };
        let problem = bench.destination(&landing).unwrap().prepare().unwrap_err();
        assert_eq!(problem.code, Code::SchemaDrift, "{wrong:?} {problem}");
    }
}

#[test]
fn a_text_that_its_column_would_round_is_a_bad_row_and_no_other_goes_with_it() {
    let bench = PgBench::new();
    bench.run(&format!(
        "CREATE TABLE {TARGET} (id bigint PRIMARY KEY, at time, short time(2), span interval, cost money, code char(4))"
    ));
    let mut id = item("id", ContractType::Integer);
    id.nullable = false;
    let texts = ["at", "short", "span", "cost", "code"].map(|name| item(name, ContractType::Text));
    let contract = Contract { items: [vec![id], texts.to_vec()].concat(), key: vec!["id".to_owned()] };
    let mut builder = BatchBuilder::new(&contract);
    for (id, at, short, span, cost, code) in [
        (1, "12:00:00.123456", "12:00:00.12", "1 day 00:00:00.000001", "$1,234.50", "ab"),
        (2, "12:00:00.1234560", "12:00:00.1200", "-1 days", "-$0.01", "ab"),
        (3, "12:00:00.1234567", "12:00:00", "1 day", "$1.00", "ab"),
        (4, "12:00:00", "12:00:00.125", "1 day", "$1.00", "ab"),
        (5, "12:00:00", "12:00:00", "00:00:00.0000001", "$1.00", "ab"),
        (6, "12:00:00", "12:00:00", "1 day", "$1.005", "ab"),
        (7, "12:00:00", "12:00:00", "1 day", "1.5", "ab"),
        (8, "later", "12:00:00", "1 day", "$1.00", "ab"),
        (9, "12:00:00", "12:00:00", "1 day", "$1.00", "ab "),
    ] {
        let texts = [at, short, span, cost, code].map(Value::Text);
        builder.push(&[&[Value::Integer(id)][..], &texts[..]].concat()).unwrap();
    }
    let landing = landing(1, Write::Append, &contract);
    let published = land(&bench, &landing, builder.finish().unwrap());
    let reasons = bench.reasons();
    let ids = bench.text(&format!("SELECT string_agg(id::text, ',' ORDER BY id) FROM {TARGET}"));
    assert_eq!((published.rows, published.quarantined, ids.as_str()), (2, 6, "1,2"), "{reasons}");
    let kept = bench.text(&format!("SELECT concat_ws(' ', at, short, span, cost) FROM {TARGET} WHERE id = 1"));
    assert_eq!(kept, "12:00:00.123456 12:00:00.12 1 day 00:00:00.000001 $1,234.50");
    for expected in [
        "3 - \"at\" is time without time zone",
        "4 - \"short\" is time(2)",
        "5 - \"span\"",
        "6 - \"cost\"",
        "7 - \"cost\"",
    ] {
        assert!(reasons.contains(expected), "{expected} in {reasons}");
    }
    assert!(reasons.contains("8 22007"), "{reasons}");
    assert!(reasons.contains("9 - the column `code` ends with a blank"), "{reasons}");
    // What fills the column up is no part of the text that was landed.
    let back = standing(&bench, &landing).json(&contract);
    assert!(back[0].contains(r#""code":"ab""#) && back.len() == 2, "{back:?}");
}

#[test]
fn a_mirror_keeps_the_row_whose_successor_the_table_would_change() {
    let bench = PgBench::new();
    bench.run(&format!("CREATE TABLE {TARGET} (id bigint PRIMARY KEY, name varchar(4), seen timestamp)"));
    let contract = small();
    let all: Vec<(i64, &str, i64)> = (0..30).map(|id| (id, "王", id)).collect();
    land(&bench, &landing(1, Write::Upsert, &contract), people(&contract, &all));
    let mut second = landing(2, Write::Mirror, &contract);
    second.native = Some(Native::new(Format::PgCopy, ["int8", "text", "timestamp"].map(str::to_owned).to_vec()));
    let mut destination = bench.destination(&second).unwrap();
    destination.prepare().unwrap();
    // The last is gone, and of the fourth a blank would be cut off.
    let query = "SELECT i::int8, CASE i WHEN 3 THEN 'ab   ' ELSE '王' END, 'epoch'::timestamp + i * interval '1 s'
                 FROM generate_series(0, 28) i";
    destination.stage_raw("a", [1; 32], &mut Raw::of(&bench, query, 50)).unwrap();
    let published = destination.publish().unwrap();
    assert_eq!((published.deleted, published.quarantined), (1, 1), "{}", bench.reasons());
    assert_eq!(bench.text(&format!("SELECT count(*) || max(id)::text FROM {TARGET}")), "2928");
    assert_eq!(bench.text(&format!("SELECT name FROM {TARGET} WHERE id = 3")), "王");
}

#[test]
fn a_mirror_refuses_the_row_whose_key_the_table_cannot_have() {
    let bench = PgBench::new();
    bench.run(
        "CREATE TABLE typed (id uuid PRIMARY KEY, words tsquery);
         INSERT INTO typed SELECT md5(i::text)::uuid, 'a' FROM generate_series(1, 30) i",
    );
    let columns = [("id", "text"), ("words", "tsquery")];
    let landing = Landing { table: "typed".to_owned(), ..native(1, Write::Mirror, &columns, &["id"]) };
    // The first is gone, and of the third nothing can be staged. One key is no UUID; nor is that of another such row.
    let query = "SELECT CASE i WHEN 31 THEN 'none' WHEN 32 THEN 'neither' ELSE md5(i::text)::uuid::text END,
                   CASE WHEN i IN (3, 32) THEN ''::tsquery ELSE 'b'::tsquery END FROM generate_series(2, 32) i";
    let (bad, published) = land_raw(&bench, &landing, query, 50);
    let reasons = bench.reasons();
    assert_eq!((bad, published.rows, published.quarantined), (2, 28, 1), "{reasons}");
    assert_eq!((published.updated, published.deleted, published.kept), (28, 1, 0), "{reasons}");
    assert!(reasons.lines().any(|line| line.starts_with("none 22P02")), "{reasons}");
    let left = "SELECT count(*) || ' ' || string_agg(words::text, '' ORDER BY id) FILTER (WHERE id = md5('3')::uuid) FROM typed";
    assert_eq!((bench.text(left), bench.leftovers()), ("29 'a'".to_owned(), String::new()));
}

#[test]
fn a_mirror_that_does_not_know_the_key_of_a_refused_row_deletes_nothing() {
    let bench = PgBench::new();
    let contract = small();
    let all: Vec<(i64, &str, i64)> = (0..30).map(|id| (id, "王", id)).collect();
    land(&bench, &landing(1, Write::Upsert, &contract), people(&contract, &all));
    let mut changed = all[1..].to_vec();
    changed[4].1 = "a\0b";
    let mut destination = bench.destination(&landing(2, Write::Mirror, &contract)).unwrap();
    destination.prepare().unwrap();
    let staged = destination.stage("a", [1; 32], &mut [Ok(people(&contract, &changed))].into_iter()).unwrap();
    assert_eq!((staged.landed, staged.bad.len()), (28, 1));
    // As beside a staging table that a DBA made, or one of an earlier version.
    let keys = bench.text("SELECT relname FROM pg_class WHERE relname ~ '^posthouse_refused' AND relkind = 'r'");
    bench.run(&format!("DROP TABLE {keys}"));
    let mut destination = bench.destination(&landing(2, Write::Mirror, &contract)).unwrap();
    destination.prepare().unwrap();
    let published = destination.publish().unwrap();
    assert_eq!((published.rows, published.deleted, published.kept), (28, 0, 2));
    assert_eq!(bench.text(&format!("SELECT count(*) FROM {TARGET}")), "30");
}
