//! Traps of the driver and of the engine that no other room has: rows that are lost in bulk, loads that stall, numbers
//! and times at the ends of what there is, bytes that are no characters.

use super::*;
use posthouse_protocol::batch::Batch;
use posthouse_protocol::problem::Code;
use posthouse_protocol::schema::Item;
use posthouse_test_tds::Fault;

/// `id`, the key, and these.
fn keyed(items: impl IntoIterator<Item = Item>) -> Contract {
    let mut id = item("id", ContractType::Integer);
    id.nullable = false;
    Contract { items: std::iter::once(id).chain(items).collect(), key: vec!["id".to_owned()] }
}

fn time(text: &str) -> i64 {
    crate::types::parse_timestamp(text).unwrap()
}

#[test]
fn what_a_driver_loses_in_bulk_is_noticed_by_the_servers_count() {
    let bench = TdsBench::new();
    let contract = small();
    let mut destination = bench.destination(&landing(1, Write::Append, &contract)).unwrap();
    destination.prepare().unwrap();
    let rows = || [Ok(people(&contract, &[(1, "王", 1), (2, "李", 2), (3, "赵", 3)]))].into_iter();
    bench.server().fault(Fault::LoseRowInBulk);
    let problem = destination.stage("a", [1; 32], &mut rows()).unwrap_err();
    assert_eq!(problem.code, Code::DestinationFailed, "{problem}");
    assert!(problem.cause.contains("3 rows were sent to the staging table, and the server counts 2"), "{problem}");
    assert_eq!(destination.applied().unwrap(), [], "nothing of it stays");
    assert_eq!(destination.stage("a", [1; 32], &mut rows()).unwrap().landed, 3);
    assert_eq!((destination.publish().unwrap().rows, bench.target_rows()), (3, 3));
}

#[test]
fn a_load_that_stalls_ends_and_its_session_is_left() {
    let mut bench = TdsBench::new();
    bench.set("statement_timeout", "5s");
    let contract = small();
    let mut destination = bench.destination(&landing(1, Write::Append, &contract)).unwrap();
    destination.prepare().unwrap();
    let names: Vec<(i64, &str, i64)> = (0..3_000).map(|id| (id, "一个相当长的名字", id)).collect();
    let rows = || [Ok(people(&contract, &names))].into_iter();
    let before = bench.logins();
    bench.server().fault(Fault::StallAfterReceived(60_000));
    let problem = destination.stage("a", [1; 32], &mut rows()).unwrap_err();
    assert!(problem.code == Code::ConnectionFailed && problem.cause.contains("no answer within"), "{problem}");
    assert_eq!(destination.stage("a", [1; 32], &mut rows()).unwrap().landed, 3_000);
    assert_eq!(bench.logins(), before + 1, "a new session");
    assert_eq!((destination.publish().unwrap().rows, bench.target_rows()), (3_000, 3_000));
}

#[test]
fn decimals_of_every_length_land_with_all_their_digits() {
    let bench = TdsBench::new();
    // 5, 9, 13 and 17 bytes on the line.
    let shapes = [(9u8, 2i8), (19, 4), (28, 6), (38, 10)];
    let items =
        shapes.map(|(precision, scale)| item(&format!("d{precision}"), ContractType::Decimal { precision, scale }));
    let contract = keyed(items);
    let most = |precision: u8| 10i128.pow(u32::from(precision)) - 1;
    let mut builder = BatchBuilder::new(&contract);
    let mut push = |id: i64, of: &dyn Fn(u8) -> i128| {
        let values = shapes.map(|(precision, scale)| Value::Decimal(of(precision), scale));
        let row: Vec<Value<'_>> = std::iter::once(Value::Integer(id)).chain(values).collect();
        builder.push(&row).unwrap();
    };
    push(1, &most);
    push(2, &|precision| -most(precision));
    push(3, &|_| 0);
    push(4, &|_| 1);
    push(5, &|_| -123);
    let rows = builder.finish().unwrap();
    let expected = crate::contract::digest(&contract, std::slice::from_ref(&rows));
    let landing = landing(1, Write::Append, &contract);
    assert_eq!(land(&bench, &landing, rows).rows, 5);
    assert_eq!(standing(&bench, &landing).digest(&contract), expected);
    // What the server itself has.
    let text = |column: &str| {
        bench.text(&format!("SELECT CAST(t.[{column}] AS nvarchar(50)) FROM {TARGET} AS t ORDER BY t.[id]"))
    };
    assert_eq!(text("d9"), "9999999.99\n-9999999.99\n0.00\n0.01\n-1.23");
    assert_eq!(
        text("d38"),
        "9999999999999999999999999999.9999999999\n-9999999999999999999999999999.9999999999\n0.0000000000\n0.0000000001\n\
         -0.0000000123"
    );
}

