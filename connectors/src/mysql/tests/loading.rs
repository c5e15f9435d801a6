//! Rows on their way in: hard values by LOAD DATA and by INSERT, what a column would change, what is too long, names of
//! any kind, tables with columns of their own.

use super::*;

/// Values that a format, a mode or a column could take for something else.
const HARD: &[&str] = &[
    "",
    " ",
    "\\N",
    "NULL",
    "\\",
    "\\\\",
    "a\tb",
    "a\nb",
    "a\r\nb",
    "it's",
    "\"quoted\"",
    "a\0b",
    "\u{1a}",
    "😀𠮷",
    "a,b",
    "王  ",
    "e\u{301}",
    "%_",
    "\\0",
    "\\'",
    "--",
    "/*",
    "';DROP TABLE t",
];

fn hard(contract: &Contract) -> arrow::record_batch::RecordBatch {
    let mut builder = BatchBuilder::new(contract);
    for (number, text) in HARD.iter().enumerate() {
        let bytes = text.as_bytes();
        let row = [Value::Integer(number as i64), Value::Text(text), Value::Bytes(bytes), Value::Text(text)];
        builder.push(&row).unwrap();
    }
    builder.push(&[Value::Integer(-1), Value::Null, Value::Null, Value::Null]).unwrap();
    builder.finish().unwrap()
}

fn hard_contract() -> Contract {
    let mut id = item("id", ContractType::Integer);
    id.nullable = false;
    let items = vec![id, item("t", ContractType::Text), item("b", ContractType::Bytes), item("c", ContractType::Char)];
    Contract { items, key: vec!["id".to_owned()] }
}

#[test]
fn hard_values_land_as_they_are_by_files_and_without() {
    let contract = hard_contract();
    let rows = hard(&contract);
    let expected = digest(&contract, std::slice::from_ref(&rows));
    for (with_files, with_target) in [(true, false), (false, false), (true, true), (false, true)] {
        let bench = MyBench::new();
        let landing = landing(1, Write::Append, &contract);
        if with_target {
            // Columns of another character set, and of other lengths.
            bench.run(&[&format!(
                "CREATE TABLE {TARGET} (id bigint PRIMARY KEY, t varchar(50) CHARACTER SET utf16, b varbinary(50), c varchar(40))"
            )]);
        }
        let mut destination = bench.inner(&landing);
        if !with_files {
            destination = destination.without_files();
        }
        destination.prepare().unwrap();
        let staged = destination.stage("a", [1; 32], &mut [Ok(rows.clone())].into_iter()).unwrap();
        assert_eq!((staged.landed, staged.bad), (expected.count, vec![]), "{with_files} {with_target}");
        assert_eq!(destination.publish().unwrap().rows, expected.count);
        let back = standing(&bench, &landing);
        assert_eq!((back.digest(&contract), back.bad), (expected, vec![]), "{with_files} {with_target}");
        // As another program reads them.
        let hex = bench.text(&format!("SELECT HEX(CONVERT(t USING utf8mb4)) FROM {TARGET} WHERE id >= 0 ORDER BY id"));
        let written: Vec<String> = HARD.iter().map(hex::encode_upper).collect();
        assert_eq!(hex, written.join("\n"));
    }
}

