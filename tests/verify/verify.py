#!/usr/bin/env python3
"""Verifies an exported receipt with other people's tools alone: scitt-cose for statements, node list and
inclusion, openssl for the checkpoint, sha256 and b3sum for what was handed over. Nothing of Posthouse is used.

    verify.py EXPORT [--trust TRUST] [--landed FOLDER] [--flip]

Exit 0 when everything verifies. With --flip, each single bit of what a tool covers is flipped as well and
must be refused by that tool; the counts are printed as one JSON object.
"""
import argparse
import base64
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile

import cbor2
from scitt_cose import parse_signed_statement, verify_inclusion, verify_receipt

STATEMENT = "application/vnd.posthouse.statement+cbor"
NODES = "application/vnd.posthouse.nodes+cbor"
# Keys of the bodies, as docs/PROTOCOL.md lists them.
MANIFEST_CONTENT_ROOT, MANIFEST_FILES_B3 = 22, 24
LANDING_MANIFEST, LANDING_PROVIDER, LANDING_CONTENT_ROOT = 5, 6, 9


class Refused(Exception):
    """Something did not verify."""


def check(holds, what):
    if not holds:
        raise Refused(what)


def main():
    options = argparse.ArgumentParser(description="verify an exported receipt with other people's tools")
    options.add_argument("export", type=pathlib.Path)
    options.add_argument("--trust", type=pathlib.Path, help="folder of keys (by default trust/ in the export)")
    options.add_argument("--landed", type=pathlib.Path, help="folder that files.b3 is checked against")
    options.add_argument("--flip", action="store_true", help="flip every bit and expect a refusal")
    options = options.parse_args()
    export, trust = options.export, options.trust or options.export / "trust"
    try:
        print(json.dumps(verify(export, trust, options.landed, options.flip)))
    except Refused as refused:
        sys.exit(f"refused: {refused}")


def verify(export, trust, landed, flip):
    keys = node_keys(trust)
    provider_bytes = (export / "provider.cose").read_bytes()
    provider, provider_pem = statement(provider_bytes, keys, 0)
    manifest = provider[1]
    result = {"provider": "verified", "flipped": {}}
    if flip:
        flips(result, "provider.cose", provider_bytes, lambda b: signed(b, provider_pem, STATEMENT))

    leaf, leaf_name = provider_bytes, "provider.cose"
    if (export / "consumer.cose").exists():
        leaf_name = "consumer.cose"
        leaf = (export / leaf_name).read_bytes()
        consumer, consumer_pem = statement(leaf, keys, 1)
        landing = consumer[1]
        check(landing[LANDING_PROVIDER] == sha256(provider_bytes), "the consumer names another provider statement")
        check(landing[LANDING_MANIFEST] == sha256(cbor2.dumps(manifest, canonical=True)), "another manifest")
        check(landing[LANDING_CONTENT_ROOT] == manifest[MANIFEST_CONTENT_ROOT], "another content root")
        result["consumer"] = "verified"
        if flip:
            flips(result, leaf_name, leaf, lambda b: signed(b, consumer_pem, STATEMENT))

    if (export / "inclusion.cose").exists():
        result["ledger"] = ledger(export, trust, leaf, result, flip)
    else:
        result["ledger"] = "pending"

    if (export / "files.b3").exists():
        listed = (export / "files.b3").read_bytes()
        check(sha256(listed) == manifest[MANIFEST_FILES_B3], "files.b3 is not the list in the manifest")
        result["files"] = listed.count(b"\n")
        if landed:
            b3sum(landed, listed)
            result["files_checked"] = result["files"]
        if flip:
            flips(result, "files.b3", listed[:4096], lambda b: check(
                sha256(b + listed[4096:]) == manifest[MANIFEST_FILES_B3], "sha256"))
    return result


def node_keys(trust):
    """Issuer -> PEMs, from the list that the policy key signed; each PEM must be in the list."""
    policy = (trust / "policy.pem").read_bytes()
    nodes = signed((trust / "nodes.cose").read_bytes(), policy, NODES)
    payload = cbor2.loads(nodes["payload"])
    vkey = (trust / "ledger.vkey").read_text().strip()
    check(payload[0] == vkey, "ledger.vkey is not the one in nodes.cose")
    check(base64.b64decode(vkey.split("+", 2)[2])[1:] == raw_key((trust / "ledger.pem").read_bytes()), "ledger.pem")
    keys = {}
    for node in payload[2]:
        for key in node[3]:
            name = f"{node[0]}.{sha256(key[0]).hex()[:16]}.pem"
            pem = (trust / name).read_bytes()
            check(raw_key(pem) == key[0], f"{name} is not the key in nodes.cose")
            keys.setdefault(node[0], []).append(pem)
    return keys


