//! Rows that the target refuses: found one by one whatever refuses them, while all others land; and keys that the
//! collation takes for one.

use super::*;
use posthouse_protocol::problem::Code;

fn stage_and_publish(bench: &TdsBench, landing: &crate::Landing, rows: &[(i64, &str, i64)]) -> Published {
    land(bench, landing, people(&landing.contract, rows))
}

#[test]
fn rows_that_constraints_refuse_are_quarantined_and_all_others_land() {
    let bench = TdsBench::new();
    bench.run(&format!(
        "CREATE TABLE {TARGET} ([id] bigint NOT NULL PRIMARY KEY, [name] nvarchar(20) NULL, [seen] datetime2(6) NULL, \
         UNIQUE ([name]), CHECK ([id] > 0))"
    ));
    let contract = small();
    let names: Vec<String> = (0..100).map(|id| format!("n{id}")).collect();
    let mut rows: Vec<(i64, &str, i64)> = (1..100).map(|id| (id, names[id as usize].as_str(), id)).collect();
    // A number that a check refuses, and a name that comes twice.
    rows.push((-5, "minus", 1));
    rows.push((200, "n17", 1));
    for (number, write) in [Write::Append, Write::Upsert, Write::Replace].into_iter().enumerate() {
        let published = stage_and_publish(&bench, &landing(number as u8, write, &contract), &rows);
        assert_eq!((published.rows, published.quarantined), (99, 2), "{write}");
        assert_eq!(bench.target_rows(), 99, "{write}");
    }
    let mut reasons = bench.reasons();
    reasons.sort();
    reasons.dedup();
    let told: Vec<(&str, Option<i64>)> = reasons.iter().map(|(key, code, _)| (key.as_str(), *code)).collect();
    assert_eq!(told, [("-5", Some(547)), ("200", Some(2_627))]);
}

#[test]
fn a_row_that_refers_to_one_behind_it_lands() {
    let bench = TdsBench::new();
    bench.run(
        "CREATE TABLE [dbo].[tree] ([id] bigint NOT NULL PRIMARY KEY, [above] bigint NULL, \
         FOREIGN KEY ([above]) REFERENCES [dbo].[tree] ([id]))",
    );
    let mut id = item("id", ContractType::Integer);
    id.nullable = false;
    let contract = Contract { items: vec![id, item("above", ContractType::Integer)], key: vec!["id".to_owned()] };
    let mut landing = landing(1, Write::Append, &contract);
    landing.table = "tree".to_owned();
    let mut builder = BatchBuilder::new(&contract);
    for (id, above) in [(1, Some(3)), (2, Some(99)), (3, None), (4, Some(1))] {
        builder.push(&[Value::Integer(id), above.map_or(Value::Null, Value::Integer)]).unwrap();
    }
    let published = land(&bench, &landing, builder.finish().unwrap());
    assert_eq!((published.rows, published.quarantined), (3, 1));
    assert_eq!(bench.text("SELECT t.[id] FROM [dbo].[tree] AS t ORDER BY t.[id]"), "1\n3\n4");
}

#[test]
fn keys_that_the_tables_collation_takes_for_one_are_one() {
    let bench = TdsBench::new();
    bench.run(&format!(
        "CREATE TABLE {TARGET} ([id] bigint NOT NULL, [name] nvarchar(20) COLLATE Chinese_PRC_CI_AS NOT NULL PRIMARY KEY, \
         [seen] datetime2(6) NULL)"
    ));
    let mut contract = small();
    contract.key = vec!["name".to_owned()];
    contract.items[1].nullable = false;
    let published =
        stage_and_publish(&bench, &landing(1, Write::Append, &contract), &[(1, "ab", 1), (2, "AB", 2), (3, "ab ", 3)]);
    assert_eq!((published.rows, published.quarantined), (1, 2));
}

#[test]
fn a_staged_row_that_is_gone_is_noticed() {
    let bench = TdsBench::new();
    let contract = small();
    let mut destination = bench.destination(&landing(1, Write::Append, &contract)).unwrap();
    destination.prepare().unwrap();
    destination.stage("a", [1; 32], &mut [Ok(people(&contract, &[(1, "王", 1), (2, "李", 2)]))].into_iter()).unwrap();
    let staging = bench.text("SELECT o.name FROM sys.objects AS o WHERE o.name LIKE N'posthouse_staging%'");
    bench.run(&format!("DELETE FROM [dbo].[{staging}] WHERE [posthouse_number] = 2"));
    let problem = destination.publish().unwrap_err();
    assert!(problem.code == Code::DestinationFailed && problem.cause.contains("2 rows were staged"), "{problem}");
    assert_eq!(bench.target_rows(), 0);
}