#[test]
fn times_land_with_every_digit_or_not_at_all() {
    let cases: [(&str, [&str; 2], &str); 6] = [
        ("datetime2(0)", ["0001-01-01 00:00:00", "9999-12-31 23:59:59"], "2026-11-22 05:09:25.1"),
        ("datetime2(3)", ["0001-01-01 00:00:00.001", "9999-12-31 23:59:59.999"], "2026-11-22 05:09:25.1234"),
        ("datetime2(7)", ["0001-01-01 00:00:00.000001", "9999-12-31 23:59:59.999999"], ""),
        ("datetimeoffset(2)", ["0001-01-01 00:00:00.01", "9999-12-31 23:59:59.99"], "2026-11-22 05:09:25.123"),
        ("datetime", ["1753-01-01 00:00:00", "9999-12-31 23:59:59.997"], "1752-12-31 23:59:59"),
        ("smalldatetime", ["1900-01-01 00:00:00", "2079-06-06 23:59:00"], "2079-06-07 00:00:00"),
    ];
    let contract = keyed([item("at", ContractType::Timestamp)]);
    let first = time("0001-01-01 00:00:00");
    for (declared, kept, refused) in cases {
        let bench = TdsBench::new();
        bench.run(&format!("CREATE TABLE {TARGET} ([id] bigint NOT NULL PRIMARY KEY, [at] {declared} NULL)"));
        let rows = |times: &[i64]| {
            let mut builder = BatchBuilder::new(&contract);
            for (id, us) in times.iter().enumerate() {
                builder.push(&[Value::Integer(id as i64), Value::Timestamp(*us)]).unwrap();
            }
            builder.finish().unwrap()
        };
        // Before the first year there is nothing, and behind the last.
        let bad = if refused.is_empty() { first - 1 } else { time(refused) };
        let landing = landing(1, Write::Append, &contract);
        let mut destination = bench.destination(&landing).unwrap();
        destination.prepare().unwrap();
        let all = rows(&[time(kept[0]), time(kept[1]), bad, first - 1]);
        let staged = destination.stage("a", [1; 32], &mut [Ok(all)].into_iter()).unwrap();
        let keys: Vec<&str> = staged.bad.iter().map(|bad| bad.key.as_str()).collect();
        assert_eq!((staged.landed, keys), (2, vec!["2", "3"]), "{declared}");
        assert!(staged.bad.iter().all(|bad| bad.reason.contains(declared)), "{declared}: {:?}", staged.bad);
        assert_eq!(destination.publish().unwrap().rows, 2, "{declared}");
        drop(destination);
        let expected = crate::contract::digest(&contract, &[rows(&[time(kept[0]), time(kept[1])])]);
        assert_eq!(standing(&bench, &landing).digest(&contract), expected, "{declared}");
        if let Some(scale) = declared.strip_prefix("datetime2(").and_then(|rest| rest.strip_suffix(')')) {
            // As the server itself writes them, with all the digits of the column.
            let digits: usize = scale.parse().unwrap();
            let shown = kept.map(|text| match text.split_once('.') {
                Some((second, fraction)) => format!("{second}.{fraction:0<digits$}"),
                None => text.to_owned(),
            });
            let sql = format!("SELECT CAST(t.[at] AS nvarchar(40)) FROM {TARGET} AS t ORDER BY t.[id]");
            assert_eq!(bench.text(&sql), shown.join("\n"), "{declared}");
        }
    }
}

