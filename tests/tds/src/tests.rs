//! The statements that the connector sends, and what they must do; through the session, without the line.

use super::*;

fn server() -> Server {
    Server::start(Options::default()).expect("a server")
}

fn cells(server: &Server, text: &str) -> Vec<Vec<String>> {
    let tables = server.batch(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let last = tables.into_iter().next_back().unwrap_or_default();
    let shown = |value: Option<String>| value.unwrap_or_else(|| "NULL".to_owned());
    last.rows.into_iter().map(|row| row.into_iter().map(shown).collect()).collect()
}

fn line(server: &Server, text: &str) -> String {
    let rows: Vec<String> = cells(server, text).iter().map(|row| row.join("|")).collect();
    rows.join(" ")
}

fn number(server: &Server, text: &str) -> u32 {
    match server.batch(text) {
        Err(error) => error.number,
        Ok(tables) => panic!("{text} went through: {tables:?}"),
    }
}

const TABLES: &str = "CREATE TABLE [dbo].[t] ([k] nvarchar(50) NOT NULL, [n] int NULL, [x] decimal(10,2) NULL, PRIMARY KEY ([k])); \
     CREATE TABLE [dbo].[s] ([posthouse_number] bigint NOT NULL PRIMARY KEY, [k] nvarchar(50) NOT NULL, [n] int NULL, \
     [x] decimal(10,2) NULL)";

#[test]
fn publishing_updates_inserts_and_deletes_by_key() {
    let server = server();
    server.batch(TABLES).expect("tables");
    server.batch("INSERT INTO [dbo].[t] VALUES (N'a', 1, 1.5), (N'b', NULL, 2), (N'gone', 3, 3)").expect("rows");
    server
        .batch("INSERT INTO [dbo].[s] VALUES (1, N'A ', 1, 1.50), (2, N'b', 2, NULL), (3, N'c', 3, 3)")
        .expect("rows");
    let keys = "s.[k] = t.[k]";
    let d = |c: &str| {
        format!(
            "s.[{c}] <> t.[{c}] OR (s.[{c}] IS NULL AND t.[{c}] IS NOT NULL) OR (s.[{c}] IS NOT NULL AND t.[{c}] IS NULL)"
        )
    };
    let differ = format!("({} OR {})", d("n"), d("x"));
    let range = "s.[posthouse_number] >= 1 AND s.[posthouse_number] <= 3";
    let from = format!("FROM [dbo].[s] AS s INNER JOIN [dbo].[t] AS t ON {keys} WHERE {differ}");
    assert_eq!(line(&server, &format!("SELECT s.[posthouse_number] {from} ORDER BY s.[posthouse_number]")), "2");
    assert_eq!(line(&server, &format!("SELECT COUNT_BIG(*) {from} AND {range}")), "1");
    server
        .batch(&format!(
            "UPDATE t SET t.[n] = s.[n], t.[x] = s.[x] FROM [dbo].[t] AS t INNER JOIN [dbo].[s] AS s ON {keys} WHERE {differ} AND {range}; \
             INSERT INTO [dbo].[t] ([k], [n], [x]) SELECT s.[k], s.[n], s.[x] FROM [dbo].[s] AS s WHERE {range} AND NOT EXISTS \
             (SELECT 1 FROM [dbo].[t] AS t WHERE {keys})"
        ))
        .expect("published");
    assert_eq!(
        line(
            &server,
            &format!(
                "SELECT COUNT_BIG(*) FROM [dbo].[t] AS t WHERE NOT EXISTS (SELECT 1 FROM [dbo].[s] AS s WHERE {keys})"
            )
        ),
        "1"
    );
    server
        .batch(&format!("DELETE t FROM [dbo].[t] AS t WHERE NOT EXISTS (SELECT 1 FROM [dbo].[s] AS s WHERE {keys})"))
        .expect("deleted");
    assert_eq!(
        line(&server, "SELECT t.[k], t.[n], t.[x] FROM [dbo].[t] AS t ORDER BY t.[k]"),
        "a|1|1.50 b|2|NULL c|3|3.00"
    );
    assert_eq!(server.unknown(), Vec::<String>::new());
}

#[test]
fn rows_without_a_key_are_matched_with_their_copies() {
    let server = server();
    server.batch(TABLES).expect("tables");
    server.batch("CREATE TABLE [dbo].[bag] ([k] nvarchar(50) NULL, [n] int NULL)").expect("a table");
    server.batch("INSERT INTO [dbo].[bag] VALUES (N'a', 1), (N'a', 1), (N'b', NULL)").expect("rows");
    server.batch("INSERT INTO [dbo].[s] ([posthouse_number], [k], [n]) VALUES (1, N'a', 1), (2, N'a', 1), (3, N'a', 1), (4, N'b', NULL), (5, N'B', NULL)").expect("rows");
    let side = |alias: &str, from: &str, extra: &str, order: &str| {
        format!(
            "(SELECT {extra}CAST({alias}.[k] AS varbinary(max)) AS [c0], {alias}.[n] AS [c1], ROW_NUMBER() OVER (PARTITION BY \
             CAST({alias}.[k] AS varbinary(max)), {alias}.[n] ORDER BY {order}) AS [posthouse_copy] FROM {from} AS {alias})"
        )
    };
    let text = format!(
        "SELECT a.[posthouse_number] FROM {} AS a INNER JOIN {} AS b ON a.[posthouse_copy] = b.[posthouse_copy] \
         AND (a.[c0] = b.[c0] OR (a.[c0] IS NULL AND b.[c0] IS NULL)) AND (a.[c1] = b.[c1] OR (a.[c1] IS NULL AND b.[c1] IS NULL)) \
         ORDER BY a.[posthouse_number]",
        side("s", "[dbo].[s]", "s.[posthouse_number], ", "s.[posthouse_number]"),
        side("t", "[dbo].[bag]", "", "t.[n]"),
    );
    assert_eq!(line(&server, &text), "1 2 4");
}

#[test]
fn joins_and_absences_over_many_rows_go_by_the_key() {
    let server = server();
    server.batch("CREATE TABLE [dbo].[a] ([id] int NOT NULL PRIMARY KEY, [v] int NULL); CREATE TABLE [dbo].[b] ([id] int NOT NULL PRIMARY KEY, [v] int NULL)").expect("tables");
    for first in (0..20_000).step_by(1000) {
        let rows =
            |step: i32| (first..first + 1000).map(|id| format!("({}, {id})", id * step)).collect::<Vec<_>>().join(", ");
        server
            .batch(&format!("INSERT INTO [dbo].[a] VALUES {}; INSERT INTO [dbo].[b] VALUES {}", rows(1), rows(2)))
            .expect("rows");
    }
    // Row by row this would be four hundred million comparisons.
    assert_eq!(
        line(&server, "SELECT COUNT_BIG(*) FROM [dbo].[a] AS a INNER JOIN [dbo].[b] AS b ON a.[id] = b.[id]"),
        "10000"
    );
    assert_eq!(
        line(
            &server,
            "SELECT COUNT_BIG(*) FROM [dbo].[a] AS a WHERE NOT EXISTS (SELECT 1 FROM [dbo].[b] AS b WHERE b.[id] = a.[id])"
        ),
        "10000"
    );
    assert_eq!(
        line(
            &server,
            "SELECT x.[b] FROM (SELECT t.[id] AS [b], ROW_NUMBER() OVER (ORDER BY t.[id]) AS [n] FROM [dbo].[a] AS t WHERE 1 = 1) AS x WHERE x.[n] % 5000 = 0 ORDER BY x.[n]"
        ),
        "4999 9999 14999 19999"
    );
}

#[test]
fn a_duplicate_in_a_set_of_rows_is_told_by_an_exists_of_the_same_table() {
    let server = server();
    server.batch(TABLES).expect("tables");
    server
        .batch("INSERT INTO [dbo].[s] ([posthouse_number], [k]) VALUES (1, N'a'), (2, N'b'), (3, N'A'), (4, N'a ')")
        .expect("rows");
    assert_eq!(
        line(
            &server,
            "SELECT s.[posthouse_number] FROM [dbo].[s] AS s WHERE EXISTS (SELECT 1 FROM [dbo].[s] AS e WHERE e.[k] = s.[k] AND e.[posthouse_number] < s.[posthouse_number]) ORDER BY s.[posthouse_number]"
        ),
        "3 4"
    );
    assert_eq!(
        line(
            &server,
            "SELECT TOP (1) t.[k] FROM [dbo].[s] AS t WHERE t.[k] IS NOT NULL GROUP BY t.[k] HAVING COUNT_BIG(*) > 1"
        ),
        "a"
    );
    assert_eq!(number(&server, "SELECT t.[k], t.[n] FROM [dbo].[s] AS t GROUP BY t.[k]"), 8120);
}

#[test]
fn an_error_ends_its_statement_or_its_transaction_as_the_session_says() {
    let server = server();
    server.batch(TABLES).expect("tables");
    let state = "SELECT CAST(XACT_STATE() AS int), @@TRANCOUNT";
    let after = |options: &str, wrong: &str| {
        let batch = format!("{options} BEGIN TRANSACTION; INSERT INTO [dbo].[t] VALUES (N'a', 1, 1); {wrong}");
        let mut session = crate::language::engine::Session::new(engine(&server), 9, "sa");
        let mut quiet = Quiet::default();
        let _ = session.batch(&batch, &mut quiet);
        let mut said = Quiet::default();
        let _ = session.batch(state, &mut said);
        said.0.join("|")
    };
    let twice = "INSERT INTO [dbo].[t] VALUES (N'A', 2, 2)";
    assert_eq!(after("SET XACT_ABORT OFF;", twice), "1|1");
    assert_eq!(after("SET XACT_ABORT ON;", twice), "0|0");
    assert_eq!(after("SET XACT_ABORT OFF;", "SELECT CAST(N'x' AS int)"), "0|0");
    assert_eq!(line(&server, "SELECT COUNT(*) FROM [dbo].[t]"), "0", "what is open goes with its session");
}

#[test]
fn constraints_identities_and_columns_of_their_own_kind() {
    let server = server();
    server
        .batch(
            "CREATE TABLE [dbo].[p] ([a] int IDENTITY(1,1) NOT NULL PRIMARY KEY, [b] int NULL DEFAULT 7, [c] AS ([b] + 1), \
             [rv] rowversion, [u] nvarchar(10) NULL, UNIQUE ([u]), CHECK ([b] > 0)); \
             CREATE TABLE [dbo].[q] ([id] int NOT NULL PRIMARY KEY, [a] int NULL, FOREIGN KEY ([a]) REFERENCES [dbo].[p] ([a]) ON DELETE CASCADE)",
        )
        .expect("tables");
    server
        .batch("INSERT INTO [dbo].[p] ([u]) VALUES (N'x'); INSERT INTO [dbo].[p] ([b], [u]) VALUES (2, NULL)")
        .expect("rows");
    assert_eq!(line(&server, "SELECT [a], [b], [c], [u] FROM [dbo].[p]"), "1|7|8|x 2|2|3|NULL");
    assert_eq!(
        number(&server, "INSERT INTO [dbo].[p] ([u]) VALUES (NULL)"),
        2627,
        "a null is one value of a unique key"
    );
    assert_eq!(number(&server, "INSERT INTO [dbo].[p] ([b]) VALUES (0)"), 547);
    assert_eq!(number(&server, "INSERT INTO [dbo].[p] ([a]) VALUES (9)"), 544);
    assert_eq!(number(&server, "INSERT INTO [dbo].[p] ([c]) VALUES (9)"), 271);
    server.batch("SET IDENTITY_INSERT [dbo].[p] ON; INSERT INTO [dbo].[p] ([a], [u]) VALUES (9, N'y'); SET IDENTITY_INSERT [dbo].[p] OFF; INSERT INTO [dbo].[p] ([u]) VALUES (N'z')").expect("rows");
    assert_eq!(line(&server, "SELECT MAX([a]) FROM [dbo].[p]"), "10");
    assert_eq!(number(&server, "INSERT INTO [dbo].[q] VALUES (1, 5)"), 547);
    server.batch("INSERT INTO [dbo].[q] VALUES (1, 1), (2, 2); DELETE FROM [dbo].[p] WHERE [a] = 1").expect("cascade");
    assert_eq!(line(&server, "SELECT [id] FROM [dbo].[q]"), "2");
    let before = line(&server, "SELECT CAST([rv] AS bigint) FROM [dbo].[p] WHERE [a] = 2");
    server.batch("UPDATE [dbo].[p] SET [b] = 3 WHERE [a] = 2").expect("an update");
    let after = line(&server, "SELECT CAST([rv] AS bigint) FROM [dbo].[p] WHERE [a] = 2");
    assert!(after.parse::<i64>().expect("a number") > before.parse::<i64>().expect("a number"));
    assert_eq!(
        line(&server, "SELECT COUNT(*) FROM [dbo].[p] AS t WHERE t.[rv] < CAST(MIN_ACTIVE_ROWVERSION() AS binary(8))"),
        line(&server, "SELECT COUNT(*) FROM [dbo].[p]")
    );
}

#[test]
fn the_catalogue_tells_columns_keys_and_comments() {
    let server = server();
    server
        .batch(
            "CREATE SCHEMA [共]; CREATE TABLE [共].[表] ([号] int NOT NULL, [名] varchar(20) COLLATE Chinese_PRC_CI_AS NULL, \
             [d] decimal(38,10) NULL, [m] nvarchar(max) NULL, CONSTRAINT pk PRIMARY KEY ([号])); \
             EXEC sys.sp_addextendedproperty @name = N'MS_Description', @value = N'姓名', @level0type = N'SCHEMA', @level0name = N'共', \
             @level1type = N'TABLE', @level1name = N'表', @level2type = N'COLUMN', @level2name = N'名'",
        )
        .expect("a table");
    let text = "SELECT c.name, c.system_type_id, c.max_length, c.precision, c.scale, c.collation_name, \
         CAST(COLLATIONPROPERTY(c.collation_name, N'CodePage') AS int), c.is_nullable, TYPE_NAME(c.user_type_id), CAST(d.value AS nvarchar(4000)) \
         FROM sys.columns AS c LEFT JOIN sys.extended_properties AS d ON d.class = 1 AND d.major_id = c.object_id AND d.minor_id = c.column_id \
         AND d.name = N'MS_Description' WHERE c.object_id = OBJECT_ID(N'[共].[表]') ORDER BY c.column_id";
    assert_eq!(
        cells(&server, text).iter().map(|row| row.join("|")).collect::<Vec<_>>(),
        [
            "号|56|4|10|0|NULL|NULL|0|int|NULL",
            "名|167|20|0|0|Chinese_PRC_CI_AS|936|1|varchar|姓名",
            "d|106|17|38|10|NULL|NULL|1|decimal|NULL",
            "m|231|-1|0|0|Chinese_PRC_CI_AS|936|1|nvarchar|NULL",
        ]
    );
    let keys = "SELECT i.index_id, i.is_primary_key, c.name FROM sys.indexes AS i INNER JOIN sys.index_columns AS k ON k.object_id = i.object_id \
         AND k.index_id = i.index_id INNER JOIN sys.columns AS c ON c.object_id = k.object_id AND c.column_id = k.column_id \
         WHERE i.object_id = OBJECT_ID(N'[共].[表]') AND i.is_unique = 1 AND i.has_filter = 0 AND i.is_disabled = 0 AND k.is_included_column = 0 \
         ORDER BY i.is_primary_key DESC, i.index_id, k.key_ordinal";
    assert_eq!(line(&server, keys), "1|1|号");
    assert_eq!(
        line(
            &server,
            "SELECT r.name, r.system_type_id, r.system_type_name FROM sys.dm_exec_describe_first_result_set(N'SELECT [号], [d] FROM [共].[表]', NULL, 0) AS r WHERE r.is_hidden = 0 ORDER BY r.column_ordinal"
        ),
        "号|56|int d|106|decimal(38,10)"
    );
    assert_eq!(
        line(
            &server,
            "SELECT o.type FROM sys.objects AS o INNER JOIN sys.schemas AS s ON s.schema_id = o.schema_id WHERE s.name = N'共' AND o.name = N'表'"
        ),
        "U "
    );
    assert_eq!(server.unknown(), Vec::<String>::new());
}

#[test]
fn a_collation_conflict_is_an_error_unless_somebody_decides() {
    let server = server();
    server.batch("CREATE TABLE [dbo].[a] ([k] nvarchar(9) COLLATE Latin1_General_100_BIN2 NULL); CREATE TABLE [dbo].[b] ([k] nvarchar(9) NULL)").expect("tables");
    server.batch("INSERT INTO [dbo].[a] VALUES (N'x'), (N'X'); INSERT INTO [dbo].[b] VALUES (N'x')").expect("rows");
    let join = |on: &str| format!("SELECT COUNT(*) FROM [dbo].[a] AS a INNER JOIN [dbo].[b] AS b ON {on}");
    assert_eq!(number(&server, &join("a.[k] = b.[k]")), 468);
    assert_eq!(line(&server, &join("a.[k] = b.[k] COLLATE Latin1_General_100_BIN2")), "1");
    assert_eq!(line(&server, &join("a.[k] COLLATE Chinese_PRC_CI_AS = b.[k]")), "2");
}

#[test]
fn a_trigger_writes_what_changed_beside_it() {
    let server = server();
    server.batch("CREATE TABLE [dbo].[src] ([id] int NOT NULL PRIMARY KEY, [v] int NULL); CREATE TABLE [dbo].[outbox] ([n] bigint IDENTITY(1,1) NOT NULL PRIMARY KEY, [op] char(1) NOT NULL, [id] int NOT NULL)").expect("tables");
    server
        .batch(
            "CREATE TRIGGER [dbo].[src_outbox] ON [dbo].[src] AFTER INSERT, UPDATE, DELETE AS BEGIN SET NOCOUNT ON; \
             INSERT INTO [dbo].[outbox] ([op], [id]) SELECT 'D', d.[id] FROM deleted AS d WHERE NOT EXISTS (SELECT 1 FROM inserted AS i WHERE i.[id] = d.[id]); \
             INSERT INTO [dbo].[outbox] ([op], [id]) SELECT CASE WHEN EXISTS (SELECT 1 FROM deleted AS d WHERE d.[id] = i.[id]) THEN 'U' ELSE 'I' END, i.[id] FROM inserted AS i; END",
        )
        .expect("a trigger");
    server.batch("INSERT INTO [dbo].[src] VALUES (1, 1), (2, 2)").expect("rows");
    server
        .batch("UPDATE [dbo].[src] SET [v] = 9 WHERE [id] = 2; DELETE FROM [dbo].[src] WHERE [id] = 1")
        .expect("changes");
    assert_eq!(line(&server, "SELECT [op], [id] FROM [dbo].[outbox] ORDER BY [n]"), "I|1 I|2 U|2 D|1");
}

#[test]
fn who_may_read_and_write_rows_makes_nothing() {
    let server = Server::start(Options { rows_only: true, ..Options::default() }).expect("a server");
    server.batch("CREATE TABLE [dbo].[t] ([id] int NOT NULL)").expect("the DBA may");
    let mut session = crate::language::engine::Session::new(engine(&server), 9, "posthouse");
    let mut refused = |text: &str| {
        let mut collected = crate::server::Collected::default();
        let _ = session.batch(text, &mut collected);
        collected.error.map(|error| error.number)
    };
    for text in
        ["CREATE TABLE [dbo].[u] ([id] int NOT NULL)", "DROP TABLE [dbo].[t]", "EXEC sp_rename N'[dbo].[t]', N'u'"]
    {
        assert_eq!(refused(text), Some(262), "{text}");
    }
    assert_eq!(refused("INSERT INTO [dbo].[t] VALUES (1); DELETE FROM [dbo].[t]"), None);
}

#[test]
fn counts_beside_results_are_false_where_a_test_wants_them_so() {
    let server = Server::start(Options { false_counts: true, ..Options::default() }).expect("a server");
    server.batch("CREATE TABLE [dbo].[t] ([id] int NOT NULL); INSERT INTO [dbo].[t] VALUES (1), (2)").expect("rows");
    let session = crate::language::engine::Session::new(engine(&server), 9, "sa");
    assert_ne!(session.told(2), 2);
    assert_eq!(line(&server, "SELECT COUNT(*) FROM [dbo].[t]"), "2", "who asks is told the truth");
}

#[test]
fn names_are_changed_within_a_transaction_and_come_back_with_it() {
    let server = server();
    server.batch("CREATE TABLE [dbo].[old] ([id] int NOT NULL); INSERT INTO [dbo].[old] VALUES (1); CREATE TABLE [dbo].[new] ([id] int NOT NULL); INSERT INTO [dbo].[new] VALUES (2)").expect("tables");
    let swap = "BEGIN TRANSACTION; EXEC sp_rename N'[dbo].[old]', N'aside'; EXEC sp_rename N'[dbo].[new]', N'old'; DROP TABLE [dbo].[aside]";
    assert_eq!(line(&server, &format!("{swap}; ROLLBACK TRANSACTION; SELECT [id] FROM [dbo].[old]")), "1");
    assert_eq!(line(&server, &format!("{swap}; COMMIT TRANSACTION; SELECT [id] FROM [dbo].[old]")), "2");
    assert_eq!(number(&server, "SELECT * FROM [dbo].[new]"), 208);
}

#[test]
fn a_lock_is_waited_for_and_the_wait_ends() {
    let server = Server::start(Options { lock_timeout: std::time::Duration::from_secs(30), ..Options::default() })
        .expect("a server");
    server
        .batch("CREATE TABLE [dbo].[t] ([id] int NOT NULL PRIMARY KEY); INSERT INTO [dbo].[t] VALUES (1)")
        .expect("a table");
    let mut holder = crate::language::engine::Session::new(engine(&server), 9, "sa");
    let mut quiet = Quiet::default();
    let _ = holder
        .batch("BEGIN TRANSACTION; SELECT COUNT_BIG(*) FROM [dbo].[t] AS t WITH (TABLOCKX, HOLDLOCK)", &mut quiet);
    assert_eq!(number(&server, "SET LOCK_TIMEOUT 50; INSERT INTO [dbo].[t] VALUES (2)"), 1222);
    assert_eq!(
        number(&server, "SET LOCK_TIMEOUT 50; SELECT TOP (1) 1 FROM [dbo].[t] AS t WITH (TABLOCK, HOLDLOCK)"),
        1222
    );
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| server.batch("INSERT INTO [dbo].[t] VALUES (2)").map(|_| ()));
        let _ = holder.batch("COMMIT TRANSACTION", &mut quiet);
        assert_eq!(waiting.join().expect("a thread"), Ok(()));
    });
    assert_eq!(line(&server, "SELECT COUNT(*) FROM [dbo].[t]"), "2");
}