#[test]
fn what_a_column_would_change_is_refused_and_the_rest_lands() {
    for with_files in [true, false] {
        let bench = MyBench::new();
        bench.run(&[&format!(
            "CREATE TABLE {TARGET} (id bigint PRIMARY KEY, t varchar(3), k enum('a','b'), n tinyint, at datetime, c char(4), f float,
             d decimal(4,1), l varchar(9) CHARACTER SET latin1)"
        )]);
        let types = [
            ("t", ContractType::Text),
            ("k", ContractType::Text),
            ("n", ContractType::Integer),
            ("at", ContractType::Timestamp),
            ("c", ContractType::Text),
            ("f", ContractType::Float),
            ("d", ContractType::Number),
            ("l", ContractType::Text),
        ];
        let mut items = vec![item("id", ContractType::Integer)];
        items[0].nullable = false;
        items.extend(types.map(|(name, r#type)| item(name, r#type)));
        let contract = Contract { items, key: vec!["id".to_owned()] };
        let wrong = [
            (1, Value::Text("王李赵钱")),
            (1, Value::Text("abc   ")),
            (2, Value::Text("A")),
            (3, Value::Integer(128)),
            (4, Value::Timestamp(1)),
            (4, Value::Timestamp(i64::MAX)),
            (5, Value::Text("a ")),
            (6, Value::Float(0.1)),
            (6, Value::Float(f64::NAN)),
            (7, Value::Number("1.25")),
            (7, Value::Number("12345")),
            (8, Value::Text("字")),
        ];
        let mut builder = BatchBuilder::new(&contract);
        for (number, (column, value)) in wrong.iter().enumerate() {
            let mut row = vec![Value::Null; 9];
            row[0] = Value::Integer(number as i64);
            row[*column] = *value;
            builder.push(&row).unwrap();
        }
        let right = [
            Value::Integer(100),
            Value::Text("王李赵"),
            Value::Text("b"),
            Value::Integer(-128),
            Value::Timestamp(1_000_000),
            Value::Text("a"),
            Value::Float(0.5),
            Value::Number("-123.5"),
            Value::Text("é"),
        ];
        builder.push(&right).unwrap();
        let landing = landing(1, Write::Append, &contract);
        let mut destination = bench.inner(&landing);
        if !with_files {
            destination = destination.without_files();
        }
        destination.prepare().unwrap();
        let staged = destination.stage("a", [1; 32], &mut [Ok(builder.finish().unwrap())].into_iter()).unwrap();
        let refused: Vec<&str> = staged.bad.iter().map(|bad| bad.key.as_str()).collect();
        assert_eq!((staged.landed, refused.len()), (1, wrong.len()), "{:?}", staged.bad);
        // Told again, the same.
        assert_eq!(destination.stage("a", [1; 32], &mut std::iter::empty()).unwrap(), staged);
        assert!(
            staged.bad.iter().all(|bad| !bad.reason.is_empty() && bad.original.contains("\"id\":")),
            "{:?}",
            staged.bad
        );
        assert_eq!(destination.publish().unwrap().rows, 1);
        let back = standing(&bench, &landing);
        assert_eq!((back.count(), back.bad), (1, vec![]));
        assert_eq!(bench.text("SELECT COUNT(*) FROM posthouse_quarantine"), wrong.len().to_string());
        assert_eq!(destination.refused().unwrap(), vec![], "publishing refused none");
    }
}

#[test]
fn a_column_that_numbers_its_rows_makes_no_number_of_null() {
    for write in [Write::Append, Write::Replace] {
        let bench = MyBench::new();
        bench.run(&[&format!(
            "CREATE TABLE {TARGET} (id bigint PRIMARY KEY, n bigint NOT NULL AUTO_INCREMENT UNIQUE, name longtext)"
        )]);
        let mut contract = small();
        contract.items[2] = item("n", ContractType::Integer);
        let mut builder = BatchBuilder::new(&contract);
        for (id, n) in [(1, Value::Null), (2, Value::Integer(7)), (3, Value::Integer(0))] {
            builder.push(&[Value::Integer(id), Value::Text("王"), n]).unwrap();
        }
        let landing = landing(1, write, &contract);
        let mut destination = bench.destination(&landing).unwrap();
        destination.prepare().unwrap();
        let staged = destination.stage("a", [1; 32], &mut [Ok(builder.finish().unwrap())].into_iter()).unwrap();
        assert_eq!((staged.landed, staged.bad.len()), (2, 1), "{write}");
        assert!(staged.bad[0].key == "1" && staged.bad[0].reason.contains("`n`"), "{:?}", staged.bad);
        assert_eq!(destination.publish().unwrap().rows, 2);
        assert_eq!(bench.text(&format!("SELECT CONCAT(id, ' ', n) FROM {TARGET} ORDER BY id")), "2 7\n3 0", "{write}");
    }
}

#[test]
fn labels_with_backslashes_and_times_with_signs_are_taken_as_they_are() {
    let bench = MyBench::new();
    bench.run(&[&format!(
        "CREATE TABLE {TARGET} (id bigint PRIMARY KEY, k enum('a\\\\b', 'it''s', 'c\\nd') CHARACTER SET utf8mb4, t time)"
    )]);
    let mut contract = small();
    contract.items[1] = item("k", ContractType::Text);
    contract.items[2] = item("t", ContractType::Text);
    let rows = [
        (1, "a\\b", "-00:00:01"),
        (2, "it's", "00:00:00"),
        (3, "c\nd", "-838:59:59"),
        (4, "a\\\\b", "00:00:00"),
        (5, "a\\b", "-00:00:00"),
    ];
    let mut builder = BatchBuilder::new(&contract);
    for (id, label, time) in rows {
        builder.push(&[Value::Integer(id), Value::Text(label), Value::Text(time)]).unwrap();
    }
    let landing = landing(1, Write::Append, &contract);
    let mut destination = bench.destination(&landing).unwrap();
    destination.prepare().unwrap();
    let staged = destination.stage("a", [1; 32], &mut [Ok(builder.finish().unwrap())].into_iter()).unwrap();
    let refused: Vec<&str> = staged.bad.iter().map(|bad| bad.key.as_str()).collect();
    assert_eq!((staged.landed, refused), (3, vec!["4", "5"]), "{:?}", staged.bad);
    destination.publish().unwrap();
    let back = standing(&bench, &landing).json(&contract);
    let expected = [
        r#"{"id":1,"k":"a\\b","t":"-00:00:01"}"#,
        r#"{"id":2,"k":"it's","t":"00:00:00"}"#,
        r#"{"id":3,"k":"c\nd","t":"-838:59:59"}"#,
    ];
    assert_eq!(back, expected);
}

#[test]
fn a_value_longer_than_the_server_takes_is_named() {
    let server = TestServer::start(&["--max-allowed-packet=1M"]);
    let server: &'static TestServer = Box::leak(Box::new(server));
    let bench = MyBench::on(server);
    let contract = hard_contract();
    let long = "長".repeat(400_000);
    let mut builder = BatchBuilder::new(&contract);
    builder.push(&[Value::Integer(1), Value::Text(&long), Value::Null, Value::Null]).unwrap();
    builder.push(&[Value::Integer(2), Value::Null, Value::Bytes(long.as_bytes()), Value::Null]).unwrap();
    builder.push(&[Value::Integer(3), Value::Text("短"), Value::Null, Value::Null]).unwrap();
    let mut destination = bench.inner(&landing(1, Write::Append, &contract));
    destination.prepare().unwrap();
    let staged = destination.stage("a", [1; 32], &mut [Ok(builder.finish().unwrap())].into_iter()).unwrap();
    assert_eq!((staged.landed, staged.bad.len()), (1, 2));
    assert!(staged.bad.iter().all(|bad| bad.reason.contains("max_allowed_packet")), "{:?}", staged.bad[0].reason);
    assert!(staged.bad[0].original.contains(&long), "the row is handed on whole");
    assert_eq!(destination.publish().unwrap().rows, 1);
    server.kill();
}

#[test]
fn names_of_any_kind_are_names() {
    let bench = MyBench { control: Some("控制 `c`".to_owned()), ..MyBench::new() };
    bench.run(&["CREATE DATABASE IF NOT EXISTS `控制 ``c```"]);
    let mut contract = small();
    for (item, name) in contract.items.iter_mut().zip(["order", "na`me'; --", "时间"]) {
        item.name = name.to_owned();
    }
    contract.key = vec!["order".to_owned()];
    for (number, write) in
        [Write::Append, Write::Upsert, Write::Mirror, Write::Replace, Write::Append].into_iter().enumerate()
    {
        let mut landing = landing(number as u8 + 70, write, &contract);
        landing.table = format!("{}.`ta.``ble`", bench.database);
        let published = land(&bench, &landing, people(&contract, &[(1, "王", 1), (2, "", 2)]));
        assert_eq!((published.rows, published.quarantined), (2, 0), "{write}");
        let mut rows = Rows::default();
        assert_eq!(bench.destination(&landing).unwrap().read_standing(None, &mut rows).unwrap(), 2);
    }
    assert_eq!(bench.text("SELECT COUNT(*) FROM `控制 ``c```.posthouse_applied WHERE published IS NOT NULL"), "5");
}

#[test]
fn columns_that_the_table_has_for_itself_are_left_alone() {
    let contract = small();
    for write in [Write::Append, Write::Upsert, Write::Mirror, Write::Replace] {
        let bench = MyBench::new();
        bench.run(&[&format!(
            "CREATE TABLE {TARGET} (number bigint AUTO_INCREMENT UNIQUE, id bigint PRIMARY KEY, name longtext COMMENT '姓名', seen datetime(6),
             upper varchar(20) AS (UPPER(name)) VIRTUAL, note varchar(9) NOT NULL DEFAULT 'new')"
        )]);
        let published = land(&bench, &landing(1, write, &contract), people(&contract, &[(0, "ab", 1), (9, "cd", 2)]));
        assert_eq!((published.rows, published.inserted, published.quarantined), (2, 2, 0), "{write}");
        let kept = bench.text(&format!("SELECT CONCAT_WS(' ', id, upper, note, number > 0) FROM {TARGET} ORDER BY id"));
        assert_eq!(kept, "0 AB new 1\n9 CD new 1", "{write}");
        assert!(bench.text(&format!("SHOW FULL COLUMNS FROM {TARGET} LIKE 'name'")).starts_with("name"));
        assert_eq!(bench.leftovers(), "");
    }
    let bench = MyBench::new();
    bench.run(&[&format!(
        "CREATE TABLE {TARGET} (id bigint PRIMARY KEY, name longtext, seen datetime(6), must int NOT NULL)"
    )]);
    let drift = bench.destination(&landing(2, Write::Append, &contract)).unwrap().prepare().unwrap_err();
    assert!(drift.code == Code::SchemaDrift && drift.cause.contains("`must`"), "{drift}");
}

#[test]
fn comments_and_keys_are_made_with_the_table() {
    let bench = MyBench::new();
    let mut contract = small();
    contract.items[1].comment = Some("姓名 'name' \\".to_owned());
    contract.items[1].nullable = false;
    contract.key = vec!["name".to_owned(), "id".to_owned()];
    let rows = people(&contract, &[(1, "a", 1), (1, "A", 2), (1, "a ", 3)]);
    let published = land(&bench, &landing(1, Write::Append, &contract), rows);
    assert_eq!(published.rows, 3, "texts that a collation takes for one are three keys");
    let comment = format!(
        "SELECT COLUMN_COMMENT FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = '{}' AND COLUMN_NAME = 'name' AND TABLE_NAME NOT LIKE 'posthouse%'",
        bench.database
    );
    assert_eq!(bench.text(&comment), "姓名 'name' \\");
    let mut long = landing(2, Write::Append, &contract);
    long.transfer = posthouse_protocol::id::TransferId::from_random([2; 16]);
    let text = "長".repeat(800);
    let published = land(&bench, &long, people(&contract, &[(5, &text, 1), (6, "b", 1)]));
    assert_eq!(published.rows, 1, "a key that is longer than its index is refused, and not cut");
}
