//! Reading: what the engine's types are, what the driver would make of them, the snapshot, watermarks, splits.

use super::*;
use crate::{Read, TableSpec};
use posthouse_protocol::batch::Batch;
use posthouse_protocol::filter::Filter;
use posthouse_protocol::watermark::Watermark;

fn json(plan: &crate::Plan, rows: &Rows) -> Vec<String> {
    rows.json(&plan.contract)
}

#[test]
fn money_keeps_its_last_digit() {
    let bench = TdsBench::new();
    bench.run(
        "CREATE TABLE [dbo].[m] ([id] int NOT NULL PRIMARY KEY, [a] money NULL, [b] smallmoney NULL); \
         INSERT INTO [dbo].[m] ([id], [a], [b]) VALUES (1, 922337203685477.5807, 214748.3647), (2, -922337203685477.5808, NULL)",
    );
    let (plan, rows) = read_table(&bench, "m");
    assert_eq!(
        json(&plan, &rows),
        [
            "{\"id\":1,\"a\":922337203685477.5807,\"b\":214748.3647}",
            "{\"id\":2,\"a\":-922337203685477.5808,\"b\":null}"
        ]
    );
}

#[test]
fn every_type_is_read_as_what_it_means_or_refused_by_name() {
    let bench = TdsBench::new();
    bench.run(
        "CREATE TABLE [dbo].[all] ([k] int NOT NULL PRIMARY KEY, [bit] bit NULL, [tiny] tinyint NULL, [big] bigint NULL, \
         [dec] decimal(38,10) NULL, [real] real NULL, [float] float(53) NULL, [c] char(4) NULL, [vc] varchar(20) NULL, \
         [nc] nchar(4) NULL, [nvc] nvarchar(max) NULL, [bin] binary(2) NULL, [vb] varbinary(max) NULL, [d] date NULL, \
         [t] time(7) NULL, [dt] datetime NULL, [sdt] smalldatetime NULL, [dt2] datetime2(7) NULL, [dto] datetimeoffset(3) NULL, \
         [g] uniqueidentifier NULL, [x] xml NULL, [v] sql_variant NULL)",
    );
    bench.run(
        "INSERT INTO [dbo].[all] ([k], [bit], [tiny], [big], [dec], [real], [float], [c], [vc], [nc], [nvc], [bin], [vb], [d], \
         [t], [dt], [sdt], [dt2], [dto], [g], [x]) VALUES (1, 1, 255, -9223372036854775808, \
         9999999999999999999999999999.0123456789, 0.5, 0.1, '驿', N'前置库', N'驿站', N'𠮷田', 0x00FF, 0x, '2000-02-29', \
         '23:59:59.1234560', '2026-11-22 05:09:25.007', '2026-11-22 05:09:00', '2026-11-22 05:09:25.1234560', \
         '2026-11-22 05:09:25.123 +08:00', '6F9619FF-8B86-D011-B42D-00C04FC964FF', N'<a>驿</a>')",
    );
    let refused = bench.source(&spec("all")).unwrap().begin(&Read::default()).unwrap_err();
    let facts = format!("{:?}", refused.facts);
    assert!(facts.contains("\"v\"") && facts.contains("sql_variant"), "{refused}: {facts}");
    let columns = "k bit tiny big dec real float c vc nc nvc bin vb d t dt sdt dt2 dto g x";
    let columns = Some(columns.split(' ').map(str::to_owned).collect());
    let mut source = bench.source(&spec("all")).unwrap();
    let (plan, rows) = read_all(source.as_mut(), &Read { columns, ..Read::default() });
    assert_eq!(rows.bad, vec![]);
    let batch = Batch::new(&plan.contract, rows.batches[0].clone()).unwrap();
    let value = |name: &str| batch.value(plan.contract.position(name).unwrap(), 0).to_string();
    for (name, expected) in [
        ("bit", "true"),
        ("tiny", "255"),
        ("big", "-9223372036854775808"),
        ("dec", "9999999999999999999999999999.0123456789"),
        ("real", "0.5"),
        ("float", "0.1"),
        ("c", "驿  "),
        ("vc", "前置库"),
        ("nc", "驿站  "),
        ("nvc", "𠮷田"),
        ("bin", "00ff"),
        ("vb", ""),
        ("d", "2000-02-29"),
        ("t", "23:59:59.123456"),
        ("dt", "2026-11-22T05:09:25.007Z"),
        ("sdt", "2026-11-22T05:09:00Z"),
        ("dt2", "2026-11-22T05:09:25.123456Z"),
        ("dto", "2026-11-21T21:09:25.123Z"),
        ("g", "6f9619ff-8b86-d011-b42d-00c04fc964ff"),
        ("x", "<a>驿</a>"),
    ] {
        assert_eq!(value(name), expected, "{name}");
    }
}