#[test]
fn rows_that_are_held_for_an_update_are_held_one_by_one() {
    let server = server();
    server
        .batch("CREATE TABLE [dbo].[a] ([t] int NOT NULL, [n] bigint NOT NULL, PRIMARY KEY ([t], [n])); INSERT INTO [dbo].[a] VALUES (1, 5), (2, 6)")
        .expect("a table");
    let mut holder = crate::language::engine::Session::new(engine(&server), 9, "sa");
    let mut quiet = Quiet::default();
    let held = |transfer: i32| format!("SELECT MAX(a.[n]) FROM [dbo].[a] AS a WITH (UPDLOCK) WHERE a.[t] = {transfer}");
    let _ = holder.batch(&format!("BEGIN TRANSACTION; {}", held(1)), &mut quiet);
    assert_eq!(quiet.0, ["5"]);
    let soon = "SET LOCK_TIMEOUT 50;";
    assert_eq!(number(&server, &format!("{soon} {}", held(1))), 1222);
    assert_eq!(number(&server, &format!("{soon} DELETE FROM [dbo].[a] WHERE [t] = 1")), 1222);
    assert_eq!(line(&server, &format!("{soon} {}", held(2))), "6");
    assert_eq!(
        line(&server, &format!("{soon} INSERT INTO [dbo].[a] VALUES (3, 7); SELECT COUNT(*) FROM [dbo].[a]")),
        "3"
    );
    // A row that is not committed is waited for as well.
    let _ = holder.batch("INSERT INTO [dbo].[a] VALUES (4, 8)", &mut quiet);
    assert_eq!(number(&server, &format!("{soon} {}", held(4))), 1222);
    let _ = holder.batch("ROLLBACK TRANSACTION", &mut quiet);
    assert_eq!(line(&server, &format!("{soon} {}", held(4))), "NULL");
}

