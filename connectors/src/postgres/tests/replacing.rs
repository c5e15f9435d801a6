//! All rows of a table give way to new ones: a missing table, one that nothing depends on, and every other.

use super::*;

#[test]
fn a_missing_table_is_the_staging_table_with_its_key_and_its_comments() {
    let bench = PgBench::new();
    let mut contract = small();
    contract.items[1].comment = Some("姓名 'name'".to_owned());
    for (number, write) in [Write::Replace, Write::Append, Write::Upsert].into_iter().enumerate() {
        let mut landing = landing(number as u8, write, &contract);
        landing.table = format!("t{number}");
        let mut destination = bench.destination(&landing).unwrap();
        destination.prepare().unwrap();
        let staged =
            destination.stage("a", [1; 32], &mut [Ok(people(&contract, &[(1, "王", 1), (1, "李", 2)]))].into_iter());
        assert_eq!(staged.unwrap().landed, 2);
        let staging = bench.text("SELECT oid FROM pg_class WHERE relname ~ '^posthouse_staging'");
        let published = destination.publish().unwrap();
        assert_eq!((published.rows, published.inserted, published.quarantined), (1, 1, 1));
        let oid = |name: &str| bench.text(&format!("SELECT '{name}'::regclass::oid"));
        assert_eq!(oid(&landing.table), staging);
        assert_eq!(bench.text(&format!("SELECT col_description({staging}, 2)")), "姓名 'name'");
        assert_eq!(
            bench.text(&format!(
                "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = {staging} AND contype = 'p'"
            )),
            "PRIMARY KEY (id)"
        );
        assert_eq!(bench.text(&format!("SELECT name FROM {}", landing.table)), "王");
        assert_eq!(bench.leftovers(), "");
    }
    assert_eq!(bench.reasons().lines().next().unwrap(), "1 - its key came in this transfer already");
}

