"""The bytes of Holdfast's format 1: segments, records, pins, keys, trees, contents.

Written from record/FORMAT.md and repository/FORMAT.md alone, to prove that they suffice. Nothing is believed: checksums, hashes,
ids, tags, references, the shape of the trees and the message that a recipe makes are all checked.
"""

import base64
import json
import struct

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FORMAT = 1
KNOWN_FEATURES = 0
SUPERBLOCK, TRAILER, HEADER, ENTRY = 4096, 32, 186, 112
MAX_PLAINTEXT, MAX_RECORD, MAX_REFS = 16 << 20, 17 << 20, 4000
MAX_RUNS, MAX_DEPTH, MAX_PARTS = 1000, 4, 1000
DATA, BUNDLE, LEAF, INNER, SNAPSHOT = 1, 2, 3, 4, 5
TREE_KINDS = (LEAF, INNER, SNAPSHOT)
ITEMS, CHILDREN = 0, 1
ROOT_PARENT = bytes(16)


class Refused(Exception):
    """The bytes are not what the format says; the text says why."""


def need(condition, why):
    if not condition:
        raise Refused(why)


def check_version(found, what):
    if found == 0:
        raise Refused(f"{what}: format 0 is a preview and is not read by this version")
    need(found == FORMAT, f"{what}: format {found} is newer than this reader reads ({FORMAT})")


# === Checksums, hashes, fields ===

def _crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC = _crc_table()


def crc32c(data, crc=0):
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def keyed(key, *parts):
    return blake3(b"".join(parts), key=key).digest()


def plain_hash(data):
    return blake3(data).digest()


class Fields:
    """Little-endian fields, one after the other."""

    def __init__(self, data, what):
        self.data, self.at, self.what = data, 0, what

    def take(self, n):
        need(self.at + n <= len(self.data), f"{self.what} is cut off")
        self.at += n
        return bytes(self.data[self.at - n:self.at])

    def number(self, n):
        return int.from_bytes(self.take(n), "little")

    def counted(self):
        return self.take(self.number(4))

    def version(self):
        check_version(self.number(1), self.what)

    def left(self):
        return len(self.data) - self.at

    def end(self):
        need(self.left() == 0, f"bytes behind the end of the {self.what}")


# === Segments (record/FORMAT.md) ===