#[test]
fn members_of_a_query_are_found_among_many() {
    let server = server();
    server.batch("CREATE TABLE [dbo].[m] ([id] bigint NOT NULL PRIMARY KEY, [v] int NULL)").expect("a table");
    for first in (0..20_000).step_by(1000) {
        let rows: Vec<String> = (first..first + 1000).map(|id| format!("({id}, {})", id / 2)).collect();
        server.batch(&format!("INSERT INTO [dbo].[m] VALUES {}", rows.join(", "))).expect("rows");
    }
    server
        .batch("DELETE FROM [dbo].[m] WHERE [id] IN (SELECT a.[id] FROM (SELECT t.[id] FROM [dbo].[m] AS t WHERE t.[id] % 2 = 1) AS a)")
        .expect("deleted");
    assert_eq!(line(&server, "SELECT COUNT_BIG(*), MAX(m.[id]) FROM [dbo].[m] AS m"), "10000|19998");
    assert_eq!(
        line(&server, "SELECT COUNT(*) FROM [dbo].[m] AS m WHERE m.[id] NOT IN (SELECT x.[v] FROM [dbo].[m] AS x)"),
        "5000"
    );
}

#[test]
fn what_was_committed_outlives_a_kill_and_the_rest_does_not() {
    let mut server = server();
    server
        .batch("CREATE TABLE [dbo].[t] ([id] int NOT NULL PRIMARY KEY); INSERT INTO [dbo].[t] VALUES (1)")
        .expect("a table");
    let mut session = crate::language::engine::Session::new(engine(&server), 9, "sa");
    let mut quiet = Quiet::default();
    let _ = session.batch("BEGIN TRANSACTION; INSERT INTO [dbo].[t] VALUES (2)", &mut quiet);
    let before = server.addr();
    server.kill();
    server.restart().expect("it listens again");
    assert_eq!(server.addr(), before);
    assert_eq!(server.tables()["dbo.t"], [vec![Some("1".to_owned())]]);
}

