#!/usr/bin/env python3
"""Compares one table of two servers of TDS row by row and value by value, as python-tds reads both.

    ring.py FIRST_PORT LAST_PORT USER DATABASE PASSWORD CA_OF_FIRST

The first is spoken to over TLS, the last in the clear. Types that cannot be landed in stand
at the last as what they mean: text, float, bytes, a whole number. Exit 0 when all is equal; prints how many rows and
values were compared, as one JSON object.
"""
import json
import sys
import uuid

import pytds

# python-tds has microseconds only: these come as the server's own text.
TEXTS = {"t"}


def main():
    first_port, last_port, user, database, password, ca = sys.argv[1:]

    def rows(port, ca):
        with pytds.connect(
            dsn="localhost", port=int(port), user=user, password=password, database=database, cafile=ca, autocommit=True,
            login_timeout=10, disable_connect_retry=True,
        ) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT TOP (0) * FROM [dbo].[every]")
            names = [column[0] for column in cursor.description]
            cursor.fetchall()
            yield names
            chosen = [f"CAST([{name}] AS nvarchar(20)) AS [{name}]" if name in TEXTS else f"[{name}]" for name in names]
            cursor.execute(f"SELECT {', '.join(chosen)} FROM [dbo].[every] ORDER BY [id]")
            while batch := cursor.fetchmany(500):
                yield from batch

    first, last = rows(first_port, ca), rows(last_port, None)
    names = next(first)
    if next(last) != names:
        sys.exit("the tables have other columns")
    compared = {"rows": 0, "values": 0, "nulls": 0}
    while True:
        here, there = next(first, None), next(last, None)
        if here is None or there is None:
            if here is not there:
                sys.exit(f"one has more rows: {here and here[0]!r} and {there and there[0]!r}")
            break
        for name, a, b in zip(names, here, there):
            if meant(name, a) != meant(name, b):
                sys.exit(f"row {here[0]}, {name}: {str(a)[:200]!r} and {str(b)[:200]!r}")
            compared["values"] += 1
            compared["nulls"] += a is None
        compared["rows"] += 1
    print(json.dumps(compared))


def meant(name, value):
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, (bytes, bytearray)):
        # A rowversion is a number to whoever takes it over.
        return int.from_bytes(value, "big") if name == "mark" else bytes(value)
    return value


if __name__ == "__main__":
    main()
