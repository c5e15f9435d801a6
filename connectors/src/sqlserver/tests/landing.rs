//! Landing: what goes into which column, values that the driver's bulk load does not take, names, identities, tables
//! that others refer to.

use super::*;
use posthouse_protocol::problem::Code;

/// `id`, `text`, `bytes`.
fn long_values() -> Contract {
    let mut id = item("id", ContractType::Integer);
    id.nullable = false;
    Contract {
        items: vec![id, item("text", ContractType::Text), item("bytes", ContractType::Bytes)],
        key: vec!["id".to_owned()],
    }
}

#[test]
fn values_around_the_bulk_loads_limit_land_whole() {
    let bench = TdsBench::new();
    let contract = long_values();
    let landing = landing(1, Write::Append, &contract);
    // In UTF-16 these are 65,534, 65,536 and 2 MiB.
    let texts = ["长".repeat(32_767), "长".repeat(32_768), "𠮷".repeat(512 << 10)];
    let bytes = [vec![7; 65_535], vec![8; 65_536], vec![9; 1 << 20]];
    let mut builder = BatchBuilder::new(&contract);
    for (id, (text, bytes)) in texts.iter().zip(&bytes).enumerate() {
        builder.push(&[Value::Integer(id as i64), Value::Text(text), Value::Bytes(bytes)]).unwrap();
        builder.push(&[Value::Integer(10 + id as i64), Value::Null, Value::Bytes(bytes)]).unwrap();
        builder.push(&[Value::Integer(20 + id as i64), Value::Text(text), Value::Null]).unwrap();
    }
    let rows = builder.finish().unwrap();
    let expected = crate::contract::digest(&contract, std::slice::from_ref(&rows));
    assert_eq!(land(&bench, &landing, rows).rows, 9);
    let back = standing(&bench, &landing);
    assert_eq!((back.digest(&contract), back.bad), (expected, vec![]));
    assert_eq!(bench.count(&format!("SELECT MAX(DATALENGTH(t.[text])) FROM {TARGET} AS t")), 2 << 20);
}

#[test]
fn a_long_text_that_the_code_page_lacks_is_a_bad_row_too() {
    let bench = TdsBench::new();
    bench.run(&format!(
        "CREATE TABLE {TARGET} ([id] bigint NOT NULL PRIMARY KEY, [text] varchar(max) COLLATE Chinese_PRC_CI_AS NULL, \
         [bytes] varbinary(max) NULL)"
    ));
    let contract = long_values();
    let (good, bad) = ("驿".repeat(40_000), format!("{}𠮷", "驿".repeat(40_000)));
    let mut builder = BatchBuilder::new(&contract);
    builder.push(&[Value::Integer(1), Value::Text(&good), Value::Null]).unwrap();
    builder.push(&[Value::Integer(2), Value::Text(&bad), Value::Null]).unwrap();
    let mut destination = bench.destination(&landing(1, Write::Append, &contract)).unwrap();
    destination.prepare().unwrap();
    let staged = destination.stage("a", [1; 32], &mut [Ok(builder.finish().unwrap())].into_iter()).unwrap();
    assert!(staged.landed == 1 && staged.bad.len() == 1 && staged.bad[0].key == "2", "{}", staged.bad.len());
    assert_eq!(destination.publish().unwrap().rows, 1);
    assert_eq!(bench.count(&format!("SELECT MAX(DATALENGTH(t.[text])) FROM {TARGET} AS t")), 80_000);
}