class Record:
    """A sealed record, checked as far as that goes without keys."""

    def __init__(self, data, segment, offset):
        head = Fields(data[:HEADER], "record")
        need(head.take(8) == b"HFRECORD", "not a holdfast record")
        head.version()
        self.kind, self.flags, header_len = head.number(1), head.number(2), head.number(2)
        self.key_epoch, self.codec, self.chunker = head.number(4), head.number(1), head.number(1)
        self.tenant, self.pt_len, self.id = head.take(16), head.number(4), head.take(32)
        self.nonce, self.refs_hash = head.take(12), head.take(32)
        ct_len, self.ct = head.number(4), head.take(32)
        self.writer, self.session = head.number(8), head.number(8)
        self.write_epoch, self.lock_floor = head.number(8), head.number(8)
        n_refs = head.number(2)
        need(1 <= self.kind <= 7 and self.codec <= 1 and self.chunker <= 2, "a record has an unknown code")
        need(self.flags == 0, "a record has unknown flags")
        need(self.pt_len <= MAX_PLAINTEXT and n_refs <= MAX_REFS, "a record is out of range")
        need(header_len == HEADER + 16 * n_refs + 4, "the header length of a record is wrong")
        self.header = bytes(data[:header_len])
        need(len(self.header) == header_len, "a record is cut off")
        crc = crc32c(segment + struct.pack("<Q", offset) + self.header[:-4])
        need(crc == int.from_bytes(self.header[-4:], "little"), "the checksum of a record header does not match")
        self.len = -(-(header_len + ct_len) // 8) * 8
        need(self.len <= MAX_RECORD and len(data) >= self.len, "a record is cut off")
        self.ciphertext = bytes(data[header_len:header_len + ct_len])
        need(not any(data[header_len + ct_len:self.len]), "the padding of a record is not zero")
        need(plain_hash(self.ciphertext) == self.ct, "the ciphertext of a record does not match its hash")
        refs = self.header[HEADER:-4]
        self.refs = [refs[at:at + 16] for at in range(0, len(refs), 16)]
        need(all(a < b for a, b in zip(self.refs, self.refs[1:])), "the references of a record are not in order")
        need(plain_hash(refs) == self.refs_hash, "the references of a record do not match their hash")

    def aad(self):
        return self.header[8:12] + self.header[14:72] + self.refs_hash

    def entry(self, offset):
        return (self.tenant, self.id, offset, self.len, self.kind, self.ct, self.write_epoch, self.lock_floor)


def read_superblock(data):
    need(data[:8] == b"HFSEGMNT", "not a holdfast segment")
    need(len(data) >= SUPERBLOCK, "the superblock is cut off")
    block = Fields(data[:SUPERBLOCK], "segment")
    need(crc32c(block.data[:-4]) == int.from_bytes(block.data[-4:], "little"),
         "the checksum of the superblock does not match")
    block.take(8)
    block.version()
    found = {"class": block.number(1)}
    block.take(6)
    found |= {"cluster": block.take(16), "node": block.number(8), "disk": block.take(16)}
    found |= {"segment": block.take(16), "generation": block.number(8)}
    found["features"] = [block.number(8) for _ in range(4)]
    unknown = found["features"][0] & ~KNOWN_FEATURES
    need(unknown == 0, f"segment needs the read features {unknown:#x}, which this reader does not know")
    need(found["class"] in (1, 2, 3), "the class of the segment is unknown")
    return found


def read_trailer(data):
    """Where the footer of a sealed segment starts; None where there is no trailer."""
    tail = Fields(data[-TRAILER:], "trailer")
    if len(data) < SUPERBLOCK + TRAILER or tail.take(8) != b"HFTRAILR":
        return None
    if crc32c(tail.data[:-4]) != int.from_bytes(tail.data[-4:], "little"):
        return None
    tail.version()
    tail.take(3)
    offset, length = tail.number(8), tail.number(8)
    return offset if SUPERBLOCK <= offset and offset + length == len(data) - TRAILER else None


def read_footer(data):
    footer = Fields(data, "footer")
    need(footer.take(8) == b"HFFOOTER", "not a holdfast footer")
    need(crc32c(data[:-4]) == int.from_bytes(data[-4:], "little"), "the checksum of the footer does not match")
    footer.version()
    footer.take(3)
    count, segment, segment_hash = footer.number(4), footer.take(16), footer.take(32)
    need(footer.left() == count * ENTRY + 8, "the count of the footer is wrong")
    entries = []
    for _ in range(count):
        tenant, id_, offset, length = footer.take(16), footer.take(32), footer.number(8), footer.number(4)
        kind = footer.number(1)
        footer.take(3)
        entries.append((tenant, id_, offset, length, kind, footer.take(32), footer.number(8), footer.number(8)))
    # The partition is the first 12 bits of the id, so ordering by id orders by partition too.
    need(entries == sorted(entries, key=lambda e: (e[1], e[0], e[2])), "the footer is not in order")
    return segment, segment_hash, entries


def read_pin(data):
    """The pin that starts `data`."""
    pin = Fields(data, "pin")
    need(pin.take(8) == b"HFPINPIN", "not a holdfast pin")
    pin.version()
    found = {"workload": pin.number(1), "flags": pin.number(2), "tenant": pin.take(16), "resource": pin.take(16)}
    found |= {"sequence": pin.number(8), "fence": (pin.number(8), pin.number(8)), "epoch": pin.number(8)}
    found |= {"snapshot": pin.take(8), "root": pin.take(32)}
    previous = pin.take(32)
    found |= {"created_ms": pin.number(8), "retain_until_ms": pin.number(8)}
    found |= {"items": pin.number(8), "items_missing": pin.number(8)}
    sealed_len = pin.number(2)
    need(sealed_len <= 512, "the sealed root of a pin is too long")
    found["sealed_root"] = pin.take(sealed_len)
    crc = pin.number(4)
    found["bytes"] = bytes(data[:pin.at])
    need(crc32c(found["bytes"][:-4]) == crc, "the checksum of a pin does not match")
    need(found["workload"] == 1 and found["flags"] in (0, 1), "a pin has an unknown code")
    found["previous"] = previous if found["flags"] & 1 else None
    found["hash"] = plain_hash(found["bytes"])
    return found


# === Keys (repository/FORMAT.md) ===

def unwrap(masters, context, wrapped, what):
    blob = Fields(wrapped, what)
    blob.version()
    fingerprint, nonce, sealed = blob.take(8), blob.take(12), blob.take(blob.left())
    for master in masters:
        if keyed(master, b"hf-fingerprint-1")[:8] == fingerprint:
            return decrypt(keyed(master, b"hf-wrap-1"), nonce, context.encode(), sealed, what)
    raise Refused(f"the key kit does not open {what}: another key file wrapped it")


def decrypt(key, nonce, aad, sealed, what):
    try:
        return AESGCM(key).decrypt(nonce, sealed, aad)
    except InvalidTag:
        raise Refused(f"{what} does not open: wrong key or changed bytes") from None


def read_tenant_keys(plain):
    keys = Fields(plain, "tenant keys")
    keys.version()
    found = {name: keys.take(32) for name in ("hash", "id", "nonce", "boundary")}
    found["enc"] = {keys.number(4): keys.take(32) for _ in range(keys.number(2))}
    keys.end()
    return found


class Kit:
    """A key kit: the key file, and the keys that it wraps."""

    def __init__(self, text):
        kit = json.loads(text)
        need(kit["version"] == 1, f"key kit: version {kit['version']} is not read by this reader")
        file = kit["key-file"]
        need(file["version"] == 1, f"key file: version {file['version']} is not read by this reader")
        self.kek = [bytes.fromhex(file["kek"]["key"])]
        self.shred = [bytes.fromhex(key["key"]) for key in file["shred"]]
        self.tenants = {bytes.fromhex(tenant["tenant"]): tenant for tenant in kit["tenants"]}

    def sealer(self, tenant, resource):
        need(tenant in self.tenants, f"the key kit has no tenant {tenant.hex()}")
        entry, context = self.tenants[tenant], f"tenant-keys {tenant.hex()}"
        tenant_keys = read_tenant_keys(unwrap(self.kek, context, bytes.fromhex(entry["tenant-keys"]), "the keys of the tenant"))
        for one in entry["resources"]:
            if bytes.fromhex(one["resource"]) == resource:
                context = f"resource-key {tenant.hex()} {resource.hex()}"
                key = unwrap(self.shred, context, bytes.fromhex(one["resource-key"]), "the key of the resource")
                return Sealer(tenant, resource, tenant_keys, key)
        raise Refused(f"the key kit has no key of the resource {resource.hex()}")


class Sealer:
    def __init__(self, tenant, resource, keys, resource_key):
        self.tenant, self.resource, self.keys, self.resource_key = tenant, resource, keys, resource_key
        self.resource_hash = keyed(keys["hash"], b"hf-resource-hash-1", resource_key)

    def hash(self, kind, plain):
        return keyed(self.resource_hash if kind in TREE_KINDS else self.keys["hash"], bytes([kind]), plain)

    def id(self, h):
        return keyed(self.keys["id"], h)

    def boundary(self, tree, level):
        return keyed(self.keys["boundary"], b"hf-boundary-1", bytes([tree, level]))

    def open_root(self, root, sealed):
        key = keyed(self.resource_key, b"hf-root-1", root)
        h = decrypt(key, bytes(12), self.tenant + self.resource, sealed, "the root of the pin")
        need(self.id(h) == root, "the sealed root of the pin is another object's")
        return h

    def chunk_key(self, record, h):
        if record.kind in TREE_KINDS:
            need(record.key_epoch == 0, "a later key of the resource is needed")
            return keyed(self.resource_key, b"hf-chunk-1", h)
        need(record.key_epoch in self.keys["enc"], f"the key of epoch {record.key_epoch} is not in the kit")
        return keyed(self.keys["enc"][record.key_epoch], b"hf-chunk-1", h)

    def open(self, record, h):
        need(record.tenant == self.tenant and record.id == self.id(h), "the record is another one")
        packed = decrypt(self.chunk_key(record, h), record.nonce, record.aad(), record.ciphertext, "a record")
        need(keyed(self.keys["nonce"], record.aad(), packed)[:12] == record.nonce, "the nonce is not made from the content")
        plain = packed
        if record.codec == 1:
            try:
                frame = zstandard.ZstdDecompressor().decompressobj()
                plain = frame.decompress(packed)
            except zstandard.ZstdError as error:
                raise Refused(f"a record does not decompress: {error}") from None
            need(frame.eof and not frame.unused_data, "bytes behind the compressed plaintext")
        need(len(plain) == record.pt_len, "a plaintext has another length than its header says")
        need(self.hash(record.kind, plain) == h, "a plaintext does not match its hash")
        return plain


# === Content ===

def base64_lines(data, cells, crlf, ended):
    width, eol = cells * 4, b"\r\n" if crlf else b"\n"
    text = base64.b64encode(data)
    lines = eol.join(text[at:at + width] for at in range(0, len(text), width))
    return lines + eol if ended else lines


class Snapshot:
    """Reads one snapshot. `fetch(h, kinds)` gives a plaintext and the references of its record."""

    def __init__(self, sealer, fetch):
        self.sealer, self.fetch, self.bundles = sealer, fetch, {}

    def named(self, h, refs):
        need(self.sealer.id(h)[:16] in refs, "a record does not name in the clear what its plaintext names")

    def read_roots(self, data):
        roots = Fields(data, "tree roots")
        roots.version()
        flags = roots.number(1)
        need(flags & ~3 == 0, "tree roots have unknown flags")
        found = [roots.take(32) if flags & bit else None for bit in (1, 2)]
        roots.end()
        return found

    def open(self, pin):
        h = self.sealer.open_root(pin["root"], pin["sealed_root"])
        plain, refs = self.fetch(h, (SNAPSHOT,))
        header = Fields(plain, "snapshot object")
        header.version()
        found = {"workload": header.number(1), "tenant": header.take(16), "resource": header.take(16)}
        found |= {"sequence": header.number(8)}
        self.header = {"started_ms": header.number(8), "finished_ms": header.number(8), "format": header.number(4)}
        has_parent, parent = header.number(1), header.take(32)
        found["previous"] = parent if has_parent else None
        for field, value in found.items():
            need(pin[field] == value, f"the snapshot object does not belong to its pin: {field} differs")
        roots = self.read_roots(header.counted())
        self.header |= {"account": json.loads(header.counted()), "worker": header.counted().decode()}
        self.header |= {"state": header.counted(), "failed": header.counted()}
        header.end()
        for root in filter(None, roots):
            self.named(root, refs)
        self.items = self.read_tree(ITEMS, roots[0])
        self.children = self.read_tree(CHILDREN, roots[1])
        self.check_children()

    def read_tree(self, tree, root):
        entries = [] if root is None else self.read_node(tree, root, None, None)
        need(build_tree(self.sealer, tree, entries) == root, "the tree does not have the shape that its keys give it")
        return entries

    def read_node(self, tree, h, level, last_key):
        plain, refs = self.fetch(h, (LEAF, INNER))
        found, entries = decode_node(plain, tree)
        need(level is None or found == level, "a node is on another level than its parent says")
        need(last_key is None or entries[-1][0] == last_key, "a node does not end with the key its parent says")
        if found == 0:
            return entries
        below = []
        for key, child in entries:
            self.named(child, refs)
            below += self.read_node(tree, child, found - 1, key)
        return below

    def check_children(self):
        """The children tree follows from the items."""
        expected = {}
        for key, value in self.items:
            item = decode_item(value)
            expected[item["parent"] + struct.pack(">Q", item["sort"]) + key] = bytes([item["kind"]])
        need(sorted(expected.items()) == self.children, "the folders do not list the items that are there")

    def blob(self, place):
        h, offset, length = place
        if h not in self.bundles:
            if len(self.bundles) > 16:
                self.bundles.clear()
            self.bundles[h] = self.fetch(h, (DATA, BUNDLE))
        plain, refs = self.bundles[h]
        need(offset + length <= len(plain), "a blob reaches behind its record")
        return plain[offset:offset + length], refs

    def parts(self, place):
        """The parts of an item's content."""
        if place is None:
            return []
        data, refs = self.blob(place)
        return read_content_blob(data, lambda h: self.piece(h, refs), lambda h, length: self.page(h, length, refs))

    def piece(self, h, refs):
        self.named(h, refs)
        return self.fetch(h, (DATA,))[0]

    def page(self, h, length, refs):
        self.named(h, refs)
        plain, below = self.fetch(h, (DATA,))
        pieces = read_page(plain, length)
        for piece, _ in pieces:
            self.named(piece, below)
        return pieces


def read_list(fields):
    count = fields.number(4)
    need(count * 36 <= fields.left(), "more chunks than bytes")
    pieces = [(fields.take(32), fields.number(4)) for _ in range(count)]
    need(all(length for _, length in pieces), "a chunk is empty")
    return pieces


def read_page(plain, length):
    need(len(plain) == length, "a page has another length than its list says")
    page = Fields(plain, "page of chunks")
    page.version()
    pieces = read_list(page)
    page.end()
    return pieces


class ContentReader:
    """Reads content blobs; `piece(h)` gives a plaintext, `page(h, length)` what a page lists."""

    def __init__(self, blob, piece, page):
        self.blob, self.piece, self.page, self.runs = blob, piece, page, 0

    def leaf(self, kind):
        blob = self.blob
        if kind == 0:
            return blob.counted()
        need(kind in (1, 2), "unknown kind of part")
        total, data = blob.number(8), []
        for h, length in read_list(blob):
            if kind == 1:
                data.append(self.exactly(self.piece(h), length))
            else:
                data += [self.exactly(self.piece(one), n) for one, n in self.page(h, length)]
        data = b"".join(data)
        need(len(data) == total, "chunks do not add up")
        return data

    @staticmethod
    def exactly(data, length):
        need(len(data) == length, "a chunk has another length than its list says")
        return data

    def layer(self, depth):
        need(depth <= MAX_DEPTH, "a recipe is too deep")
        blob, out, at = self.blob, [], 0
        literals, count = self.leaf(blob.number(1)), blob.number(2)
        self.runs += count
        need(count > 0 and self.runs <= MAX_RUNS, "a recipe has no run, or too many")
        for _ in range(count):
            before, cells, form, kind = blob.number(8), blob.number(1), blob.number(1), blob.number(1)
            need(cells > 0 and form <= 3, "a run has an unknown form")
            need(at + before <= len(literals), "the literals of a recipe do not suffice")
            out.append(literals[at:at + before])
            at += before
            content = self.layer(depth + 1) if kind == 3 else self.leaf(kind)
            need(content, "a run is empty")
            out.append(base64_lines(content, cells, form & 1, form & 2))
        return b"".join(out) + literals[at:]

    def recipe(self):
        check_version(self.blob.number(1), "mime recipe")
        length, digest = self.blob.number(8), self.blob.take(32)
        message = self.layer(1)
        need(len(message) == length and plain_hash(message) == digest, "a recipe makes another message")
        return message


def read_content_blob(data, piece, page):
    blob = Fields(data, "content blob")
    blob.version()
    count = blob.number(2)
    need(count <= MAX_PARTS, "too many parts")
    parts = []
    for _ in range(count):
        reader, kind = ContentReader(blob, piece, page), blob.number(1)
        parts.append(reader.recipe() if kind == 3 else reader.leaf(kind))
    blob.end()
    return parts


# === Trees ===

def decode_node(plain, tree):
    node = Fields(plain, "manifest node")
    node.version()
    need(node.number(1) == tree, "a node belongs to the other tree")
    level, entries = node.number(1), []
    for _ in range(node.number(2)):
        key_len, value_len = node.number(2), node.number(2)
        entries.append((node.take(key_len), node.take(value_len)))
    node.end()
    need(entries and all(a[0] < b[0] for a, b in zip(entries, entries[1:])), "the keys of a node are not in order")
    need(level == 0 or all(len(value) == 32 for _, value in entries), "a child is not a hash")
    return level, entries


def build_tree(sealer, tree, entries):
    """The root that these entries have; None without any."""
    level = 0
    while entries:
        boundary, nodes, node = sealer.boundary(tree, level), [], []
        for key, value in entries:
            node.append((key, value))
            if ends(boundary, len(node), key):
                nodes.append(node)
                node = []
        if node:
            nodes.append(node)
        entries = []
        for node in nodes:
            plain = bytes([FORMAT, tree, level]) + struct.pack("<H", len(node)) + b"".join(
                struct.pack("<HH", len(key), len(value)) + key + value for key, value in node)
            entries.append((node[-1][0], sealer.hash(LEAF if level == 0 else INNER, plain)))
        if len(entries) == 1:
            return entries[0][1]
        level += 1
    return None


def ends(boundary, n, key):
    if n < 2 or n >= 170:
        return n >= 170
    hazard = ((4 * n ** 3) << 64) // 47 ** 4
    return int.from_bytes(keyed(boundary, key)[:8], "little") < hazard


def decode_item(value):
    item = Fields(value, "manifest entry")
    found = {"kind": item.number(1), "flags": item.number(2), "change": item.take(16), "size": item.number(8)}
    found |= {"parent": item.take(16), "sort": item.number(8)}
    place = lambda: (item.take(32), item.number(4), item.number(4))
    found["meta"] = place()
    has_content = item.number(1)
    need(found["kind"] in (1, 2) and has_content in (0, 1), "an entry has an unknown code")
    found["content"] = place() if has_content else None
    item.end()
    return found