#[test]
fn a_hundred_nanoseconds_are_a_bad_row_and_never_rounded() {
    let bench = TdsBench::new();
    bench.run(
        "CREATE TABLE [dbo].[fine] ([id] int NOT NULL PRIMARY KEY, [at] datetime2(7) NULL); \
         INSERT INTO [dbo].[fine] ([id], [at]) VALUES (1, '2026-11-22 05:09:25.1234567'), (2, '2026-11-22 05:09:25.1234560')",
    );
    let (_, rows) = read_table(&bench, "fine");
    assert_eq!((rows.count(), rows.bad.len()), (1, 1));
    let bad = &rows.bad[0];
    assert!(bad.key == "1" && bad.reason.contains("`at`") && bad.original.contains("05:09:25.1234567"), "{bad:?}");
}

#[test]
fn a_writer_between_two_splits_is_not_seen() {
    let bench = TdsBench::new();
    fill(&bench, 70_000);
    let mut source = bench.source(&spec("n")).unwrap();
    let plan = source.begin(&Read::default()).unwrap();
    assert_eq!(plan.splits, ["keys 1 of 2", "keys 2 of 2"]);
    bench.run("DELETE FROM [dbo].[n] WHERE [id] > 60000; UPDATE [dbo].[n] SET [name] = N'changed' WHERE [id] = 1");
    let mut rows = Rows::default();
    let sent: u64 = plan.splits.iter().map(|split| source.read(split, &mut rows).unwrap().sent).sum();
    assert_eq!((sent, rows.count()), (70_000, 70_000));
    assert!(!rows.json(&plan.contract).iter().any(|row| row.contains("changed")));
    // A repeat gives the same rows.
    let mut again = Rows::default();
    source.read(&plan.splits[1], &mut again).unwrap();
    assert_eq!(again.count(), 20_001);
}

/// A table `n` with a whole number for its key.
fn fill(bench: &TdsBench, rows: i64) {
    let mut contract = small();
    contract.items.truncate(2);
    let mut landing = landing(77, Write::Append, &contract);
    landing.table = "n".to_owned();
    let mut builder = BatchBuilder::new(&contract);
    let mut batches = Vec::new();
    for id in 1..=rows {
        builder.push(&[Value::Integer(id), Value::Text("王")]).unwrap();
        if builder.is_full() {
            batches.push(builder.finish());
        }
    }
    batches.push(builder.finish());
    let mut destination = bench.destination(&landing).unwrap();
    destination.prepare().unwrap();
    destination.stage("all", [1; 32], &mut batches.into_iter().map(|batch| batch.map_err(Problem::from))).unwrap();
    assert_eq!(destination.publish().unwrap().rows, rows as u64);
}

#[test]
fn where_there_are_no_snapshots_nobody_changes_the_table_meanwhile() {
    let bench = TdsBench::new();
    bench.run("ALTER DATABASE [posthouse] SET ALLOW_SNAPSHOT_ISOLATION OFF");
    bench.run(
        "CREATE TABLE [dbo].[held] ([id] int NOT NULL PRIMARY KEY); INSERT INTO [dbo].[held] ([id]) VALUES (1), (2)",
    );
    let mut source = bench.source(&spec("held")).unwrap();
    let plan = source.begin(&Read::default()).unwrap();
    let mut writer = bench.client();
    writer.batch("SET LOCK_TIMEOUT 50").unwrap();
    let waited = writer.batch("INSERT INTO [dbo].[held] ([id]) VALUES (3)").unwrap_err();
    assert_eq!(waited.code(), Some(1_222), "{waited}");
    let mut rows = Rows::default();
    for split in &plan.splits {
        source.read(split, &mut rows).unwrap();
    }
    assert_eq!(rows.count(), 2);
    drop(source);
    writer.batch("SET LOCK_TIMEOUT 10000").unwrap();
    writer.batch("INSERT INTO [dbo].[held] ([id]) VALUES (3)").unwrap();
}

