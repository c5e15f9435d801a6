#!/usr/bin/env python3
"""Drives the TDS test server with python-tds, a client that shares nothing with ours: login, TLS, every type, parameters,
bulk copies, transactions and errors. Values are compared one by one with what they must be.

    tds.py HOST PORT USER PASSWORD DATABASE [--ca FILE] [--login-only]

Exit 0 when all is as it must be; prints how much was compared, as one JSON object.
"""
import argparse
import datetime
import decimal
import json
import sys
import uuid

import pytds
from pytds import tds_types

D = decimal.Decimal
compared = 0


def same(have, want, what):
    global compared
    compared += 1
    if have != want:
        sys.exit(f"{what}: {have!r} and not {want!r}")


def refused(number, run, what):
    try:
        run()
    except pytds.Error as error:
        same(getattr(error, "number", getattr(error, "msg_no", None)), number, what)
    else:
        sys.exit(f"{what}: it was not refused")


def main():
    options = argparse.ArgumentParser(description="drive the TDS test server with python-tds")
    for name in ["host", "port", "user", "password", "database"]:
        options.add_argument(name)
    options.add_argument("--ca")
    options.add_argument("--login-only", action="store_true")
    options = options.parse_args()

    def connect(password=options.password, autocommit=True, **more):
        return pytds.connect(
            dsn=options.host, port=int(options.port), user=options.user, password=password,
            database=options.database, cafile=options.ca, enc_login_only=options.login_only,
            autocommit=autocommit, login_timeout=10, disable_connect_retry=True, **more,
        )

    refused(18456, lambda: connect(password="wrong 口令"), "a wrong password")
    with connect() as connection:
        every_type(connection)
        nulls(connection)
        parameters(connection)
        bulk(connection)
        errors(connection)
        results(connection)
    transactions(connect)
    print(json.dumps({"compared": compared}))


TYPES = [
    ("bit", "1", True),
    ("tinyint", "255", 255),
    ("smallint", "-32768", -32768),
    ("int", "-2147483648", -2147483648),
    ("bigint", "-9223372036854775808", -9223372036854775808),
    ("decimal(38,10)", "-1234567890123456789012345678.0123456789", D("-1234567890123456789012345678.0123456789")),
    ("decimal(9,2)", "-12.34", D("-12.34")),
    ("numeric(38,0)", "99999999999999999999999999999999999999", D("99999999999999999999999999999999999999")),
    ("money", "922337203685477.5807", D("922337203685477.5807")),
    ("smallmoney", "-214748.3648", D("-214748.3648")),
    ("real", "1.5", 1.5),
    ("float", "1E-300", 1e-300),
    ("char(6)", "N'驿站'", "驿站  "),
    ("varchar(20)", "N'驿站 post'", "驿站 post"),
    ("varchar(max)", "N'长'", "长"),
    ("nchar(4)", "N'驿😀'", "驿😀 "),
    ("nvarchar(20)", "N'驿站😀'", "驿站😀"),
    ("nvarchar(max)", "N''", ""),
    ("binary(4)", "0x0102", b"\x01\x02\x00\x00"),
    ("varbinary(10)", "0x00ff", b"\x00\xff"),
    ("varbinary(max)", "0x", b""),
    ("date", "'9999-12-31'", datetime.date(9999, 12, 31)),
    ("time(6)", "'23:59:59.999999'", datetime.time(23, 59, 59, 999999)),
    ("time(0)", "'23:59:59'", datetime.time(23, 59, 59)),
    ("datetime", "'2024-02-29 23:59:59.997'", datetime.datetime(2024, 2, 29, 23, 59, 59, 997000)),
    ("smalldatetime", "'2024-02-29 23:59'", datetime.datetime(2024, 2, 29, 23, 59)),
    ("datetime2(6)", "'0001-01-01 00:00:00.000001'", datetime.datetime(1, 1, 1, 0, 0, 0, 1)),
    ("datetime2(3)", "'2024-02-29 12:00:00.123'", datetime.datetime(2024, 2, 29, 12, 0, 0, 123000)),
    ("datetimeoffset(6)", "'2024-02-29 12:00:00.123456 +08:00'",
     datetime.datetime(2024, 2, 29, 12, 0, 0, 123456, datetime.timezone(datetime.timedelta(hours=8)))),
    ("uniqueidentifier", "'6F9619FF-8B86-D011-B42D-00C04FC964FF'", uuid.UUID("6F9619FF-8B86-D011-B42D-00C04FC964FF")),
    ("xml", "N'<a>字</a>'", "<a>字</a>"),
    ("text", "N'旧'", "旧"),
    ("ntext", "N'旧😀'", "旧😀"),
    ("image", "0xdeadbeef", b"\xde\xad\xbe\xef"),
]


