#!/usr/bin/env python3
"""Reads Holdfast storage without Holdfast: from folders of segments and a key kit, nothing else.

It lists the snapshots that the pin segments name, and writes every item of them to files. `holdfast_format.py` knows the bytes.
"""

import argparse
import json
import sys
from pathlib import Path

from holdfast_format import (
    SUPERBLOCK, TRAILER, Fields, Kit, Record, Refused, Snapshot, crc32c, decode_item, need, plain_hash, read_footer, read_pin,
    read_superblock, read_trailer)


class Store:
    """Every record and pin of some folders. `problems` tells what could not be read."""

    def __init__(self, folders):
        self.records, self.pins, self.problems = {}, {}, []
        self.n_segments, self.n_sealed = 0, 0
        paths = [path for folder in folders for path in sorted(Path(folder).rglob("*.seg"))]
        need(paths, "no segments (*.seg) in " + ", ".join(map(str, folders)))
        for path in paths:
            try:
                self.read_segment(path)
            except Refused as refused:
                self.problems.append(f"{path}: {refused}")

    def read_segment(self, path):
        data = path.read_bytes()
        superblock = read_superblock(data)
        self.n_segments += 1
        if superblock["class"] == 3:
            return self.read_pins(path, data)
        segment, end = superblock["segment"], read_trailer(data)
        found, headers, stop = self.walk(path, data, segment, len(data) if end is None else end)
        if end is None:
            return self.check_tail(path, segment, stop)
        self.n_sealed += 1
        named, segment_hash, entries = read_footer(data[end:-TRAILER])
        need(named == segment, "the footer is another segment's")
        need(set(entries) == set(found), "the footer does not list the records that are there")
        need(plain_hash(data[:SUPERBLOCK] + b"".join(headers)) == segment_hash, "the segment's hash does not match")

    def walk(self, path, data, segment, end):
        """The records; what is damaged is passed over, at the multiples of 8."""
        view, at, good_end, found, headers, bad = memoryview(data), SUPERBLOCK, SUPERBLOCK, [], [], None
        while at < end:
            try:
                record = Record(view[at:end], segment, at)
            except Refused as refused:
                bad = bad or f"{path}: offset {at}: {refused}"
                at = data.find(b"HFRECORD", at + 8, end)
                at = end if at < 0 else -(-at // 8) * 8
                continue
            if bad:
                self.problems.append(bad)
                bad = None
            self.records.setdefault((record.tenant, record.id), []).append(record)
            found.append(record.entry(at))
            headers.append(record.header)
            at += record.len
            good_end = at
        return found, headers, good_end

    def check_tail(self, path, segment, stop):
        """Behind the last record of an open segment may be what nobody was told is stored: above the mark."""
        mark = path.with_name(segment.hex() + ".mark")
        if not mark.exists():
            self.problems.append(f"{path}: it was sealed once, and its end is missing")
            return
        durable, turn = SUPERBLOCK, 0
        for slot in (mark.read_bytes()[:44], mark.read_bytes()[4096:4140]):
            slot = Fields(slot, "mark")
            if slot.left() < 44 or slot.take(8) != b"HFMARK01" or slot.take(16) != segment:
                continue
            found = (slot.number(8), slot.number(8))
            if crc32c(slot.data[:40]) == slot.number(4) and found > (turn, durable):
                turn, durable = found
        need(stop >= durable, "records below the mark are damaged or missing")

    def read_pins(self, path, data):
        at = SUPERBLOCK
        while at < len(data):
            if not any(data[at:at + 8]):
                at += 8
                continue
            try:
                pin = read_pin(memoryview(data)[at:])
            except Refused as refused:
                self.problems.append(f"{path}: offset {at}: {refused}")
                at += 8
                continue
            self.pins[pin["hash"]] = pin
            at += -(-len(pin["bytes"]) // 8) * 8


# === Restore ===

def snapshot_of(store, kit, pin):
    sealer = kit.sealer(pin["tenant"], pin["resource"])

    def fetch(h, kinds):
        copies, why = store.records.get((sealer.tenant, sealer.id(h)), []), Refused("a record is in none of the segments")
        for record in sorted(copies, key=lambda record: record.ct):
            try:
                plain = sealer.open(record, h)
                need(record.kind in kinds, "a record is of another kind than its place wants")
                return plain, set(record.refs)
            except Refused as refused:
                why = refused
        raise why

    snapshot = Snapshot(sealer, fetch)
    snapshot.open(pin)
    return snapshot


def folder_key(key):
    return plain_hash(b"holdfast mail folder 1" + key)[:16]


def paths_of(items, meta_of):
    """Per folder key where its content goes."""
    names, parents = {}, {}
    for key, item in items:
        if item["kind"] == 1:
            name = str(json.loads(meta_of(item)).get("displayName", "folder")).replace("/", "_").replace("\0", "_")
            own = folder_key(key)
            names[own], parents[own] = f"{name.lstrip('.') or 'folder'}~{own.hex()[:6]}", item["parent"]
    paths = {}
    for own in names:
        chain, at = [], own
        while at in names and len(chain) < 300:
            chain.append(names[at][:200])
            at = parents[at]
        paths[own] = Path(*reversed(chain))
    return paths


def restore(store, kit, pin, out):
    """Writes a snapshot: a folder per folder, `N.json` and `N.eml` (and `N.part-M`) per message, and `index.json`."""
    snapshot = snapshot_of(store, kit, pin)
    items = [(key, decode_item(value)) for key, value in snapshot.items]
    meta_of = lambda item: snapshot.blob(item["meta"])[0]
    paths, index = paths_of(items, meta_of), []
    for n, (key, item) in enumerate(items):
        folder = out / paths.get(folder_key(key) if item["kind"] == 1 else item["parent"], Path("elsewhere"))
        folder.mkdir(parents=True, exist_ok=True)
        files = [("folder.json" if item["kind"] == 1 else f"{n:06}.json", meta_of(item))]
        for m, part in enumerate(snapshot.parts(item["content"])):
            files.append((f"{n:06}.eml" if m == 0 else f"{n:06}.part-{m}", part))
        entry = {"key": key.hex(), "kind": item["kind"], "flags": item["flags"], "change": item["change"].hex(), "size": item["size"]}
        entry |= {"parent": item["parent"].hex(), "sort": item["sort"], "files": []}
        for name, data in files:
            (folder / name).write_bytes(data)
            entry["files"].append(str((folder / name).relative_to(out)))
        index.append(entry)
    (out / "index.json").write_text(json.dumps(index, indent=1))
    header = {key: snapshot.header[key] for key in ("started_ms", "finished_ms", "format", "account", "worker")}
    header |= {"state": snapshot.header["state"].hex(), "failed": json.loads(snapshot.header["failed"] or b"[]")}
    (out / "snapshot.json").write_text(json.dumps(header, indent=1))
    return len(items)


def describe(pin):
    found = {"tenant": pin["tenant"].hex(), "resource": pin["resource"].hex(), "sequence": pin["sequence"]}
    found |= {"snapshot": pin["snapshot"].hex(), "pin": pin["hash"].hex(), "items": pin["items"]}
    return found | {"items_missing": pin["items_missing"], "created_ms": pin["created_ms"]}


def check_chains(pins):
    """Every pin but the first of a resource names the one before it."""
    known = {pin["hash"] for pin in pins}
    return [f"pin {pin['hash'].hex()}: the pin before it is missing" for pin in pins
            if pin["previous"] is not None and pin["previous"] not in known]


def main():
    parser = argparse.ArgumentParser(description="Lists or restores snapshots from segments and a key kit.")
    parser.add_argument("command", choices=["list", "restore"])
    parser.add_argument("--segments", required=True, nargs="+", help="folders of segments, of one node or several")
    parser.add_argument("--kit", help="the key kit (restore)")
    parser.add_argument("--out", type=Path, help="a folder that does not exist yet (restore)")
    parser.add_argument("--snapshot", help="only the snapshot of this id")
    options = parser.parse_args()
    try:
        store = Store(options.segments)
        pins = sorted(store.pins.values(), key=lambda pin: (pin["tenant"], pin["resource"], pin["sequence"]))
        pins = [pin for pin in pins if options.snapshot in (None, pin["snapshot"].hex())]
        problems, found = store.problems + (check_chains(pins) if not options.snapshot else []), []
        if options.command == "restore":
            need(options.kit and options.out, "restore needs --kit and --out")
            kit = Kit(Path(options.kit).read_text())
            options.out.mkdir(parents=True)
        for pin in pins:
            entry = describe(pin)
            if options.command == "restore":
                entry["folder"] = f"{entry['tenant']}/{entry['resource']}/{entry['sequence']}"
                try:
                    entry["restored"] = restore(store, kit, pin, options.out / entry["folder"])
                except Refused as refused:
                    problems.append(f"snapshot {entry['snapshot']}: {refused}")
            found.append(entry)
        report = {"segments": store.n_segments, "sealed": store.n_sealed, "snapshots": found, "problems": problems}
        print(json.dumps(report, indent=1))
        return 1 if problems else 0
    except (Refused, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