pub(super) fn marked(table: &str, mark: &str) -> TableSpec {
    TableSpec { watermark: Some(mark.to_owned()), ..spec(table) }
}

/// The keys that a run reads, and where it gets to.
pub(super) fn run_from(
    bench: &TdsBench,
    spec: &TableSpec,
    from: Option<Watermark>,
) -> (Vec<String>, Option<Watermark>) {
    keys_of(bench.source(spec).unwrap().as_mut(), from)
}

fn keys_of(source: &mut dyn Source, from: Option<Watermark>) -> (Vec<String>, Option<Watermark>) {
    let (plan, rows) = read_all(source, &Read { from, ..Read::default() });
    let mut keys = Vec::new();
    for record in &rows.batches {
        let batch = Batch::new(&plan.contract, record.clone()).unwrap();
        keys.extend((0..batch.rows()).map(|row| batch.key_text(row)));
    }
    keys.sort();
    (keys, plan.watermark)
}

#[test]
fn a_rowversion_that_is_committed_late_is_not_missed() {
    let bench = TdsBench::new();
    bench.run(
        "CREATE TABLE [dbo].[rv] ([id] int NOT NULL PRIMARY KEY, [name] nvarchar(20) NULL, [mark] rowversion NOT NULL)",
    );
    bench.run("INSERT INTO [dbo].[rv] ([id], [name]) VALUES (1, N'王')");
    let spec = marked("rv", "mark");
    let (keys, first) = run_from(&bench, &spec, None);
    assert_eq!(keys, ["1"]);
    // Somebody has written, and not committed; somebody else, later, has.
    let mut slow = bench.client();
    slow.batch("SET TRANSACTION ISOLATION LEVEL READ COMMITTED; BEGIN TRANSACTION").unwrap();
    slow.batch("INSERT INTO [dbo].[rv] ([id], [name]) VALUES (2, N'李')").unwrap();
    bench.run("INSERT INTO [dbo].[rv] ([id], [name]) VALUES (3, N'赵')");
    let (keys, second) = run_from(&bench, &spec, first.clone());
    assert_eq!(keys, ["3"]);
    slow.batch("COMMIT TRANSACTION").unwrap();
    let (keys, third) = run_from(&bench, &spec, second);
    assert!(keys.contains(&"2".to_owned()), "{keys:?}");
    let (keys, last) = run_from(&bench, &spec, third.clone());
    assert_eq!((keys, last), (vec![], third), "each row has a mark of its own");
}

#[test]
fn a_number_is_read_once_nobody_is_in_the_middle_of_writing() {
    let bench = TdsBench::new();
    bench.run("CREATE TABLE [dbo].[seq] ([id] bigint NOT NULL PRIMARY KEY)");
    bench.run("INSERT INTO [dbo].[seq] ([id]) VALUES (1)");
    let spec = marked("seq", "id");
    let mut slow = bench.client();
    slow.batch("SET TRANSACTION ISOLATION LEVEL READ COMMITTED; BEGIN TRANSACTION").unwrap();
    slow.batch("INSERT INTO [dbo].[seq] ([id]) VALUES (2)").unwrap();
    let mut source = bench.source(&spec).unwrap();
    let (keys, mark) = std::thread::scope(|scope| {
        let reading = scope.spawn(move || keys_of(source.as_mut(), None));
        slow.batch("COMMIT TRANSACTION").unwrap();
        reading.join().unwrap()
    });
    assert_eq!((keys, mark), (vec!["1".to_owned(), "2".to_owned()], Some(Watermark::Integer(2))));
}