def every_type(connection):
    with connection.cursor() as cursor:
        for null in ["NULL", "NOT NULL"]:
            columns = ", ".join(f"[列{at}] {name} {null}" for at, (name, _, _) in enumerate(TYPES))
            values = ", ".join(value for _, value, _ in TYPES)
            cursor.execute(f"CREATE TABLE [dbo].[每种] ([id] int NOT NULL PRIMARY KEY, {columns})")
            cursor.execute(f"INSERT INTO [dbo].[每种] VALUES (1, {values})")
            cursor.execute("SELECT * FROM [dbo].[每种]")
            row = cursor.fetchone()
            same([name[0] for name in cursor.description][1:3], ["列0", "列1"], "names of columns")
            for (name, _, want), have in zip(TYPES, row[1:]):
                same(have, want, f"{name} {null}")
            same(cursor.fetchone(), None, "one row")
            cursor.execute("DROP TABLE [dbo].[每种]")


def nulls(connection):
    with connection.cursor() as cursor:
        columns = ", ".join(f"[c{at}] {name} NULL" for at, (name, _, _) in enumerate(TYPES))
        cursor.execute(f"CREATE TABLE [dbo].[nulls] ([id] int NOT NULL, {columns})")
        cursor.execute("INSERT INTO [dbo].[nulls] ([id]) VALUES (7)")
        cursor.execute("SELECT * FROM [dbo].[nulls]")
        row = cursor.fetchone()
        same(row[0], 7, "the value beside nulls")
        for (name, _, _), have in zip(TYPES, row[1:]):
            same(have, None, f"null of {name}")
        for name, _, _ in TYPES:
            cursor.execute(f"SELECT CAST(NULL AS {name}) AS n")
            same(cursor.fetchone()[0], None, f"null {name} alone")
        cursor.execute("DROP TABLE [dbo].[nulls]")


def parameters(connection):
    with connection.cursor() as cursor:
        for value in [
            1, -(2 ** 63), 2 ** 31, True, 1.5, D("12345678901234567890.123456789"), "驿站😀", "", "字" * 5000, b"\x00\xff",
            b"x" * 9000, datetime.date(2024, 2, 29), datetime.datetime(2024, 2, 29, 1, 2, 3, 123456),
            datetime.time(1, 2, 3, 4), uuid.UUID("6F9619FF-8B86-D011-B42D-00C04FC964FF"),
        ]:
            # Plain bytes are a text to it.
            given = pytds.Binary(value) if isinstance(value, bytes) else value
            cursor.execute("SELECT %s AS v, CASE WHEN %s IS NULL THEN 0 ELSE 1 END", (given, given))
            have = cursor.fetchone()
            same((have[0], have[1]), (value, 1), f"parameter {str(value)[:40]}")
        cursor.execute("SELECT %(a)s + %(b)s", {"a": 2, "b": 40})
        same(cursor.fetchone()[0], 42, "parameters by name")


def bulk(connection):
    long = "驿站" * 51_200  # 200 KiB of UTF-16
    rows = [
        (1, long, D("-1234567890123456789012345678.0123456789"), datetime.datetime(2024, 2, 29, 1, 2, 3, 123456), True,
         uuid.UUID("6F9619FF-8B86-D011-B42D-00C04FC964FF"), b"\x00\xff" * 40_000, datetime.date(1, 1, 1), 1e-300, 2 ** 62),
        (2, None, None, None, None, None, None, None, None, None),
        (3, "", D("0"), datetime.datetime(9999, 12, 31, 23, 59, 59, 999999), False,
         uuid.UUID(int=0), b"", datetime.date(9999, 12, 31), -0.0, -1),
    ]
    kinds = [
        ("id", tds_types.IntType(), "int NOT NULL PRIMARY KEY"),
        ("文", tds_types.NVarCharMaxType(), "nvarchar(max) NULL"),
        ("dec", tds_types.DecimalType(precision=38, scale=10), "decimal(38,10) NULL"),
        ("at", tds_types.DateTime2Type(precision=6), "datetime2(6) NULL"),
        ("yes", tds_types.BitType(), "bit NULL"),
        ("uid", tds_types.UniqueIdentifierType(), "uniqueidentifier NULL"),
        ("raw", tds_types.VarBinaryMaxType(), "varbinary(max) NULL"),
        ("day", tds_types.DateType(), "date NULL"),
        ("real", tds_types.FloatType(), "float NULL"),
        ("big", tds_types.BigIntType(), "bigint NULL"),
    ]
    with connection.cursor() as cursor:
        columns = ", ".join(f"[{name}] {sql}" for name, _, sql in kinds)
        cursor.execute(f"CREATE TABLE [dbo].[批] ({columns})")
        cursor.copy_to(
            data=rows, table_or_view="批", schema="dbo", tablock=True,
            columns=[pytds.Column(name=name, type=kind) for name, kind, _ in kinds],
        )
        cursor.execute("SELECT * FROM [dbo].[批] ORDER BY [id]")
        landed = cursor.fetchall()
        same(len(landed), len(rows), "rows of a bulk copy")
        for have, want in zip(landed, rows):
            for (name, _, _), have, want in zip(kinds, have, want):
                same(have, want, f"bulk {name}")
        # As texts, which the server converts; and a key that is there already.
        cursor.copy_to(
            data=[("4", "四")], table_or_view="批", schema="dbo", columns=["id", "文"],
        )
        refused(2627, lambda: cursor.copy_to(
            data=[(5, "五"), (1, "一")], table_or_view="批", schema="dbo",
            columns=[pytds.Column(name="id", type=tds_types.IntType()), "文"],
        ), "a bulk copy with a key that is there")
        cursor.execute("SELECT [id], [文] FROM [dbo].[批] WHERE [id] > 3")
        same(cursor.fetchall(), [(4, "四")], "nothing of a failed bulk copy stays")
        many = [(number, f"行{number}") for number in range(10, 20_010)]
        cursor.copy_to(data=many, table_or_view="批", schema="dbo", columns=[
            pytds.Column(name="id", type=tds_types.IntType()),
            pytds.Column(name="文", type=tds_types.NVarCharType(size=20)),
        ])
        cursor.execute("SELECT COUNT_BIG(*), MIN([文]), MAX([id]) FROM [dbo].[批] WHERE [id] >= 10")
        same(cursor.fetchone(), (20_000, "行10", 20_009), "many rows of a bulk copy")
        cursor.execute("SELECT [id], [文] FROM [dbo].[批] WHERE [id] >= 10 ORDER BY [id]")
        same(cursor.fetchall(), many, "many rows read back")
        cursor.execute("DROP TABLE [dbo].[批]")