#[test]
fn columns_that_stand_keep_what_they_can_and_refuse_the_rest() {
    let bench = TdsBench::new();
    bench.run(&format!(
        "CREATE TABLE {TARGET} ([id] smallint NOT NULL PRIMARY KEY, [c] char(6) COLLATE Chinese_PRC_CI_AS NULL, \
         [nc] nchar(4) NULL, [vc] varchar(6) COLLATE Chinese_PRC_CI_AS NULL, [m] money NULL, [dt] datetime NULL)"
    ));
    let decimal = ContractType::Decimal { precision: 18, scale: 4 };
    let mut id = item("id", ContractType::Integer);
    id.nullable = false;
    let contract = Contract {
        items: vec![
            id,
            item("c", ContractType::Char),
            item("nc", ContractType::Char),
            item("vc", ContractType::Text),
            item("m", decimal),
            item("dt", ContractType::Timestamp),
        ],
        key: vec!["id".to_owned()],
    };
    let time = |text: &str| Value::Timestamp(crate::types::parse_timestamp(text).unwrap());
    let good = [
        Value::Integer(1),
        Value::Text("驿"),
        Value::Text("驿站"),
        Value::Text("前置"),
        Value::Decimal(123_456_789_012_345_678, 4),
        time("2026-11-22 05:09:25.007"),
    ];
    let with = |at: usize, id: i64, value: Value<'static>| {
        let mut values = good;
        (values[0], values[at]) = (Value::Integer(id), value);
        values
    };
    let mut builder = BatchBuilder::new(&contract);
    builder.push(&good).unwrap();
    for (at, id, value) in [
        (0, 40_000, Value::Integer(40_000)),
        (1, 2, Value::Text("驿站前置库")),
        (2, 3, Value::Text("驿站前置库")),
        (3, 4, Value::Text("😀")),
        (3, 5, Value::Text("前置库前")),
        (5, 6, time("2026-11-22 05:09:25.005")),
    ] {
        builder.push(&with(at, id, value)).unwrap();
    }
    let mut destination = bench.destination(&landing(1, Write::Append, &contract)).unwrap();
    destination.prepare().unwrap();
    let staged = destination.stage("a", [1; 32], &mut [Ok(builder.finish().unwrap())].into_iter()).unwrap();
    let bad: Vec<(&str, &str)> =
        staged.bad.iter().map(|bad| (bad.key.as_str(), bad.reason.split(':').next().unwrap())).collect();
    assert_eq!(bad, [("40000", "`id`"), ("2", "`c`"), ("3", "`nc`"), ("4", "`vc`"), ("5", "`vc`"), ("6", "`dt`")]);
    assert_eq!(destination.publish().unwrap().rows, 1);
    // Padded to their ends, in bytes: 6 of GBK, 8 of UTF-16.
    assert_eq!(bench.count(&format!("SELECT DATALENGTH(t.[c]) FROM {TARGET} AS t")), 6);
    assert_eq!(bench.count(&format!("SELECT DATALENGTH(t.[nc]) FROM {TARGET} AS t")), 8);
    assert_eq!(bench.text(&format!("SELECT CAST(t.[m] AS decimal(19,4)) FROM {TARGET} AS t")), "12345678901234.5678");
    // What the driver would say otherwise goes as the server has it: in the code page the euro sign is one byte.
    let mut euro = good;
    (euro[0], euro[1], euro[3]) = (Value::Integer(7), Value::Text("€"), Value::Text("驿€"));
    let published = land(&bench, &landing(3, Write::Append, &contract), row(&contract, &euro));
    assert_eq!((published.rows, published.quarantined), (1, 0));
    assert_eq!(bench.count(&format!("SELECT DATALENGTH(t.[vc]) FROM {TARGET} AS t WHERE t.[id] = 7")), 3);
    // The same row again is no change, blanks and all.
    let published = land(&bench, &landing(2, Write::Upsert, &contract), row(&contract, &good));
    assert_eq!((published.inserted, published.updated, published.quarantined), (0, 0, 0));
}

#[test]
fn a_decimal_that_would_lose_its_scale_is_refused_before_anything_moves() {
    let bench = TdsBench::new();
    bench.run(&format!("CREATE TABLE {TARGET} ([id] bigint NOT NULL PRIMARY KEY, [amount] decimal(18,2) NULL)"));
    let mut id = item("id", ContractType::Integer);
    id.nullable = false;
    let amount = item("amount", ContractType::Decimal { precision: 18, scale: 4 });
    let contract = Contract { items: vec![id, amount], key: vec!["id".to_owned()] };
    let problem = bench.destination(&landing(1, Write::Append, &contract)).unwrap().prepare().unwrap_err();
    assert_eq!(problem.code, Code::SchemaDrift, "{problem}");
    assert!(problem.cause.contains("decimal(18,4)") && problem.cause.contains("decimal(18,2)"), "{problem}");
}

#[test]
fn names_of_any_kind_are_names() {
    let mut bench = TdsBench::new();
    bench.set("control_schema", "控制 ]c[");
    bench.run("CREATE SCHEMA [select]");
    let mut contract = small();
    for (item, name) in contract.items.iter_mut().zip(["order", "na]me'; --", "时间"]) {
        item.name = name.to_owned();
    }
    contract.key = vec!["order".to_owned()];
    let writes = [Write::Append, Write::Upsert, Write::Mirror, Write::Replace, Write::Append];
    for (number, write) in writes.into_iter().enumerate() {
        let mut landing = landing(number as u8, write, &contract);
        landing.table = "select.[ta.]]ble; DROP]".to_owned();
        let published = land(&bench, &landing, people(&contract, &[(1, "王", 1), (1, "李", 1), (2, "", 2)]));
        assert_eq!((published.rows, published.quarantined), (2, 1), "{write}");
        assert_eq!(standing(&bench, &landing).count(), 2);
    }
    let kept = bench.count("SELECT COUNT_BIG(*) FROM [控制 ]]c[].[posthouse_quarantine] AS q");
    assert_eq!(kept, 5);
}

