"""Reads exported files with libraries that know nothing of Holdfast, and prints what is in them as JSON.

    check_export.py ics DIR     every .ics file below DIR: its events
    check_export.py vcf DIR     every .vcf file below DIR: its card
    check_export.py eml DIR     every .eml file below DIR: its headers
    check_export.py mbox DIR    every .mbox file below DIR: the headers of its messages
    check_export.py zip DIR     every .zip file below DIR: names, times and hashes of its files
"""

import base64
import email
import email.policy
import hashlib
import json
import mailbox
import struct
import sys
import zipfile
from pathlib import Path


def text(value):
    return None if value is None else str(value)


def moments(event, name):
    """The values of a property that may stand once or more."""
    values = event.get(name, [])
    values = values if isinstance(values, list) else [values]
    return [one.dt.isoformat() for value in values for one in value.dts]


def read_ics(path):
    from icalendar import Calendar

    calendar = Calendar.from_ical(path.read_bytes())
    for event in calendar.walk("VEVENT"):
        attachments = event.get("ATTACH", [])
        attachments = attachments if isinstance(attachments, list) else [attachments]
        attendees = event.get("ATTENDEE", [])
        rule = event.get("RRULE")
        yield {
            "file": path.name,
            "uid": text(event["UID"]),
            "subject": text(event.get("SUMMARY")),
            "start": event.decoded("DTSTART").isoformat(),
            "end": event.decoded("DTEND").isoformat(),
            "rule": None if rule is None else rule.to_ical().decode(),
            "missing_zones": sorted(calendar.get_missing_tzids()),
            "zones": sorted(calendar.get_used_tzids()),
            "replaces": event.decoded("RECURRENCE-ID").isoformat() if "RECURRENCE-ID" in event else None,
            "cancelled": moments(event, "EXDATE"),
            "attendees": len(attendees) if isinstance(attendees, list) else 1,
            "attachments": sorted(hashlib.sha256(base64.b64decode(str(one))).hexdigest() for one in attachments),
        }


def read_vcf(path):
    import vobject

    for card in vobject.readComponents(path.read_bytes().decode()):
        yield {
            "file": path.name,
            "uid": card.uid.value,
            "name": card.fn.value,
            "given": card.n.value.given,
            "family": card.n.value.family,
            "addresses": [one.value for one in card.contents.get("email", [])],
            "numbers": len(card.contents.get("tel", [])),
            "photo": hashlib.sha256(card.photo.value).hexdigest() if "photo" in card.contents else None,
        }


def headers(message):
    return {"id": message["Message-ID"], "subject": message["Subject"], "parts": sum(1 for _ in message.walk())}


def read_eml(path):
    with path.open("rb") as file:
        yield {"file": path.name} | headers(email.message_from_binary_file(file, policy=email.policy.default))


def read_mbox(path):
    parse = lambda stream: email.message_from_binary_file(stream, policy=email.policy.default)
    for message in mailbox.mbox(path, parse, create=False):
        yield {"file": path.name, "path": str(path)} | headers(message)


def modified(entry):
    """When a file of an archive was changed, in seconds since 1970, by the extra field that Info-ZIP defines."""
    extra = entry.extra
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        if kind == 0x5455 and extra[4] & 1:
            return struct.unpack_from("<i", extra, 5)[0]
        extra = extra[4 + size :]
    return None


def read_zip(path):
    from blake3 import blake3

    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for entry in archive.infolist():
            yield {
                "file": entry.filename,
                "length": entry.file_size,
                "modified": modified(entry),
                "civil": list(entry.date_time),
                "blake3": blake3(archive.read(entry)).hexdigest(),
            }


def main():
    kind, folder = sys.argv[1], Path(sys.argv[2])
    readers = {"ics": read_ics, "vcf": read_vcf, "eml": read_eml, "mbox": read_mbox, "zip": read_zip}
    read = readers[kind]
    found = [one for path in sorted(folder.rglob(f"*.{kind}")) for one in read(path)]
    json.dump(found, sys.stdout, default=str)


if __name__ == "__main__":
    main()
