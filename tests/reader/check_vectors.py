#!/usr/bin/env python3
"""Checks the vectors of format 1 (record/vectors, repository/vectors) with the independent reader. Prints a line per file."""

import hashlib
import json
import struct
import sys
from base64 import b64decode
from pathlib import Path

import zstandard

from holdfast_format import (
    CHILDREN, ITEMS, Fields, Kit, Record, Refused, Sealer, build_tree, crc32c, decrypt, keyed, need, plain_hash,
    read_content_blob, read_footer, read_page, read_pin, read_superblock, read_tenant_keys)

WIRE = (bytes(16), 0)


def refused(name, read):
    """What must not be accepted."""
    try:
        read()
    except (Refused, UnicodeDecodeError):
        return
    raise Refused(f"{name}: accepted, and it must not be")


def of_hex(text):
    return bytes.fromhex(text)


def read_keys(vector):
    job = Fields(of_hex(vector["job-keys"]), "job keys")
    job.version()
    tenant, resource, resource_key = job.take(16), job.take(16), job.take(32)
    return Sealer(tenant, resource, read_tenant_keys(job.take(job.left())), resource_key)


def check_keys(vector, folder):
    sealer = read_keys(vector)
    need(sealer.resource_key.hex() == vector["resource-key"], "the resource's key")
    need(sealer.resource_hash.hex() == vector["resource-hash-key"], "the key that names trees")
    for case in vector["hashes"]:
        h = sealer.hash(case["kind"], of_hex(case["plaintext"]))
        need(h.hex() == case["h"] and sealer.id(h).hex() == case["id"], f"h and id of kind {case['kind']}")
        need(sealer.id(h)[:16].hex() == case["reference"], "a reference")
    for case in vector["chunk-keys"]:
        master = sealer.keys["enc"].get(case["epoch"], sealer.resource_key)
        need(keyed(master, b"hf-chunk-1", of_hex(case["h"])).hex() == case["key"], "a chunk key")
    for case in vector["boundary-keys"]:
        need(sealer.boundary(case["tree"], case["level"]).hex() == case["key"], "a boundary key")
    gear = int.from_bytes(keyed(sealer.keys["boundary"], b"hf-gear-1")[:8], "little")
    need(f"{gear:016x}" == vector["gear-seed"], "the gear seed")
    root = vector["sealed-root"]
    need(sealer.open_root(of_hex(root["root"]), of_hex(root["sealed"])).hex() == root["h"], "the sealed root")
    check_job_blob(sealer, vector["job-blob"])
    kit = Kit(json.dumps(vector["kit"]))
    from_kit = kit.sealer(sealer.tenant, sealer.resource)
    need(from_kit.keys == sealer.keys and from_kit.resource_key == sealer.resource_key, "the keys of the kit")
    shred = b"".join(keyed(key, b"hf-fingerprint-1")[:8] for key in kit.shred)
    need(keyed(kit.kek[0], b"hf-key-file-1", shred)[:8].hex() == vector["kit"]["fingerprint"], "the fingerprint")
    return len(vector["hashes"]) + 9


def check_job_blob(sealer, case):
    blob, context = Fields(of_hex(case["sealed"]), "job blob"), case["context"].encode()
    blob.version()
    nonce, key = blob.take(12), keyed(sealer.resource_key, b"hf-blob-1", context)
    plain = decrypt(key, nonce, sealer.tenant + sealer.resource + context, blob.take(blob.left()), "the job blob")
    need(plain == of_hex(case["plaintext"]), "the job blob")


def check_sealed(vector, folder):
    sealer = read_keys(json.loads((folder / vector["keys"]).read_text()))
    for case in vector["records"]:
        record = Record(of_hex(case["record"]), *WIRE)
        need(sealer.open(record, of_hex(case["h"])) == of_hex(case["plaintext"]), case["name"])
    for case in vector["refused"]:
        refused(case["name"], lambda: sealer.open(Record(of_hex(case["record"]), *WIRE), of_hex(case["h"])))
    return len(vector["records"]) + len(vector["refused"])


def tree_entries(tree, n):
    for number in range(n):
        key = f"item-{number:08}".encode()
        digest = plain_hash(key)
        if tree == CHILDREN:
            yield key, digest
        else:
            yield key, (bytes([2, 0, 0]) + digest[:16] + struct.pack("<Q", number) + bytes(16) + struct.pack("<Q", number)
                        + digest + struct.pack("<II", 0, 1) + bytes([0]))


def check_tree(vector, folder):
    sealer = read_keys(json.loads((folder / vector["keys"]).read_text()))
    for case in vector["cases"]:
        root = build_tree(sealer, case["tree"], list(tree_entries(case["tree"], case["n"])))
        need((root and root.hex()) == case["root"], f"the root of {case['n']} entries in tree {case['tree']}")
    need({case["tree"] for case in vector["cases"]} == {ITEMS, CHILDREN}, "both trees")
    return len(vector["cases"])