def statement(bytes_, keys, kind):
    """A statement of this kind by a trusted key of its issuer: (chain and body, the key)."""
    issuer = (parse_signed_statement(bytes_)["unverified"] or {}).get("issuer")
    for pem in keys.get(issuer, []):
        try:
            parsed = signed(bytes_, pem, STATEMENT)
        except Refused:
            continue
        body = cbor2.loads(parsed["payload"])
        check(body[0] == kind, "a statement of another kind")
        return body[1], pem
    raise Refused(f"no trusted key of {issuer} verifies the statement")


def signed(bytes_, pem, content_type):
    parsed = parse_signed_statement(bytes_, public_key_pem=pem)
    check(parsed["signature_verified"] is True, "scitt-cose: the signature does not verify")
    check(parsed["content_type"] == content_type, "another content type")
    return parsed


def ledger(export, trust, leaf, result, flip):
    pem = (trust / "ledger.pem").read_bytes()
    inclusion = (export / "inclusion.cose").read_bytes()

    def included(bytes_):
        proof = verify_receipt(bytes_, leaf_entry_hex=leaf.hex(), log_public_key_pem=pem)
        check(proof.ok, f"scitt-cose: {proof.errors}")
        return proof

    proof = included(inclusion)
    text = (export / "checkpoint.txt").read_text()
    origin, size, root = checkpoint(text, trust / "ledger.pem")
    check(int(size) == proof.tree_size and root.hex() == proof.root, "the inclusion leads to another checkpoint")
    vkey = (trust / "ledger.vkey").read_text().strip()
    check(origin == vkey.split("+")[0], "the checkpoint is of another log")

    # The same evidence as text: index and path from proof.txt, the checkpoint below it.
    head, _, below = (export / "proof.txt").read_text().partition("\n\n")
    lines = head.split("\n")
    check(below == text and lines[0] == "c2sp.org/tlog-proof@v1", "proof.txt holds another checkpoint")
    path = [base64.b64decode(line, validate=True).hex() for line in lines[2:]]
    index = int(lines[1].removeprefix("index "))
    check(verify_inclusion(leaf.hex(), index, int(size), path, root.hex()), "proof.txt does not lead to the root")

    if flip:
        flips(result, "inclusion.cose", inclusion, included)
        covered, signature = note(text)

        def openssl(bytes_):
            openssl_verify(bytes_[:len(covered)], bytes_[len(covered):], trust / "ledger.pem")

        flips(result, "checkpoint.txt", covered + signature, openssl)
    return {"origin": origin, "size": int(size), "index": proof.leaf_index}


def note(text):
    """The text that a signed note signs, and the signature of its one line."""
    body, _, line = text.partition("\n\n")
    encoded = line.rstrip("\n").rsplit(" ", 1)[1]
    return (body + "\n").encode(), base64.b64decode(encoded, validate=True)[4:]


def checkpoint(text, pem):
    covered, signature = note(text)
    openssl_verify(covered, signature, pem)
    origin, size, root = covered.decode().splitlines()
    return origin, size, base64.b64decode(root, validate=True)


def openssl_verify(message, signature, pem):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "message").write_bytes(message)
        (folder / "signature").write_bytes(signature)
        done = subprocess.run(
            ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", pem, "-rawin", "-in", folder / "message",
             "-sigfile", folder / "signature"], capture_output=True)
    check(done.returncode == 0, f"openssl: {(done.stdout + done.stderr).decode().strip()}")


def b3sum(landed, listed):
    with tempfile.NamedTemporaryFile() as list_file:
        list_file.write(listed)
        list_file.flush()
        done = subprocess.run(["b3sum", "--check", "--quiet", list_file.name], cwd=landed, capture_output=True)
    check(done.returncode == 0, f"b3sum: {(done.stdout + done.stderr).decode(errors='replace')[:2000]}")


def flips(result, name, bytes_, verify_bytes):
    """Every single bit flipped must be refused."""
    for bit in range(len(bytes_) * 8):
        flipped = bytearray(bytes_)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            verify_bytes(bytes(flipped))
        except Refused:
            continue
        raise Refused(f"{name} was accepted with bit {bit} flipped")
    result["flipped"][name] = len(bytes_) * 8


def raw_key(pem):
    der = base64.b64decode(b"".join(pem.split(b"\n")[1:-2]), validate=True)
    return der[-32:]


def sha256(bytes_):
    return hashlib.sha256(bytes_).digest()


if __name__ == "__main__":
    main()
