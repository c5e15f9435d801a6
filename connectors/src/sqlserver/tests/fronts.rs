//! Front-end tables whose rows are told apart by several columns, of texts and of numbers beyond 64 bits: such values go
//! as texts, and are cast to what their columns are.

use super::*;
use crate::front::{FrontRow, FrontSpec, Part};

#[test]
fn rows_are_told_apart_by_texts_and_large_numbers() {
    let bench = TdsBench::new();
    bench.run(
        "CREATE TABLE [dbo].[bg] ([k] nvarchar(20) NOT NULL, [c] char(4) NOT NULL, [d] decimal(20,0) NOT NULL, \
         [name] nvarchar(20) NULL, [clzt] nvarchar(1) NULL, [rv] rowversion NOT NULL, PRIMARY KEY ([k], [c], [d]))",
    );
    bench.run("INSERT INTO [dbo].[bg] ([k], [c], [d], [clzt]) VALUES (N'甲', 'a', 42, N'0'), (N'乙', 'b', 1, N'0')");
    let spec = FrontSpec {
        table: "dbo.bg".to_owned(),
        key: vec!["k".to_owned()],
        flag: "clzt".to_owned(),
        from: "0".to_owned(),
        to: "1".to_owned(),
        purges: true,
        resource: "node.example/bg".to_owned(),
    };
    let mut front = bench.front(&spec).unwrap();
    assert_eq!(front.plan().unwrap().row, ["k", "c", "d"]);
    let row = |k: &str, c: &str, d: &str, version: String| FrontRow {
        row: vec![Part::Text(k.to_owned()), Part::Text(c.to_owned()), Part::Digits(d.to_owned())],
        version,
    };
    let version = bench.text("SELECT CAST(t.[rv] AS bigint) FROM [dbo].[bg] AS t WHERE t.[k] = N'甲'");
    let mut rows = [row("甲", "a", "42", version), row("乙", "b", "1", "0".to_owned())];
    assert_eq!(front.mark(&mut rows).unwrap(), 1, "one of them was changed since");
    assert_eq!(bench.text("SELECT t.[k] FROM [dbo].[bg] AS t WHERE t.[clzt] = N'0'"), "乙");
    assert_eq!(front.purge(&rows).unwrap(), 1);
    assert_eq!(bench.text("SELECT t.[k] FROM [dbo].[bg] AS t"), "乙");
}