#[test]
fn faults_come_where_they_were_asked_for() {
    let server = server();
    server.batch(TABLES).expect("tables");
    server.fault(Fault::ErrorAtStatement { after: 1, number: 1205 });
    server.batch("SELECT 1").expect("the first goes through");
    assert_eq!(number(&server, "SELECT 1"), 1205);
    server.fault(Fault::ErrorInResult { after_rows: 1, number: 50_001 });
    server.batch("INSERT INTO [dbo].[t] VALUES (N'a', 1, 1), (N'b', 1, 1)").expect("rows");
    assert_eq!(number(&server, "SELECT * FROM [dbo].[t]"), 50_001);
    server.fault(Fault::ErrorAtCommit { number: 9002 });
    assert_eq!(number(&server, "BEGIN TRANSACTION; DELETE FROM [dbo].[t]; COMMIT TRANSACTION"), 9002);
    assert_eq!(line(&server, "SELECT COUNT(*) FROM [dbo].[t]"), "2");
    assert!(server.faults_left().is_empty());
}

#[test]
fn whatever_is_not_known_is_an_error_and_is_noted() {
    let server = server();
    server.batch(TABLES).expect("tables");
    let wrong = [
        "MERGE INTO [dbo].[t] USING [dbo].[s] ON 1 = 1 WHEN MATCHED THEN DELETE;",
        "SELECT * FROM sys.dm_os_wait_stats",
        "SELECT CHECKSUM_AGG(1)",
        "SET STATISTICS IO ON",
        "EXEC sp_who",
        "SELECT @@CPU_BUSY",
        "SELECT * FROM [dbo].[t] WITH (INDEX(1))",
    ];
    for (at, text) in wrong.iter().enumerate() {
        server.batch(text).expect_err(text);
        assert_eq!(server.unknown().len(), at + 1, "{text}: {:?}", server.unknown());
    }
}

fn engine(server: &Server) -> std::sync::Arc<crate::language::engine::Engine> {
    server.engine()
}

/// The values that came, as texts.
#[derive(Default)]
struct Quiet(Vec<String>);

impl crate::language::engine::Sink for Quiet {
    fn put(&mut self, event: crate::language::engine::Event) -> Result<(), crate::language::engine::Gone> {
        if let crate::language::engine::Event::Rows(rows) = event {
            for value in rows.iter().flat_map(|row| row.iter()) {
                let ty = store::Type::of(store::Kind::Int);
                self.0.push(store::convert::show(value, ty, None));
            }
        }
        Ok(())
    }
}
