#!/usr/bin/env bash
# Installs the independent readers' libraries into target/test-tools/reader-venv, where they are missing. Python itself and
# its venv come from Debian.
set -euo pipefail
cd "$(dirname "$0")/../.."

venv="$PWD/target/test-tools/reader-venv"
wanted=tests/reader/requirements.txt

# The stamp is the list that was installed: nothing is done, and no network needed, while it is the one that is wanted.
if cmp -s "$wanted" "$venv/installed.txt" && "$venv/bin/python" -c 'import blake3, cryptography, icalendar, vobject, zstandard'; then
    exit 0
fi
if ! python3 -c 'import sys, venv, ensurepip; assert sys.version_info >= (3, 11)' 2>/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3 python3-venv
fi
python3 -m venv --clear "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: -r "$wanted"
cp "$wanted" "$venv/installed.txt"