def check_recipe(vector, folder):
    sealer = read_keys(json.loads((folder / vector["keys"]).read_text()))

    def parts(case):
        plain = {of_hex(h): unpack(text) for h, text in case["records"].items()}
        need(all(sealer.hash(1, data) == h for h, data in plain.items()), f"{case['name']}: a name")

        def piece(h):
            need(h in plain, "a chunk is nowhere")
            return plain[h]

        return read_content_blob(of_hex(case["blob"]), piece, lambda h, length: read_page(piece(h), length))

    for case in vector["messages"]:
        [message] = parts(case)
        need(len(message) == case["length"] and plain_hash(message).hex() == case["blake3"], case["name"])
    for case in vector["refused"]:
        refused(case["name"], lambda: parts(case))
    return len(vector["messages"]) + len(vector["refused"])


def unpack(text):
    return zstandard.ZstdDecompressor().decompressobj().decompress(b64decode(text))


def noise(seed, length):
    out, mask = bytearray(), (1 << 64) - 1
    for n in range(-(-length // 8)):
        x = (seed + n * 0x9E3779B97F4A7C15) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        out += (x ^ (x >> 31)).to_bytes(8, "little")
    return bytes(out[:length])


def check_chunker(vector, folder):
    """The table, the inputs and the sums; the cuts themselves of those inputs that Python gets through in a few seconds."""
    gear = [int.from_bytes(hashlib.md5(bytes([i]) * 64).digest()[:8], "big") for i in range(256)]
    table = b"".join(entry.to_bytes(8, "little") for entry in gear)
    need(plain_hash(table).hex() == vector["gear_table_blake3"], "the gear table")
    done = 0
    for case in vector["cases"]:
        kind, length = case["input"]["generator"], case["input"]["len"]
        need(sum(case["cuts"]) == length, "cuts do not add up")
        if length > 3 << 20:
            continue
        if kind == "noise":
            data = noise(case["input"]["seed"], length)
        elif kind == "counter":
            data = b"".join(struct.pack("<I", n) for n in range(length // 4 + 1))[:length]
        else:
            data = bytes(length)
        need(plain_hash(data).hex() == case["input_blake3"], "the input of a chunker case")
        seed = int(case["gear_seed"], 16)
        need(cuts(data, [entry ^ seed for entry in gear], vector) == case["cuts"], f"cuts of {kind} {length}")
        done += 1
    return done


def cuts(data, gear, vector):
    """FORMAT.md, chunker fcdc-1."""
    found, start, least, average, most = [], 0, vector["min"], vector["avg"], vector["max"]
    while start < len(data):
        left = len(data) - start
        cut = min(left, most)
        if left > least:
            digest, stop = 0, start + cut - (cut - least) % 2
            for at in range(start + least, stop):
                digest = ((digest << 1) + gear[data[at]]) & 0xFFFFFFFFFFFFFFFF
                if digest & (0xD91767537000 if at - start < average else 0xD91707537000) == 0:
                    cut = at - start
                    break
        found.append(cut)
        start += cut
    return found


def check_record(vector, folder):
    readers = {
        "record": lambda data, case: Record(data, of_hex(case["segment"]), case["offset"]),
        "pin": lambda data, case: exactly(read_pin(data), data),
        "superblock": lambda data, case: read_superblock(data),
        "footer": lambda data, case: dict(zip(("segment", "segment_hash", "entries"), read_footer(data))),
        "trailer": lambda data, case: trailer(data),
    }
    for case in vector["cases"]:
        read = lambda: readers[case["structure"]](of_hex(case["bytes"]), case)
        if case.get("refused"):
            refused(case["name"], read)
            continue
        found = read()
        for field, value in case["fields"].items():
            mine = found[field] if isinstance(found, dict) else getattr(found, field)
            mine = mine() if callable(mine) else mine
            need(plain(mine) == value, f"{case['name']}: {field} is {plain(mine)}")
    return len(vector["cases"])


def plain(value):
    if isinstance(value, bytes):
        return value.hex()
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def exactly(pin, data):
    need(len(pin["bytes"]) == len(data), "bytes behind a pin")
    return pin


def trailer(data):
    tail = Fields(data, "trailer")
    need(tail.take(8) == b"HFTRAILR", "not a holdfast trailer")
    need(crc32c(data[:-4]) == int.from_bytes(data[-4:], "little"), "the checksum of the trailer does not match")
    tail.version()
    tail.take(3)
    return {"footer_offset": tail.number(8), "footer_len": tail.number(8)}


CHECKS = {
    "keys.json": check_keys, "sealed.json": check_sealed, "tree.json": check_tree, "recipe.json": check_recipe,
    "chunker.json": check_chunker, "structures.json": check_record,
}


def main(folders):
    failed = 0
    for path in (path for folder in folders for path in sorted(Path(folder).glob("*.json"))):
        try:
            need(path.name in CHECKS, "no check knows this file")
            print(f"{path.name}: {CHECKS[path.name](json.loads(path.read_text()), path.parent)} cases hold")
        except Refused as refusal:
            failed += 1
            print(f"{path.name}: FAILED: {refusal}")
    return 1 if failed or not folders else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