#[test]
fn a_table_that_nothing_depends_on_gives_way_to_one_with_all_that_it_had() {
    let bench = PgBench::new();
    bench.run(&format!(
        "CREATE ROLE reader_b; CREATE ROLE \"写 er\";
         CREATE TABLE codes (code text PRIMARY KEY); INSERT INTO codes VALUES ('王'), ('李'), ('赵');
         CREATE TABLE {TARGET} (
           seen timestamp(6), id bigint NOT NULL, name varchar(20) DEFAULT 'x' REFERENCES codes,
           local text DEFAULT 'ours', loaded date NOT NULL DEFAULT current_date,
           CONSTRAINT \"positive\" CHECK (id > 0), CONSTRAINT pk PRIMARY KEY (id), CONSTRAINT pair UNIQUE (name, id)
         ) WITH (fillfactor = 70);
         CREATE INDEX \"按 name\" ON {TARGET} (lower(name)) WHERE id > 10;
         CREATE UNIQUE INDEX seen_once ON {TARGET} USING btree (seen DESC NULLS LAST) INCLUDE (id);
         COMMENT ON TABLE {TARGET} IS '人口'; COMMENT ON COLUMN {TARGET}.local IS 'l''s';
         COMMENT ON CONSTRAINT \"positive\" ON {TARGET} IS 'c'; COMMENT ON INDEX \"按 name\" IS 'i';
         COMMENT ON CONSTRAINT pk ON {TARGET} IS 'k';
         GRANT SELECT ON {TARGET} TO reader_b WITH GRANT OPTION; GRANT INSERT (name, id), UPDATE (name) ON {TARGET} TO \"写 er\";
         REVOKE TRUNCATE ON {TARGET} FROM owner;
         ALTER DEFAULT PRIVILEGES GRANT DELETE ON TABLES TO reader_b;
         INSERT INTO {TARGET} (id, name, seen) VALUES (7, '王', '2020-01-01')"
    ));
    let definition = || {
        let oid = format!("'{TARGET}'::regclass");
        [
            format!("SELECT attname || format_type(atttypid, atttypmod) || attnotnull || coalesce(pg_get_expr(adbin, adrelid), '')
                     || coalesce(attacl::text, '') || coalesce(col_description(attrelid, attnum), '') FROM pg_attribute
                     LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum WHERE attrelid = {oid} AND attnum > 0 ORDER BY attnum"),
            format!("SELECT conname || pg_get_constraintdef(oid) || coalesce(obj_description(oid), '') FROM pg_constraint WHERE conrelid = {oid} ORDER BY 1"),
            format!("SELECT pg_get_indexdef(indexrelid) || coalesce(obj_description(indexrelid, 'pg_class'), '') FROM pg_index WHERE indrelid = {oid} ORDER BY 1"),
            format!("SELECT reloptions::text || relowner::regrole || obj_description(oid) FROM pg_class WHERE oid = {oid}"),
            format!("SELECT x::text FROM pg_class, aclexplode(relacl) x WHERE oid = {oid} ORDER BY 1"),
        ]
        .map(|sql| bench.text(&sql))
    };
    let oid = || bench.text(&format!("SELECT '{TARGET}'::regclass::oid"));
    let (before, first) = (definition(), oid());
    let columns = [("id", "int8"), ("name", "varchar(20)"), ("seen", "timestamp")];
    // `seen` is declared with a precision: the new table is filled from the staging table.
    let rows = "SELECT i::int8, 'ab'::varchar(20), now()::timestamp + i * interval '1 s' FROM generate_series(1, 3) i";
    bench.run("INSERT INTO codes VALUES ('ab')");
    let landing_one = native(1, Write::Replace, &columns, &["id"]);
    let dry = bench.destination(&landing_one).unwrap().dry_run().unwrap();
    assert!(dry.iter().any(|line| line.contains("takes its name")), "{dry:?}");
    let (_, published) = land_raw(&bench, &landing_one, rows, 1 << 20);
    assert_eq!((published.rows, published.inserted, published.deleted), (3, 3, 1));
    assert_eq!(definition(), before);
    let second = oid();
    assert_ne!(first, second);
    // Without it, the staging table itself becomes the new one.
    bench.run(&format!("ALTER TABLE {TARGET} ALTER seen TYPE timestamp"));
    let before = definition();
    let landing_two = native(2, Write::Replace, &columns, &["id"]);
    let mut destination = bench.destination(&landing_two).unwrap();
    destination.prepare().unwrap();
    destination.stage_raw("a", [1; 32], &mut Raw::of(&bench, &format!("{rows} OFFSET 1"), 7)).unwrap();
    let staging = bench.text("SELECT oid FROM pg_class WHERE relname ~ '^posthouse_staging'");
    assert_eq!(destination.publish().unwrap().deleted, 3);
    assert_eq!((oid(), definition()), (staging, before));
    assert_eq!(
        bench.text(&format!("SELECT count(*) || min(local) FROM {TARGET} WHERE loaded = current_date")),
        "2ours"
    );
    // A row that the table does not take: the table stays, the others pass.
    let (_, published) =
        land_raw(&bench, &native(3, Write::Replace, &columns, &["id"]), &rows.replace("(1, 3)", "(0, 4)"), 100);
    assert_eq!((published.rows, published.quarantined, published.deleted), (4, 1, 2));
    assert!(
        bench.reasons().contains("0 23514 new row for relation \"人口 base\" violates check constraint \"positive\""),
        "{}",
        bench.reasons()
    );
    assert_eq!(bench.leftovers(), "");
}

#[test]
fn a_reader_through_a_view_never_sees_a_missing_or_a_half_table() {
    let bench = PgBench::new();
    let contract = small();
    let rows = |count: i64, name: &str| {
        let rows: Vec<(i64, &str, i64)> = (0..count).map(|id| (id, name, id)).collect();
        people(&contract, &rows)
    };
    land(&bench, &landing(1, Write::Replace, &contract), rows(4_000, "before"));
    bench.run(&format!("CREATE VIEW seen AS SELECT * FROM {TARGET}"));
    let oid = bench.text(&format!("SELECT '{TARGET}'::regclass::oid"));
    let dry = bench.destination(&landing(2, Write::Replace, &contract)).unwrap().dry_run().unwrap().join("\n");
    assert!(dry.contains("DELETE and INSERT") && dry.contains("view public.seen depends on it"), "{dry}");
    // A snapshot from before sees what was before, to its end.
    let mut old = bench.client();
    old.batch("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM pg_class").unwrap();
    let is_done = AtomicBool::new(false);
    let looked = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut client, mut looked) = (bench.client(), std::collections::BTreeSet::new());
            while !is_done.load(Ordering::Relaxed) {
                let found = client.query("SELECT min(name) || max(name) || count(*) FROM seen", &[]).unwrap();
                looked.insert(found[0].text(0).unwrap().to_owned());
            }
            looked
        });
        land(&bench, &landing(2, Write::Replace, &contract), rows(5_000, "after"));
        is_done.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(looked.iter().all(|seen| ["beforebefore4000", "afterafter5000"].contains(&seen.as_str())), "{looked:?}");
    assert!(looked.contains("beforebefore4000"), "{looked:?}");
    assert_eq!(old.query("SELECT count(*) FROM seen WHERE name = 'before'", &[]).unwrap()[0].text(0).unwrap(), "4000");
    assert_eq!(bench.text("SELECT min(name) || count(*) FROM seen"), "after5000");
    assert_eq!(bench.text(&format!("SELECT '{TARGET}'::regclass::oid")), oid);
}

