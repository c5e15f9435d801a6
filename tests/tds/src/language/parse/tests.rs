//! What is read, what is refused, and that what is not known says so.

use super::super::tree::{Expression, QueryBody, Source, Statement};
use super::*;

fn one(text: &str) -> Statement {
    let mut statements = batch(text).expect("a batch");
    assert_eq!(statements.len(), 1, "{statements:?}");
    statements.remove(0)
}

#[test]
fn statements_of_a_batch_need_no_signs_between_them() {
    let statements =
        batch("SET XACT_ABORT ON; SET TRANSACTION ISOLATION LEVEL SNAPSHOT; BEGIN TRANSACTION SELECT 1 SELECT 2;;")
            .expect("a batch");
    assert_eq!(statements.len(), 5, "{statements:?}");
    assert!(batch(" ; ").expect("nothing").is_empty());
}

#[test]
fn joins_hints_and_derived_tables_are_read() {
    let Statement::Select(query) = one(
        "SELECT x.[n] AS [m], COUNT_BIG(*) FROM (SELECT t.[k] AS [n] FROM [dbo].[表] AS t WITH (TABLOCK, HOLDLOCK)) AS x \
         LEFT JOIN [s].[u] AS u ON u.[a]=x.[n] AND (u.b IS NULL OR NOT u.c <= 5) WHERE x.n % 3 = 0 GROUP BY x.[n] \
         HAVING COUNT_BIG(*) > 1 ORDER BY x.[n] DESC OFFSET 5 ROWS FETCH NEXT 2 ROWS ONLY",
    ) else {
        unreachable!("a query")
    };
    assert!(query.order[0].1 && query.fetch == Some(Expression::Integer(2)));
    let QueryBody::Select(select) = query.body else { unreachable!("a select") };
    let Some(Source::Join { left, .. }) = select.from else { unreachable!("a join") };
    let Source::Derived { query, .. } = *left else { unreachable!("derived") };
    let QueryBody::Select(inner) = query.body else { unreachable!("a select") };
    let Some(Source::Table { name, hints, .. }) = inner.from else { unreachable!("a table") };
    assert_eq!(name, ["dbo", "表"]);
    assert!(hints.hold && !hints.alone);
}

#[test]
fn tables_are_defined_with_all_that_a_column_may_say() {
    let Statement::CreateTable { columns, constraints, .. } = one(
        "CREATE TABLE [s].[t] ([a] int IDENTITY(1,1) NOT NULL, b nvarchar(max) COLLATE Chinese_PRC_BIN2 NULL DEFAULT N'x', \
         [c] AS ([a] + [a]), d decimal(38,10) CHECK (d > 0), rv rowversion, PRIMARY KEY ([a]), \
         CONSTRAINT fk FOREIGN KEY ([a]) REFERENCES [s].[u] ([b]) ON DELETE CASCADE)",
    ) else {
        unreachable!("a table")
    };
    assert_eq!(columns.len(), 5);
    assert_eq!(columns[0].identity, Some((1, 1)));
    assert_eq!(columns[1].default, Some((None, "N'x'".to_owned())));
    assert_eq!(columns[2].computed, Some(("([a] + [a])".to_owned(), false)));
    assert_eq!(constraints.len(), 3, "{constraints:?}");
}

#[test]
fn what_is_not_known_is_refused_and_noted() {
    for text in [
        "MERGE INTO t USING u ON 1=1",
        "SELECT * INTO x FROM t",
        "SELECT a FROM t WITH (NOEXPAND)",
        "INSERT INTO t (a) OUTPUT inserted.a VALUES (1)",
        "BEGIN TRY SELECT 1 END TRY",
        "SELECT 1 +",
        "SELECT sys.fn_varbintohexstr(0x1)",
        "GRANT SELECT ON t TO u",
    ] {
        let error = batch(text).expect_err(text);
        assert!(error.unknown, "{text}: {error}");
    }
}

#[test]
fn parameters_are_read_by_name_and_type() {
    let read = parameters("@P1 nvarchar(4000), @P2 numeric(38, 4) OUTPUT,@P3 datetime2").expect("parameters");
    let shown: Vec<String> =
        read.iter().map(|(name, to, back)| format!("{name} {} {back}", to.ty.declared())).collect();
    assert_eq!(shown, ["@P1 nvarchar(4000) false", "@P2 numeric(38,4) true", "@P3 datetime2(7) false"]);
}