#[test]
fn the_first_and_the_last_of_all_times_are_read() {
    let bench = TdsBench::new();
    bench.run(
        "CREATE TABLE [dbo].[ends] ([id] int NOT NULL PRIMARY KEY, [d] date NULL, [dt2] datetime2(6) NULL, \
         [dto] datetimeoffset(6) NULL, [dt] datetime NULL, [sdt] smalldatetime NULL, [t] time(7) NULL); \
         INSERT INTO [dbo].[ends] VALUES \
         (1, '0001-01-01', '0001-01-01 00:00:00.000001', '0001-01-02 00:00:00.000001 +14:00', '1753-01-01 00:00:00', \
          '1900-01-01 00:00', '00:00:00.0000001'), \
         (2, '9999-12-31', '9999-12-31 23:59:59.999999', '9999-12-31 09:59:59.999999 -14:00', '9999-12-31 23:59:59.997', \
          '2079-06-06 23:59', '23:59:59.9999999')",
    );
    let (plan, rows) = read_table(&bench, "ends");
    assert_eq!((rows.count(), rows.bad.len()), (2, 0), "{:?}", rows.bad);
    let batch = Batch::new(&plan.contract, rows.batches[0].clone()).unwrap();
    let day = |text: &str| Value::Date(crate::types::parse_date(text).unwrap());
    let at = |text: &str| Value::Timestamp(time(text));
    let ends = [
        [
            Value::Integer(1),
            day("0001-01-01"),
            at("0001-01-01 00:00:00.000001"),
            at("0001-01-01 10:00:00.000001"),
            at("1753-01-01 00:00:00"),
            at("1900-01-01 00:00:00"),
            Value::Text("00:00:00.0000001"),
        ],
        [
            Value::Integer(2),
            day("9999-12-31"),
            at("9999-12-31 23:59:59.999999"),
            at("9999-12-31 23:59:59.999999"),
            at("9999-12-31 23:59:59.997"),
            at("2079-06-06 23:59:00"),
            Value::Text("23:59:59.9999999"),
        ],
    ];
    for (row, expected) in ends.iter().enumerate() {
        let found: Vec<Value<'_>> = (0..expected.len()).map(|column| batch.value(column, row)).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn floats_that_the_engine_lacks_are_bad_rows() {
    let bench = TdsBench::new();
    let contract = keyed([item("f", ContractType::Float)]);
    let rows = |values: &[(i64, f64)]| {
        let mut builder = BatchBuilder::new(&contract);
        values.iter().for_each(|(id, value)| builder.push(&[Value::Integer(*id), Value::Float(*value)]).unwrap());
        builder.finish().unwrap()
    };
    let kept = [(1, f64::MAX), (2, f64::MIN_POSITIVE), (3, 0.1), (4, -0.0)];
    let lacking = [(5, f64::NAN), (6, f64::INFINITY), (7, f64::NEG_INFINITY)];
    let landing = landing(1, Write::Append, &contract);
    let mut destination = bench.destination(&landing).unwrap();
    destination.prepare().unwrap();
    let all = rows(&[kept.as_slice(), lacking.as_slice()].concat());
    let staged = destination.stage("a", [1; 32], &mut [Ok(all)].into_iter()).unwrap();
    let keys: Vec<&str> = staged.bad.iter().map(|bad| bad.key.as_str()).collect();
    assert_eq!((staged.landed, keys), (4, vec!["5", "6", "7"]));
    assert!(staged.bad.iter().all(|bad| bad.reason.contains("neither infinity nor NaN")), "{:?}", staged.bad);
    assert_eq!(destination.publish().unwrap().rows, 4);
    drop(destination);
    let expected = crate::contract::digest(&contract, &[rows(&kept)]);
    assert_eq!(standing(&bench, &landing).digest(&contract), expected);
}

#[test]
fn bytes_that_are_no_characters_of_the_code_page_are_bad_rows_with_them() {
    let bench = TdsBench::new();
    bench.run(
        "CREATE TABLE [dbo].[gbk] ([id] int NOT NULL PRIMARY KEY, [name] varchar(20) COLLATE Chinese_PRC_CI_AS NULL); \
         INSERT INTO [dbo].[gbk] ([id], [name]) VALUES (1, CAST(0xd6d0 AS varchar(20))), (2, CAST(0x61d6 AS varchar(20))), \
         (3, CAST(0x80 AS varchar(20)))",
    );
    let (plan, rows) = read_table(&bench, "gbk");
    assert_eq!(rows.json(&plan.contract), ["{\"id\":1,\"name\":\"中\"}", "{\"id\":3,\"name\":\"€\"}"]);
    assert_eq!(rows.bad.len(), 1, "{:?}", rows.bad);
    assert!(rows.bad[0].key == "2" && rows.bad[0].original.contains("{\"hex\":\"61d6\"}"), "{:?}", rows.bad);
}

#[test]
fn what_is_read_by_the_operators_charset_is_not_landed_in() {
    let mut bench = TdsBench::new();
    bench.run(&format!(
        "CREATE TABLE {TARGET} ([id] bigint NOT NULL PRIMARY KEY, [name] varchar(20) COLLATE Latin1_General_CI_AS NULL, \
         [seen] datetime2(6) NULL)"
    ));
    bench.set("charset", "gbk");
    let contract = small();
    let problem = bench.destination(&landing(1, Write::Append, &contract)).unwrap().prepare().unwrap_err();
    assert!(problem.code == Code::SchemaDrift && problem.cause.contains("read by `charset`"), "{problem}");
    // A table whose texts are UTF-16 has no bytes to be taken for others.
    let mut landing = landing(2, Write::Append, &contract);
    landing.table = "unicode".to_owned();
    let rows = people(&contract, &[(1, "驿站𠮷", 1)]);
    let expected = crate::contract::digest(&contract, std::slice::from_ref(&rows));
    assert_eq!(land(&bench, &landing, rows).rows, 1);
    assert_eq!(standing(&bench, &landing).digest(&contract), expected);
}
