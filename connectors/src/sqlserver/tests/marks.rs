//! Watermarks where they are easily lost: the steps of a `datetime`, and the outbox that a trigger fills, by the very
//! script of the documents.

use super::reading::{marked, run_from};
use super::*;
use crate::sqlserver::calendar;
use crate::{Read, TableSpec};
use posthouse_protocol::watermark::Watermark;

const DOCUMENT: &str = include_str!("../../../../docs/SQLSERVER.md");
const CHINESE: &str = include_str!("../../../../docs/SQLSERVER.zh-CN.md");

/// The batches of the script in a document.
fn script(document: &str) -> Vec<String> {
    let (_, rest) = document.split_once("```sql\n").unwrap();
    let (script, _) = rest.split_once("\n```").unwrap();
    script.split("\nGO\n").map(str::to_owned).collect()
}

#[test]
fn an_outbox_is_filled_by_the_documents_trigger_and_followed_by_its_rowversion() {
    let bench = TdsBench::new();
    bench.run("CREATE TABLE dbo.permits (permit_id nvarchar(32) NOT NULL PRIMARY KEY, holder nvarchar(100) NULL)");
    let batches = script(DOCUMENT);
    assert_eq!(batches.len(), 2, "a table and a trigger");
    assert_eq!(batches, script(CHINESE), "both languages have the same script");
    batches.iter().for_each(|batch| bench.run(batch));
    let spec = TableSpec { key: vec!["id".to_owned()], ..marked("dbo.permits_outbox", "mark") };
    bench.run("INSERT INTO dbo.permits VALUES (N'甲', N'王'), (N'乙', N'李')");
    let (keys, first) = run_from(&bench, &spec, None);
    assert_eq!(keys, ["1", "2"]);
    // Somebody is in the middle of a change while others have finished theirs: it is not missed.
    let mut slow = bench.client();
    slow.batch("SET TRANSACTION ISOLATION LEVEL READ COMMITTED; BEGIN TRANSACTION").unwrap();
    slow.batch("UPDATE dbo.permits SET holder = N'赵' WHERE permit_id = N'甲'").unwrap();
    bench.run("INSERT INTO dbo.permits VALUES (N'丙', N'钱')");
    bench.run("DELETE FROM dbo.permits WHERE permit_id = N'乙'");
    let (keys, second) = run_from(&bench, &spec, first);
    assert_eq!(keys, ["4", "5"]);
    slow.batch("COMMIT TRANSACTION").unwrap();
    let (keys, third) = run_from(&bench, &spec, second);
    assert!(keys.contains(&"3".to_owned()), "{keys:?}");
    assert_eq!(run_from(&bench, &spec, third).0, Vec::<String>::new());
    let outbox = "SELECT CONCAT(o.op, N' ', o.permit_id, N' ', o.holder) FROM dbo.permits_outbox AS o ORDER BY o.id";
    assert_eq!(bench.text(outbox), "I 甲 王\nI 乙 李\nU 甲 赵\nI 丙 钱\nD 乙 李");
}

#[test]
fn every_three_hundredth_is_a_time_of_its_own() {
    use tiberius::time::DateTime;
    let mut last = None;
    for fragments in 0..900u32 {
        let value = DateTime::new(45_616, fragments);
        let us = calendar::us_of_datetime(value).unwrap();
        assert!(last < Some(us), "{fragments}: they keep their order");
        assert_eq!(calendar::datetime(us), Some(value), "{fragments}");
        assert!([0, 3, 7].contains(&(us / 1_000 % 10)) && us % 1_000 == 0, "{fragments}");
        last = Some(us);
    }
}

#[test]
fn bounds_between_two_steps_of_a_datetime_lose_no_row() {
    let bench = TdsBench::new();
    let milliseconds = [0, 3, 7, 10, 13, 17, 20];
    let rows: Vec<String> = milliseconds.iter().map(|ms| format!("({ms}, '2026-11-22 05:09:25.{ms:03}')")).collect();
    bench.run("CREATE TABLE [dbo].[steps] ([id] int NOT NULL PRIMARY KEY, [at] datetime NOT NULL)");
    bench.run(&format!("INSERT INTO [dbo].[steps] ([id], [at]) VALUES {}", rows.join(", ")));
    let second = crate::types::parse_timestamp("2026-11-22 05:09:25").unwrap();
    let spec = marked("steps", "at");
    let ids = |of: &dyn Fn(i64) -> bool| {
        let mut ids: Vec<String> = milliseconds.iter().filter(|ms| of(**ms * 1_000)).map(|ms| ms.to_string()).collect();
        ids.sort();
        ids
    };
    // Marks of other engines, and what `late` takes off, fall between the steps.
    for us in (0..=20_500).step_by(500) {
        let (keys, _) = run_from(&bench, &spec, Some(Watermark::Timestamp(second + us)));
        assert_eq!(keys, ids(&|at| at >= us), "from {us} µs");
        let to = Some(Watermark::Timestamp(second + us));
        let mut source = bench.source(&spec).unwrap();
        let (_, found) = read_all(source.as_mut(), &Read { to, ..Read::default() });
        assert_eq!(found.count(), ids(&|at| at <= us).len(), "up to {us} µs");
    }
}