#[test]
fn whatever_depends_on_a_table_keeps_it() {
    let bench = PgBench::new();
    let contract = small();
    let dependants = [
        ("CREATE MATERIALIZED VIEW v AS SELECT id FROM t", "DROP MATERIALIZED VIEW v", "materialized view"),
        (
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
          CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
            "DROP FUNCTION f CASCADE",
            "trigger",
        ),
        ("CREATE RULE r AS ON DELETE TO t DO ALSO NOTHING", "DROP RULE r ON t", "rule"),
        ("CREATE PUBLICATION p FOR TABLE t", "DROP PUBLICATION p", "publi"),
        ("CREATE STATISTICS st ON id, name FROM t", "DROP STATISTICS st", "statistics"),
        ("CREATE TABLE kid () INHERITS (t)", "DROP TABLE kid", "inherit"),
        ("CREATE SEQUENCE sq OWNED BY t.id", "DROP SEQUENCE sq", "sequence"),
        ("CREATE TABLE typed (x t)", "DROP TABLE typed", "typed"),
        ("ALTER TABLE t REPLICA IDENTITY FULL", "ALTER TABLE t REPLICA IDENTITY DEFAULT", "replica identity"),
        (
            "ALTER TABLE t ALTER name SET STATISTICS 500",
            "ALTER TABLE t ALTER name SET STATISTICS -1",
            "settings of its own",
        ),
        ("CREATE TABLE other (id bigint REFERENCES t)", "DROP TABLE other", "other"),
        (
            "CREATE FUNCTION g() RETURNS bigint BEGIN ATOMIC SELECT max(id) FROM t; END",
            "DROP FUNCTION g",
            "function public.g",
        ),
    ];
    let place = |number| Landing { table: "t".to_owned(), ..landing(number, Write::Replace, &contract) };
    land(&bench, &place(0), people(&contract, &[(1, "王", 1)]));
    for (number, (make, drop, word)) in dependants.into_iter().enumerate() {
        let oid = bench.text("SELECT 't'::regclass::oid");
        bench.run(make);
        let landing = place(1 + number as u8);
        let dry = bench.destination(&landing).unwrap().dry_run().unwrap().join("\n");
        assert!(dry.contains("DELETE and INSERT") && dry.contains(word), "{make}: {dry}");
        land(&bench, &landing, people(&contract, &[(number as i64, "李", 1)]));
        assert_eq!(bench.text("SELECT 't'::regclass::oid"), oid, "{make}");
        assert_eq!(bench.text("SELECT id FROM ONLY t"), number.to_string(), "{make}");
        bench.run(drop);
        let dry = bench.destination(&landing).unwrap().dry_run().unwrap().join("\n");
        assert!(dry.contains("takes its name"), "{make}: {dry}");
    }
}

#[test]
fn rows_that_others_refer_to_are_replaced_where_they_are() {
    let bench = PgBench::new();
    let contract = small();
    land(
        &bench,
        &landing(1, Write::Replace, &contract),
        people(&contract, &[(1, "王", 1), (2, "李", 2), (3, "赵", 3)]),
    );
    bench.run(&format!(
        "CREATE TABLE other (id bigint REFERENCES {TARGET} ON DELETE CASCADE); INSERT INTO other VALUES (1), (2)"
    ));
    let rows = people(&contract, &[(1, "王", 1), (2, "李四", 2), (4, "钱", 4)]);
    let published = land(&bench, &landing(2, Write::Replace, &contract), rows);
    assert_eq!((published.rows, published.inserted, published.updated, published.deleted), (3, 1, 1, 1));
    assert_eq!(bench.text("SELECT count(*) FROM other"), "2");
    let gone = landing(3, Write::Replace, &contract);
    let mut destination = bench.destination(&gone).unwrap();
    destination.prepare().unwrap();
    destination.stage("a", [1; 32], &mut [Ok(people(&contract, &[(1, "王", 1)]))].into_iter()).unwrap();
    let problem = destination.publish().unwrap_err();
    assert!(problem.cause.contains("would be gone"), "{problem}");
    assert_eq!(bench.text(&format!("SELECT string_agg(name, ',' ORDER BY id) FROM {TARGET}")), "王,李四,钱");
    destination.discard().unwrap();
    assert_eq!(bench.leftovers(), "");
}