#[test]
fn identities_computed_columns_and_defaults_are_the_tables_own_business() {
    let bench = TdsBench::new();
    bench.run(&format!(
        "CREATE TABLE {TARGET} ([id] bigint IDENTITY(1,1) NOT NULL PRIMARY KEY, [name] nvarchar(20) NULL, \
         [seen] datetime2(6) NULL, [twice] AS ([id] + [id]), [mine] int NOT NULL DEFAULT 7, [mark] rowversion NOT NULL)"
    ));
    let contract = small();
    for (number, write) in [Write::Append, Write::Upsert, Write::Mirror, Write::Replace].into_iter().enumerate() {
        let rows = people(&contract, &[(4, "ab", 1), (9, "cd", 2)]);
        let published = land(&bench, &landing(number as u8, write, &contract), rows);
        assert_eq!((published.rows, published.quarantined), (2, 0), "{write}");
        assert_eq!(bench.text(&format!("SELECT t.[twice] FROM {TARGET} AS t ORDER BY t.[id]")), "8\n18", "{write}");
    }
    // An identity that is no key is never changed.
    let mut other = contract.clone();
    other.key = vec!["name".to_owned()];
    other.items[1].nullable = false;
    let published = land(&bench, &landing(9, Write::Upsert, &other), people(&other, &[(5, "ab", 1), (9, "cd", 7)]));
    assert_eq!((published.rows, published.updated, published.quarantined), (1, 1, 1));
    assert!(bench.reasons()[0].2.contains("lets nobody change"));
    // What the table computes cannot be landed, and what it needs has to come.
    let mut computed = contract.clone();
    computed.items.push(item("twice", ContractType::Integer));
    let problem = bench.destination(&landing(10, Write::Append, &computed)).unwrap().prepare().unwrap_err();
    assert!(problem.code == Code::SchemaDrift && problem.cause.contains("`twice`"), "{problem}");
    bench.run("CREATE TABLE [dbo].[needs] ([id] bigint NOT NULL PRIMARY KEY, [name] nvarchar(20) NULL, [seen] datetime2(6) NULL, [more] int NOT NULL)");
    let mut landing = landing(11, Write::Append, &contract);
    landing.table = "needs".to_owned();
    let problem = bench.destination(&landing).unwrap().prepare().unwrap_err();
    assert!(problem.cause.contains("`more` is in the table only"), "{problem}");
}

#[test]
fn replacing_keeps_rows_that_others_refer_to() {
    let bench = TdsBench::new();
    let contract = small();
    land(&bench, &landing(1, Write::Replace, &contract), people(&contract, &[(1, "王", 1), (2, "李", 2)]));
    bench.run(&format!(
        "CREATE TABLE [dbo].[refers] ([person] bigint NOT NULL, FOREIGN KEY ([person]) REFERENCES {TARGET} ([id]))"
    ));
    bench.run("INSERT INTO [dbo].[refers] ([person]) VALUES (1)");
    let dry = bench.destination(&landing(2, Write::Replace, &contract)).unwrap().dry_run().unwrap().join("\n");
    assert!(dry.contains("refers to them"), "{dry}");
    let published =
        land(&bench, &landing(3, Write::Replace, &contract), people(&contract, &[(1, "王五", 1), (3, "赵", 3)]));
    assert_eq!((published.rows, published.inserted, published.updated, published.deleted), (2, 1, 1, 1));
    let mut destination = bench.destination(&landing(4, Write::Replace, &contract)).unwrap();
    destination.prepare().unwrap();
    destination.stage("a", [1; 32], &mut [Ok(people(&contract, &[(3, "赵", 3)]))].into_iter()).unwrap();
    let problem = destination.publish().unwrap_err();
    assert!(problem.code == Code::DestinationFailed && problem.cause.contains("refer to"), "{problem}");
    assert_eq!(bench.text(&format!("SELECT t.[name] FROM {TARGET} AS t ORDER BY t.[id]")), "王五\n赵");
}

#[test]
fn a_change_of_case_or_of_blanks_is_a_change() {
    let bench = TdsBench::new();
    bench.run(&format!(
        "CREATE TABLE {TARGET} ([id] bigint NOT NULL PRIMARY KEY, [name] nvarchar(20) COLLATE Chinese_PRC_CI_AS NULL, \
         [seen] datetime2(6) NULL)"
    ));
    let contract = small();
    land(&bench, &landing(1, Write::Upsert, &contract), people(&contract, &[(1, "ab", 1), (2, "cd", 2), (3, "ef", 3)]));
    let published = land(
        &bench,
        &landing(2, Write::Upsert, &contract),
        people(&contract, &[(1, "AB", 1), (2, "cd ", 2), (3, "ef", 3)]),
    );
    assert_eq!((published.updated, published.inserted), (2, 0));
    let expected = people(&contract, &[(1, "AB", 1), (2, "cd ", 2), (3, "ef", 3)]);
    let back = standing(&bench, &landing(2, Write::Upsert, &contract));
    assert_eq!(back.digest(&contract), crate::contract::digest(&contract, &[expected]));
}
