//! The table of every type that moves: its columns on both sides, the rows that it begins with, and how a stranger is
//! asked to show it.

use super::rows;
use posthouse_test_tds::Server;

pub(super) fn quoted(name: &str) -> String {
    format!("[{name}]")
}

/// A column as both sides show it alike. The zone in which an instant was written does not come along.
pub(super) fn shown(name: &str, first: &str, last: &str, side: usize) -> Option<String> {
    let declared = if side == 1 { first } else { last };
    let cast = |r#type: &str| Some(format!("CAST([{name}] AS {type})"));
    match first {
        "datetimeoffset(6)" => None,
        "uniqueidentifier" if side == 1 => Some(format!("LOWER(CAST([{name}] AS nvarchar(36)))")),
        "real" => cast("float(53)"),
        "rowversion" => cast("bigint"),
        "time(7)" => cast("nvarchar(20)"),
        "xml" | "ntext" | "text" => cast("nvarchar(max)"),
        "image" => cast("varbinary(max)"),
        _ if declared.starts_with("date") || declared.starts_with("smalldate") => cast("nvarchar(40)"),
        _ => Some(quoted(name)),
    }
}

/// Fills the first server: rows at the ends of every type, one of NULL, one of long values, and all but that one again
/// and again under other keys.
pub(super) fn make(server: &Server) {
    let columns: Vec<String> = COLUMNS
        .iter()
        .map(|(name, declared, _)| match *declared {
            "rowversion" => format!("[{name}] rowversion NOT NULL"),
            declared => format!("[{name}] {declared} NULL"),
        })
        .collect();
    let table = format!("CREATE TABLE [dbo].[every] ([id] int NOT NULL PRIMARY KEY, {})", columns.join(", "));
    server.batch(&table).expect("a table");
    let given: Vec<&str> = COLUMNS.iter().map(|(name, ..)| *name).filter(|name| *name != "mark").collect();
    let names: Vec<String> = given.iter().map(|name| quoted(name)).collect();
    let insert = format!("INSERT INTO [dbo].[every] ([id], {})", names.join(", "));
    let seeds = seeds();
    for (at, values) in seeds.iter().enumerate() {
        assert_eq!(values.len(), given.len(), "row {at}");
        let id = if at as u64 == ENDS { LONG } else { at as u64 };
        server.batch(&format!("{insert} VALUES ({id}, {})", values.join(", "))).expect("a row");
    }
    let mut ids = ENDS;
    while ids < rows() {
        let some = ids.min(rows() - ids);
        let copied = given.iter().map(|name| match *name {
            "n" => format!("[id] + {ids}"),
            "nv" => format!("CONCAT(N'户主 ', [id] + {ids})"),
            name => quoted(name),
        });
        let copied = copied.collect::<Vec<_>>().join(", ");
        let copy = format!("{insert} SELECT [id] + {ids}, {copied} FROM [dbo].[every] WHERE [id] < {some}");
        server.batch(&copy).expect("more rows");
        ids += some;
    }
}