def errors(connection):
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE [dbo].[e] ([id] int NOT NULL PRIMARY KEY, [n] tinyint NOT NULL, [t] nvarchar(3) NULL)")
        cursor.execute("INSERT INTO [dbo].[e] VALUES (1, 1, N'a')")
        for number, text in [
            (2627, "INSERT INTO [dbo].[e] VALUES (1, 1, N'b')"),
            (515, "INSERT INTO [dbo].[e] ([id]) VALUES (2)"),
            (2628, "INSERT INTO [dbo].[e] VALUES (2, 1, N'long')"),
            (8115, "INSERT INTO [dbo].[e] VALUES (2, 256, NULL)"),
            (245, "SELECT CAST(N'x' AS int)"),
            (8134, "SELECT 1 / 0"),
            (208, "SELECT * FROM [dbo].[nobody]"),
            (207, "SELECT [nothing] FROM [dbo].[e]"),
            (8106, "SET IDENTITY_INSERT [dbo].[e] ON"),
        ]:
            refused(number, lambda: cursor.execute(text) and cursor.fetchall(), text)
        cursor.execute("SELECT COUNT(*) FROM [dbo].[e]")
        same(cursor.fetchone()[0], 1, "a connection serves on after errors")
        cursor.execute("DROP TABLE [dbo].[e]")


def results(connection):
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 AS a; SELECT 2 AS b, N'二' AS c")
        same(cursor.fetchall(), [(1,)], "the first result")
        same(cursor.nextset(), True, "a second result")
        same(cursor.fetchall(), [(2, "二")], "the second result")
        cursor.execute("SELECT @@VERSION")
        same("Posthouse" in cursor.fetchone()[0], True, "the version")


def transactions(connect):
    with connect() as first, connect(autocommit=False) as second:
        with first.cursor() as one, second.cursor() as two:
            one.execute("CREATE TABLE [dbo].[tx] ([id] int NOT NULL PRIMARY KEY)")
            two.execute("INSERT INTO [dbo].[tx] VALUES (1)")
            second.rollback()
            one.execute("SELECT COUNT(*) FROM [dbo].[tx]")
            same(one.fetchone()[0], 0, "what was rolled back")
            two.execute("INSERT INTO [dbo].[tx] VALUES (2)")
            second.commit()
            one.execute("SELECT [id] FROM [dbo].[tx]")
            same(one.fetchall(), [(2,)], "what was committed")
            one.execute("SET TRANSACTION ISOLATION LEVEL SNAPSHOT; BEGIN TRANSACTION")
            one.execute("SELECT COUNT(*) FROM [dbo].[tx]")
            same(one.fetchone()[0], 1, "a snapshot")
            two.execute("INSERT INTO [dbo].[tx] VALUES (3)")
            second.commit()
            one.execute("SELECT COUNT(*) FROM [dbo].[tx]")
            same(one.fetchone()[0], 1, "a snapshot after another commit")
            one.execute("COMMIT TRANSACTION")
            one.execute("SELECT COUNT(*) FROM [dbo].[tx]")
            same(one.fetchone()[0], 2, "after the snapshot")
            one.execute("DROP TABLE [dbo].[tx]")


if __name__ == "__main__":
    main()