#[test]
fn a_datetime_mark_is_compared_in_its_own_steps() {
    let bench = TdsBench::new();
    bench.run(
        "CREATE TABLE [dbo].[dt] ([id] int NOT NULL PRIMARY KEY, [at] datetime NULL); \
         INSERT INTO [dbo].[dt] ([id], [at]) VALUES (1, '2026-11-22 05:09:25.003'), (2, '2026-11-22 05:09:25.007'), (3, NULL)",
    );
    let spec = marked("dt", "at");
    let (keys, mark) = run_from(&bench, &spec, None);
    assert_eq!(keys, ["1", "2", "3"]);
    let us = crate::types::parse_timestamp("2026-11-22 05:09:25.007").unwrap();
    assert_eq!(mark, Some(Watermark::Timestamp(us)));
    // The last mark is read again, for more rows may bear it, and so is a row without one.
    let (keys, _) = run_from(&bench, &spec, mark.clone());
    assert_eq!(keys, ["2", "3"]);
    let late = TableSpec { late_ms: 4, ..spec.clone() };
    assert_eq!(run_from(&bench, &late, mark.clone()).0, ["1", "2", "3"]);
    let mut source = bench.source(&spec).unwrap();
    let to = Some(Watermark::Timestamp(us - 4_000));
    let (_, rows) = read_all(source.as_mut(), &Read { to, ..Read::default() });
    assert_eq!(rows.count(), 2, "up to .003, and the row without a mark");
}

#[test]
fn bytes_of_gbk_in_a_latin_column_are_read_as_the_operator_says() {
    let mut bench = TdsBench::new();
    bench.run(
        "CREATE TABLE [dbo].[latin] ([id] int NOT NULL PRIMARY KEY, [name] varchar(20) COLLATE Latin1_General_CI_AS NULL)",
    );
    // To GBK these bytes are 中, and half of a character.
    bench.run("INSERT INTO [dbo].[latin] ([id], [name]) VALUES (1, N'ÖÐ'), (2, N'Ö')");
    let (plan, rows) = read_table(&bench, "latin");
    assert!(json(&plan, &rows)[0].contains("ÖÐ"), "by the collation");
    bench.set("charset", "gbk");
    let (plan, rows) = read_table(&bench, "latin");
    assert_eq!(json(&plan, &rows), ["{\"id\":1,\"name\":\"中\"}"]);
    assert!(rows.bad.len() == 1 && rows.bad[0].original.contains("{\"hex\":\"d6\"}"), "{:?}", rows.bad);
}

#[test]
fn a_query_is_a_table_and_a_key_that_is_none_is_told() {
    let bench = TdsBench::new();
    bench.run(
        "CREATE TABLE [dbo].[q] ([id] int NOT NULL, [part] int NOT NULL, [name] nvarchar(10) NULL); \
         INSERT INTO [dbo].[q] ([id], [part], [name]) VALUES (1, 1, N'王'), (1, 2, N'李'), (2, 1, NULL)",
    );
    let query = |key: &[&str]| TableSpec {
        table: None,
        query: Some("SELECT id, part, name FROM [dbo].[q] WHERE id < 2;".to_owned()),
        key: key.iter().map(|name| (*name).to_owned()).collect(),
        ..spec("q")
    };
    let mut source = bench.source(&query(&["id", "part"])).unwrap();
    let (plan, rows) = read_all(source.as_mut(), &Read::default());
    assert_eq!((plan.splits.len(), rows.count()), (1, 2));
    let problem = bench.source(&query(&["id"])).unwrap().begin(&Read::default()).unwrap_err();
    assert!(problem.cause.contains("the key is not unique: two rows have (id) = (1)"), "{problem}");
}

#[test]
fn the_server_leaves_out_what_is_surely_none_of_the_grants() {
    let bench = TdsBench::new();
    bench.run(
        "CREATE TABLE [dbo].[g] ([id] int NOT NULL PRIMARY KEY, [district] nvarchar(12) NULL, [day] date NULL); \
         INSERT INTO [dbo].[g] ([id], [district], [day]) VALUES (1, N'610102', '2026-01-01'), (2, N'610103', '2026-01-01'), \
         (3, NULL, NULL), (4, N'610102', '2025-12-31'), (5, N'610102', '2026-06-30')",
    );
    let filter = "district = '610102' AND day >= DATE '2026-01-01' AND NOT id = 5";
    let read = Read { filter: Some(Filter::parse(filter).unwrap()), ..Read::default() };
    let mut source = bench.source(&spec("g")).unwrap();
    let plan = source.begin(&read).unwrap();
    let mut rows = Rows::default();
    let counts = source.read(&plan.splits[0], &mut rows).unwrap();
    assert_eq!((counts.read, counts.sent, counts.filtered, plan.rows_estimate), (1, 1, 0, Some(1)));
    assert_eq!(json(&plan, &rows), ["{\"id\":1,\"district\":\"610102\",\"day\":\"2026-01-01\"}"]);
}