/// Literals of the columns that are given.
fn seeds() -> Vec<Vec<String>> {
    let plain = |values: [&str; 32]| values.map(str::to_owned).to_vec();
    let most = [
        "1",
        "255",
        "32767",
        "2147483647",
        "9223372036854775807",
        "9999999999999999999999999999.9999999999",
        "9999999.99",
        "922337203685477.5807",
        "214748.3647",
        "1.5",
        "1.5E300",
        "N'驿站a'",
        "N'前置库 varchar'",
        "N'长'",
        "N'驿😀'",
        "N'驿站😀 '",
        "N''",
        "0xFFFFFFFF",
        "0x00",
        "0x",
        "'9999-12-31'",
        "'23:59:59.1234567'",
        "'9999-12-31 23:59:59.997'",
        "'2079-06-06 23:59'",
        "'9999-12-31 23:59:59.999999'",
        "'9999-12-31 12:00:00.123456 +08:00'",
        "'9999-12-31 23:59:59.999 +00:00'",
        "'FFFFFFFF-8B86-D011-B42D-00C04FC964FF'",
        "N'<a>驿</a>'",
        "N'旧'",
        "N'旧😀'",
        "0xDEADBEEF",
    ];
    let least = [
        "0",
        "0",
        "-32768",
        "-2147483648",
        "-9223372036854775808",
        "-9999999999999999999999999999.9999999999",
        "-9999999.99",
        "-922337203685477.5808",
        "-214748.3648",
        "-1.5",
        "-1.5E300",
        "N''",
        "N''",
        "N''",
        "N''",
        "N''",
        "N' '",
        "0x00000000",
        "0x",
        "0x00",
        "'0001-01-01'",
        "'00:00:00.0000001'",
        "'1753-01-01 00:00:00'",
        "'1900-01-01 00:00'",
        "'0001-01-01 00:00:00.000001'",
        "'0001-01-02 00:00:00.000001 +14:00'",
        "'0001-01-01 00:00:00.001 +00:00'",
        "'00000000-0000-0000-0000-000000000001'",
        "N'<b/>'",
        "N''",
        "N''",
        "0x",
    ];
    let small = [
        "1",
        "1",
        "-1",
        "0",
        "1",
        "0.0000000123",
        "-0.01",
        "0.0001",
        "-0.0001",
        "0.25",
        "-0.1",
        "N' a'",
        "N'a '",
        "N'it''s ]'",
        "N'a'",
        "N'𠮷田'",
        "N'a\u{301}'",
        "0x00FF00FF",
        "0x20",
        "0x00FF",
        "'2000-02-29'",
        "'12:34:56.7654321'",
        "'2026-11-22 05:09:25.003'",
        "'2026-11-22 05:09'",
        "'1969-12-31 23:59:59.999999'",
        "'2026-11-22 05:09:25.123456 -05:30'",
        "'2026-11-22 05:09:25.007 +00:00'",
        "'6F9619FF-8B86-D011-B42D-00C04FC964FF'",
        "N'<c d=\"1\">é</c>'",
        "N'text'",
        "N'ntext'",
        "0x01",
    ];
    let mut long = plain(small);
    let (narrow, wide) = (format!("N'{}'", "驿".repeat(50_000)), format!("N'{}'", "长𠮷".repeat(40_000)));
    let bytes = format!("0x{}", "00ff7f".repeat(40_000));
    let place = |name: &str| COLUMNS.iter().position(|(known, ..)| *known == name).expect("a column");
    for (name, value) in
        [("vm", &narrow), ("tx", &narrow), ("nm", &wide), ("ntx", &wide), ("vbm", &bytes), ("im", &bytes)]
    {
        long[place(name)].clone_from(value);
    }
    vec![plain(most), plain(least), plain(["NULL"; 32]), plain(small), long]
}

/// How many rows of short values are written out; the others are copies of them.
pub(super) const ENDS: u64 = 4;
/// The key of the row of long values.
pub(super) const LONG: u64 = 1_000_000_000;

/// Name, type at the first server, type at the last: the same, but for types that are not landed in.
pub(super) const COLUMNS: &[(&str, &str, &str)] = &[
    ("b", "bit", "bit"),
    ("ti", "tinyint", "tinyint"),
    ("si", "smallint", "smallint"),
    ("n", "int", "int"),
    ("bi", "bigint", "bigint"),
    ("d38", "decimal(38,10)", "decimal(38,10)"),
    ("d9", "numeric(9,2)", "numeric(9,2)"),
    ("m", "money", "money"),
    ("sm", "smallmoney", "smallmoney"),
    ("r", "real", "float(53)"),
    ("f", "float(53)", "float(53)"),
    ("c", "char(6)", "char(6)"),
    ("vc", "varchar(40)", "varchar(40)"),
    ("vm", "varchar(max)", "varchar(max)"),
    ("nc", "nchar(4)", "nchar(4)"),
    ("nv", "nvarchar(40)", "nvarchar(40)"),
    ("nm", "nvarchar(max)", "nvarchar(max)"),
    ("bn", "binary(4)", "binary(4)"),
    ("vb", "varbinary(20)", "varbinary(20)"),
    ("vbm", "varbinary(max)", "varbinary(max)"),
    ("dt", "date", "date"),
    ("t", "time(7)", "nvarchar(20)"),
    ("dtm", "datetime", "datetime"),
    ("sdt", "smalldatetime", "smalldatetime"),
    ("dt2", "datetime2(6)", "datetime2(6)"),
    ("dto", "datetimeoffset(6)", "datetimeoffset(6)"),
    ("dtz", "datetimeoffset(3)", "datetimeoffset(3)"),
    ("g", "uniqueidentifier", "nvarchar(36)"),
    ("x", "xml", "nvarchar(max)"),
    ("tx", "text", "varchar(max)"),
    ("ntx", "ntext", "nvarchar(max)"),
    ("im", "image", "varbinary(max)"),
    ("mark", "rowversion", "bigint"),
];
