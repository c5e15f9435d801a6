#!/usr/bin/env python3
"""Writes row-digest.json: test vectors of the row digest, by an implementation that shares no code with ours.

Needs `blake3` from PyPI. Run it as `python3 row_digest.py > row-digest.json`; the form it implements is
described in `protocol/src/digest/encoding.rs` and `json.rs`.
"""
import hashlib
import json
import struct
from decimal import Decimal

from blake3 import blake3

BUCKETS = 4096


def decimal_normal(unscaled, scale):
    if unscaled == 0:
        return 0, 0
    while unscaled % 10 == 0:
        unscaled //= 10
        scale -= 1
    return unscaled, scale


def json_canonical(value):
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        sign, digits, exponent = value.as_tuple()
        unscaled, scale = decimal_normal(int("".join(map(str, digits))), -exponent)
        if unscaled == 0:
            return "0"
        return ("-" if sign else "") + str(unscaled) + (f"e{-scale}" if scale else "")
    if isinstance(value, str):
        short = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
        return '"' + "".join(short.get(c, f"\\u{ord(c):04x}" if c < " " else c) for c in value) + '"'
    if isinstance(value, list):
        return "[" + ",".join(map(json_canonical, value)) + "]"
    members = sorted(value.items(), key=lambda member: member[0].encode("utf-16-be"))
    return "{" + ",".join(json_canonical(k) + ":" + json_canonical(v) for k, v in members) + "}"


def encode_number(text):
    special = {"NaN": b"\x09", "Infinity": b"\x06", "-Infinity": b"\x07"}
    if text in special:
        return special[text]
    sign, digits, exponent = Decimal(text).as_tuple()
    unscaled, scale = decimal_normal(int("".join(map(str, digits))), -exponent)
    if unscaled < 10**38 and -128 <= scale <= 127:
        return b"\x02" + (-unscaled if sign else unscaled).to_bytes(16, "little", signed=True) + struct.pack("<b", scale)
    digits = str(unscaled).encode()
    return b"\x08" + struct.pack("<BiI", sign, scale, len(digits)) + digits


def encode(kind, value):
    if value is None:
        return b"\x00"
    if kind in ("boolean", "integer", "date", "timestamp"):
        if kind in ("date", "timestamp"):
            bits = 31 if kind == "date" else 63
            if value == 2**bits - 1:
                return b"\x06"
            if value == -(2**bits):
                return b"\x07"
        return b"\x01" + struct.pack("<q", int(value))
    if isinstance(kind, dict):
        unscaled, scale = decimal_normal(int(value), kind["decimal"]["scale"])
        return b"\x02" + unscaled.to_bytes(16, "little", signed=True) + struct.pack("<b", scale)
    if kind == "number":
        return encode_number(value)
    if kind == "float":
        number = struct.unpack(">d", bytes.fromhex(value))[0]
        if number != number:
            return b"\x03" + struct.pack("<Q", 0x7FF8000000000000)
        return b"\x03" + struct.pack("<d", 0.0 if number == 0 else number)
    if kind == "json":
        parsed = json.loads(value, parse_float=Decimal, parse_int=Decimal)
        text = json_canonical(parsed).encode()
        return b"\x05" + struct.pack("<I", len(text)) + text
    if kind == "bytes":
        data = bytes.fromhex(value)
    elif kind == "char":
        data = value.rstrip(" ").encode()
    else:
        data = value.encode()
    return b"\x04" + struct.pack("<I", len(data)) + data


def case(name, items, key_columns, rows):
    """Floats and bytes stand as hexadecimal digits, decimals as unscaled numbers in text."""
    key = hashlib.sha256(name.encode()).digest()
    salt = hashlib.sha256(b"salt " + name.encode()).digest()
    total, out = 0, []
    names = [item["name"] for item in items]
    for row in rows:
        encoded = [encode(item["type"], value) for item, value in zip(items, row)]
        form = b"R" + b"".join(encoded)
        row_hash = blake3(form, key=key).digest()
        of_bucket = row_hash
        if key_columns:
            of_bucket = blake3(b"K" + b"".join(encoded[names.index(k)] for k in key_columns), key=key).digest()
        total = (total + int.from_bytes(row_hash, "little")) % 2**256
        out.append({
            "values": row,
            "encoding": form.hex(),
            "hash": row_hash.hex(),
            "bucket": int.from_bytes(of_bucket[:2], "little") % BUCKETS,
        })
    digest = total.to_bytes(32, "little")
    commitment = hashlib.sha256(salt + digest + struct.pack("<Q", len(rows))).hexdigest()
    return {
        "name": name, "key": key.hex(), "items": items, "key_columns": key_columns, "rows": out,
        "sum": digest.hex(), "count": len(rows), "salt": salt.hex(), "commitment": commitment,
    }


def item(name, kind):
    return {"name": name, "type": kind, "nullable": True, "comment": None}


def f64(number):
    return struct.pack(">d", number).hex()


CASES = [
    case("every type with a key", [
        item("id", "integer"), item("flag", "boolean"), item("amount", {"decimal": {"precision": 20, "scale": 4}}),
        item("ratio", "float"), item("name", "text"), item("code", "char"), item("photo", "bytes"),
        item("born", "date"), item("seen", "timestamp"), item("extra", "json"),
    ], ["id"], [
        [1, True, "125000", f64(1.5), "王小明", "A1  ", "00ff10", 11016, 1700000000000000, '{"b":1.50,"a":[true,null]}'],
        [2, False, "-1", f64(-0.0), "𠮷田 䶮 㛃", "  x", "", -719162, -1, '"\\u00e9\\ud842\\udfb7"'],
        [-9223372036854775808, None, "0", "7ff8000000000001", "", "", None, 0, 0, "12345678901234567890.1230"],
        [9223372036854775807, None, None, f64(float("-inf")), None, None, None, None, None, None],
        [3, True, "99999999999999999999", f64(5e-324), "line\nbreak\u0000", "a b ", "ff", 2147483647,
         9223372036854775807, '{"\\ufb33":1,"\\ud83d\\ude00":2,"":{"x":[]}}'],
        [4, True, "1230000", "fff8000000000000", "é", "é", "01", -2147483648, -9223372036854775808, " [ 1E+2 , -0 ] "],
    ]),
    case("a composite key in its own order", [item("a", "text"), item("b", "integer")], ["b", "a"],
         [["x", 1], ["x", 2], ["y", 1], ["", 0]]),
    case("no key and a row twice", [item("a", "text"), item("n", {"decimal": {"precision": 38, "scale": 0}})], [],
         [["same", "1"], ["same", "1"], ["other", "-99999999999999999999999999999999999999"], [None, None]]),
    case("numbers of any length", [item("id", "integer"), item("n", "number")], ["n"],
         [[1, "125"], [2, "-12.5"], [3, "0"], [4, "9" * 38], [5, "-" + "9" * 39], [6, "1" + "0" * 128],
          [7, "1" + "0" * 129], [8, "0." + "0" * 126 + "1"], [9, "0." + "0" * 127 + "1"], [10, "NaN"], [11, "Infinity"],
          [12, "-Infinity"], [13, "12345678901234567890.12345678901234567890123456789"], [14, None]]),
    case("no rows", [item("a", "text")], [], []),
]

print(json.dumps({"format": "posthouse row digest v1", "buckets": BUCKETS, "cases": CASES}, ensure_ascii=False, indent=1))
