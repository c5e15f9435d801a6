//! The types themselves, a row for each: literals at the edges of what the engine keeps, and where one of them is bad.

use super::super::super::Engine;
use super::super::super::look::Means;

/// Declaration, meaning, expression that shows it, values.
pub(super) type Row = (&'static str, Means, &'static str, &'static [(&'static str, &'static [Engine])]);

pub(super) const NOWHERE: &[Engine] = &[];
pub(super) const ALL: &[Engine] = &[Engine::Postgres, Engine::MariaDb, Engine::Sqlite, Engine::SqlServer];
/// Neither has infinities.
const ENDLESS: &[Engine] = &[Engine::MariaDb, Engine::SqlServer];
/// Years of four digits.
const FAR: &[Engine] = &[Engine::MariaDb, Engine::Sqlite, Engine::SqlServer];
/// Its texts have no character 0.
const NUL: &[Engine] = &[Engine::Postgres];
/// A `char(255)` is the longest.
const LONG: &[Engine] = &[Engine::MariaDb];

const POSTGRES_TEXTS: &[(&str, &[Engine])] = &[
    ("''", NOWHERE),
    ("' '", NOWHERE),
    ("'a '", NOWHERE),
    ("'it''s \"quoted\"; --'", NOWHERE),
    ("'𠮷田 䶮 é'", NOWHERE),
    ("E'line\\r\\nbreak\\ttab\\\\ \\u0001'", NOWHERE),
    ("'NULL'", NOWHERE),
    ("'\\N'", NOWHERE),
    ("repeat('長', 3000)", NOWHERE),
];
const STAMPS: &[(&str, &[Engine])] = &[
    ("'0001-01-01 00:00:00'", NOWHERE),
    ("'1969-12-31 23:59:59.999999'", NOWHERE),
    ("'2026-11-22 05:09:25.123456'", NOWHERE),
    ("'9999-12-31 23:59:59.999999'", NOWHERE),
    ("'10000-01-01 00:00:00'", FAR),
    ("'4713-01-01 00:00:00 BC'", FAR),
    ("'infinity'", ENDLESS),
    ("'294276-12-31 23:59:59'", ALL),
];

pub(super) const POSTGRES: &[Row] = &[
    ("bool", Means::Boolean, "", &[("true", NOWHERE), ("false", NOWHERE)]),
    ("int2", Means::Exact, "", &[("'-32768'", NOWHERE), ("32767", NOWHERE)]),
    ("int4", Means::Exact, "", &[("'-2147483648'", NOWHERE), ("2147483647", NOWHERE)]),
    ("int8", Means::Exact, "", &[("'-9223372036854775808'", NOWHERE), ("9223372036854775807", NOWHERE)]),
    (
        "float4",
        Means::Float,
        "",
        &[("0.1", NOWHERE), ("'1e-45'", NOWHERE), ("'3.4028235e38'", NOWHERE), ("'NaN'", FAR), ("'Infinity'", ENDLESS)],
    ),
    (
        "float8",
        Means::Float,
        "",
        &[
            ("0.1", NOWHERE),
            ("'-0'", NOWHERE),
            ("'5e-324'", NOWHERE),
            ("'1.7976931348623157e308'", NOWHERE),
            ("'NaN'", FAR),
            ("'-Infinity'", ENDLESS),
        ],
    ),
    (
        "numeric",
        Means::Exact,
        "",
        &[
            ("'NaN'", NOWHERE),
            ("'-Infinity'", NOWHERE),
            ("'12.3400'", NOWHERE),
            ("'-0.00'", NOWHERE),
            ("'1e300'", NOWHERE),
            ("'-1e-300'", NOWHERE),
            ("rpad('-', 1000, '9')", NOWHERE),
        ],
    ),
    ("text", Means::Text, "", POSTGRES_TEXTS),
    ("varchar", Means::Text, "", POSTGRES_TEXTS),
    ("varchar(9)", Means::Text, "", POSTGRES_TEXTS),
    ("char(12)", Means::Char, "", POSTGRES_TEXTS),
    ("bytea", Means::Bytes, "", &[("''", NOWHERE), ("'\\x00ff80'", NOWHERE), ("repeat('z', 5000)", NOWHERE)]),
    (
        "date",
        Means::Date,
        "",
        &[
            ("'0001-01-01'", NOWHERE),
            ("'1969-12-31'", NOWHERE),
            ("'2000-02-29'", NOWHERE),
            ("'9999-12-31'", NOWHERE),
            ("'5874897-12-31'", FAR),
            ("'4713-01-01 BC'", FAR),
            ("'-infinity'", ENDLESS),
        ],
    ),
    ("timestamp", Means::Time, "", STAMPS),
    ("timestamp(3)", Means::Time, "", &[("'2026-11-22 05:09:25.1235'", NOWHERE), ("'infinity'", ENDLESS)]),
    ("timestamptz", Means::Time, "(({}) AT TIME ZONE 'UTC')::text", STAMPS),
    (
        "json",
        Means::Json,
        "",
        &[
            ("'{}'", NOWHERE),
            ("' { \"b\" : 1.50 , \"a\" : [ true , null ] } '", NOWHERE),
            ("'\"\\ud842\\udfb7\"'", NOWHERE),
            ("'12345678901234567890.5'", NOWHERE),
            ("'null'", NOWHERE),
            ("'\"\\u0000\"'", NUL),
            ("'{\"a\":1,\"a\":2}'", ALL),
        ],
    ),
    (
        "jsonb",
        Means::Json,
        "",
        &[("'{\"b\":1.50,\"aa\":[true,null],\"\":\"\"}'", NOWHERE), ("'\"字\\n\"'", NOWHERE), ("'null'", NOWHERE)],
    ),
    ("uuid", Means::Text, "", &[("'ffffffff-0000-4fff-8fff-ffffffffffff'", NOWHERE)]),
    ("inet", Means::Text, "", &[("'10.1.2.3/8'", NOWHERE), ("'::1'", NOWHERE)]),
    ("interval", Means::Text, "", &[("'1 year -1 day 00:00:00.000001'", NOWHERE), ("'0'", NOWHERE)]),
    ("time", Means::Text, "", &[("'24:00:00'", NOWHERE), ("'12:34:56.5'", NOWHERE)]),
    ("int4[]", Means::Text, "", &[("'{}'", NOWHERE), ("'{1,NULL,-3}'", NOWHERE)]),
    ("text[]", Means::Text, "", &[("ARRAY['a,b', NULL, '\"']", NOWHERE)]),
    ("int4range", Means::Text, "", &[("'[1,5)'", NOWHERE), ("'empty'", NOWHERE)]),
    ("bit(5)", Means::Text, "", &[("B'01011'", NOWHERE)]),
];

/// 王誠, and what a client could take for something else.
const MARIADB_TEXTS: &[(&str, &[Engine])] = &[
    ("''", NOWHERE),
    ("' '", NOWHERE),
    ("'a '", NOWHERE),
    ("'it''s'", NOWHERE),
    ("CONVERT(X'E78E8BE8AAA0' USING utf8mb4)", NOWHERE),
    ("CONVERT(X'0D0A095C1A' USING utf8mb4)", NOWHERE),
];
const MARIADB_ALL_TEXTS: &[(&str, &[Engine])] = &[
    ("''", NOWHERE),
    ("'a '", NOWHERE),
    ("CONVERT(X'F0A0AEB7F09F9880' USING utf8mb4)", NOWHERE),
    ("REPEAT(CONVERT(X'E995B7' USING utf8mb4), 3000)", NOWHERE),
    ("CONVERT(X'610062' USING utf8mb4)", NUL),
];

pub(super) const MARIADB: &[Row] = &[
    ("bit(1)", Means::Boolean, "", &[("b'0'", NOWHERE), ("b'1'", NOWHERE)]),
    ("tinyint(1)", Means::Exact, "", &[("-128", NOWHERE), ("1", NOWHERE), ("0", NOWHERE)]),
    ("smallint unsigned", Means::Exact, "", &[("65535", NOWHERE), ("0", NOWHERE)]),
    ("mediumint", Means::Exact, "", &[("-8388608", NOWHERE)]),
    ("int unsigned", Means::Exact, "", &[("4294967295", NOWHERE)]),
    ("bigint", Means::Exact, "", &[("-9223372036854775808", NOWHERE), ("9223372036854775807", NOWHERE)]),
    ("bigint unsigned", Means::Exact, "", &[("18446744073709551615", NOWHERE), ("0", NOWHERE)]),
    ("bit(12)", Means::Exact, "CAST({} + 0 AS CHAR)", &[("b'101000000001'", NOWHERE), ("b'0'", NOWHERE)]),
    ("bit(64)", Means::Exact, "CAST({} + 0 AS CHAR)", &[("18446744073709551615", NOWHERE)]),
    ("year", Means::Exact, "", &[("2026", NOWHERE), ("1901", NOWHERE), ("0", NOWHERE)]),
    ("decimal(10,2)", Means::Exact, "", &[("99999999.99", NOWHERE), ("-0.10", NOWHERE)]),
    (
        "decimal(38,10)",
        Means::Exact,
        "",
        &[("9999999999999999999999999999.0123456789", NOWHERE), ("-0.0000000001", NOWHERE)],
    ),
    ("decimal(38,38)", Means::Exact, "", &[("0.00000000000000000000000000000000000001", NOWHERE)]),
    ("decimal(65,30)", Means::Exact, "", &[("-99999999999999999999999999999999999.5", NOWHERE), ("12.50", NOWHERE)]),
    ("float", Means::Float, "", &[("0.1", NOWHERE), ("-3.4e38", NOWHERE)]),
    ("double", Means::Float, "", &[("0.1", NOWHERE), ("5e-324", NOWHERE), ("1.7976931348623157e308", NOWHERE)]),
    ("char(12)", Means::Char, "", MARIADB_TEXTS),
    ("varchar(40)", Means::Text, "", MARIADB_TEXTS),
    ("varchar(40) CHARACTER SET gbk", Means::Text, "", MARIADB_TEXTS),
    ("varchar(40) CHARACTER SET utf16", Means::Text, "", MARIADB_TEXTS),
    ("varchar(40) CHARACTER SET utf8mb3", Means::Text, "", MARIADB_TEXTS),
    ("varchar(40) CHARACTER SET latin1", Means::Text, "", &[("CONVERT(X'C3A92D' USING utf8mb4)", NOWHERE)]),
    ("text", Means::Text, "", MARIADB_ALL_TEXTS),
    ("longtext", Means::Text, "", MARIADB_ALL_TEXTS),
    ("enum('甲','it''s','')", Means::Text, "", &[("'甲'", NOWHERE), ("'it''s'", NOWHERE), ("''", NOWHERE)]),
    ("set('b','a')", Means::Text, "", &[("'a,b'", NOWHERE), ("''", NOWHERE)]),
    ("uuid", Means::Text, "", &[("'6ccd780c-baba-1026-9564-5b8c656024db'", NOWHERE)]),
    ("inet6", Means::Text, "", &[("'::1'", NOWHERE), ("'2001:db8::ff'", NOWHERE)]),
    ("time(2)", Means::Text, "", &[("'-12:05:00.25'", NOWHERE), ("'838:59:59.00'", NOWHERE)]),
    ("time", Means::Text, "", &[("'00:00:00'", NOWHERE), ("'23:59:59'", NOWHERE)]),
    ("binary(4)", Means::Bytes, "", &[("X'01'", NOWHERE), ("X'00FF2000'", NOWHERE)]),
    ("varbinary(20)", Means::Bytes, "", &[("X''", NOWHERE), ("X'00FF5C27'", NOWHERE)]),
    ("longblob", Means::Bytes, "", &[("REPEAT(X'7A', 5000)", NOWHERE), ("X'0A09'", NOWHERE)]),
    (
        "json",
        Means::Json,
        "",
        &[
            ("'{\"b\": 1.50, \"a\": [true, null]}'", NOWHERE),
            ("'12345678901234567890.5'", NOWHERE),
            ("'null'", NOWHERE),
            ("CONVERT(X'225C753030303022' USING utf8mb4)", NUL),
            ("'{\"a\":1,\"a\":2}'", ALL),
        ],
    ),
    (
        "date",
        Means::Date,
        "",
        &[
            ("'0001-01-01'", NOWHERE),
            ("'9999-12-31'", NOWHERE),
            ("'2000-02-29'", NOWHERE),
            ("'0000-00-00'", ALL),
            ("'2026-00-07'", ALL),
        ],
    ),
    (
        "datetime(6)",
        Means::Time,
        "",
        &[
            ("'0001-01-01 00:00:00'", NOWHERE),
            ("'9999-12-31 23:59:59.999999'", NOWHERE),
            ("'0000-00-00 00:00:00'", ALL),
        ],
    ),
    ("datetime", Means::Time, "", &[("'2026-11-22 05:09:25'", NOWHERE)]),
    (
        "timestamp(3) NULL",
        Means::Time,
        "",
        &[("'1970-01-01 00:00:01'", NOWHERE), ("'2038-01-19 03:14:07.999'", NOWHERE)],
    ),
];

pub(super) const SQLITE: &[Row] = &[
    ("BOOLEAN", Means::Boolean, "", &[("0", NOWHERE), ("1", NOWHERE), ("2", ALL)]),
    ("INTEGER", Means::Exact, "", &[("-9223372036854775808", NOWHERE), ("9223372036854775807", NOWHERE), ("'x'", ALL)]),
    ("bigint unsigned", Means::Exact, "", &[("0", NOWHERE), ("7", NOWHERE)]),
    ("DECIMAL(10,2)", Means::Exact, "", &[("12.34", NOWHERE), ("-0.1", NOWHERE), ("5", NOWHERE), ("1.005", ALL)]),
    (
        "DECIMAL_TEXT(38,10)",
        Means::Exact,
        "",
        &[("'9999999999999999999999999999.0123456789'", NOWHERE), ("'-0.5'", NOWHERE), ("'1e3'", ALL)],
    ),
    ("NUMBER_TEXT", Means::Exact, "", &[("'-12.5'", NOWHERE), ("'NaN'", NOWHERE), ("'1.50'", ALL)]),
    (
        "DOUBLE",
        Means::Float,
        "",
        &[("0.1", NOWHERE), ("5e-324", NOWHERE), ("1.7976931348623157e308", NOWHERE), ("9e999", ENDLESS), ("'x'", ALL)],
    ),
    (
        "TEXT",
        Means::Text,
        "",
        &[
            ("''", NOWHERE),
            ("'a '", NOWHERE),
            ("'it''s \"quoted\"; --'", NOWHERE),
            ("'𠮷田 䶮 é 😀'", NOWHERE),
            ("CAST(X'0D0A095C1A' AS TEXT)", NOWHERE),
            ("CAST(X'610062' AS TEXT)", NUL),
            ("CAST(X'CDF5FF' AS TEXT)", ALL),
            ("X'00'", ALL),
        ],
    ),
    ("VARCHAR(5)", Means::Text, "", &[("'longer than it says'", NOWHERE), ("'\\N'", NOWHERE)]),
    ("CHAR(4)", Means::Char, "", &[("'ab  '", NOWHERE), ("''", NOWHERE), ("printf('%300d', 1)", LONG)]),
    (
        "BLOB",
        Means::Bytes,
        "",
        &[("X''", NOWHERE), ("X'00FF5C27'", NOWHERE), ("zeroblob(5000)", NOWHERE), ("'x'", ALL)],
    ),
    (
        "DATE",
        Means::Date,
        "",
        &[
            ("'0001-01-01'", NOWHERE),
            ("'9999-12-31'", NOWHERE),
            ("'infinity'", ENDLESS),
            ("'0000-00-00'", ALL),
            ("'2023-02-29'", ALL),
            ("'20240401'", ALL),
        ],
    ),
    (
        "DATETIME",
        Means::Time,
        "",
        &[
            ("'0001-01-01 00:00:00'", NOWHERE),
            ("'2026-11-22 05:09:25.123456'", NOWHERE),
            ("'9999-12-31 23:59:59.999999'", NOWHERE),
            ("'-infinity'", ENDLESS),
            ("'2026-11-22 05:09:25.1234567'", ALL),
        ],
    ),
    (
        "JSON_TEXT",
        Means::Json,
        "",
        &[
            ("'{\"b\": 1.50, \"a\": [true, null]}'", NOWHERE),
            ("'\"\\ud842\\udfb7\"'", NOWHERE),
            ("'null'", NOWHERE),
            ("'\"\\u0000\"'", NUL),
            ("'{\"a\":1,\"a\":2}'", ALL),
            ("'{bad'", ALL),
        ],
    ),
];

pub(super) const SQLSERVER: &[Row] = &[
    ("bit", Means::Boolean, "", &[("0", NOWHERE), ("1", NOWHERE)]),
    ("tinyint", Means::Exact, "", &[("0", NOWHERE), ("255", NOWHERE)]),
    ("smallint", Means::Exact, "", &[("-32768", NOWHERE)]),
    ("int", Means::Exact, "", &[("-2147483648", NOWHERE), ("2147483647", NOWHERE)]),
    ("bigint", Means::Exact, "", &[("-9223372036854775808", NOWHERE), ("9223372036854775807", NOWHERE)]),
    ("decimal(18,4)", Means::Exact, "", &[("99999999999999.9999", NOWHERE), ("-0.0001", NOWHERE)]),
    (
        "decimal(38,10)",
        Means::Exact,
        "",
        &[("9999999999999999999999999999.0123456789", NOWHERE), ("-12.5000000000", NOWHERE)],
    ),
    ("money", Means::Exact, "", &[("922337203685477.5807", NOWHERE), ("-0.0001", NOWHERE)]),
    ("real", Means::Float, "", &[("0.5", NOWHERE), ("-1.25", NOWHERE)]),
    ("float(53)", Means::Float, "", &[("0.1", NOWHERE), ("1.7976931348623157E308", NOWHERE)]),
    ("nchar(6)", Means::Char, "", &[("N'ab'", NOWHERE), ("N'𠮷田'", NOWHERE), ("N''", NOWHERE)]),
    (
        "nvarchar(40)",
        Means::Text,
        "",
        &[("N''", NOWHERE), ("N'a '", NOWHERE), ("N'it''s 王 😀'", NOWHERE), ("N'\\N'", NOWHERE)],
    ),
    ("nvarchar(max)", Means::Text, "", &[("N'驿站'", NOWHERE), ("N'line\nbreak\ttab'", NOWHERE)]),
    ("varbinary(max)", Means::Bytes, "", &[("0x", NOWHERE), ("0x00FF5C27", NOWHERE)]),
    ("binary(2)", Means::Bytes, "", &[("0x00FF", NOWHERE)]),
    ("date", Means::Date, "", &[("'0001-01-01'", NOWHERE), ("'9999-12-31'", NOWHERE), ("'2000-02-29'", NOWHERE)]),
    (
        "datetime2(6)",
        Means::Time,
        "",
        &[
            ("'0001-01-01 00:00:00'", NOWHERE),
            ("'2026-11-22 05:09:25.123456'", NOWHERE),
            ("'9999-12-31 23:59:59.999999'", NOWHERE),
        ],
    ),
    (
        "datetime2(7)",
        Means::Time,
        "",
        &[("'2026-11-22 05:09:25.1234560'", NOWHERE), ("'2026-11-22 05:09:25.1234567'", ALL)],
    ),
    ("datetime2(0)", Means::Time, "", &[("'2026-11-22 05:09:25'", NOWHERE)]),
];
