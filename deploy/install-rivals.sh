#!/usr/bin/env bash
# Installs what the rivals benchmark compares with, where it is missing: restic from Debian, rustic by cargo into
# target/rivals. The build of rustic takes several minutes, once.
set -euo pipefail
cd "$(dirname "$0")/.."

rustic_version=0.11.4

if ! command -v restic >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends restic
fi

rivals="$PWD/target/rivals"
if ! "$rivals/bin/rustic" --version 2>/dev/null | grep -qF " $rustic_version"; then
    # Its own target folder, as it is another workspace with its own lock file; gone after the build.
    cargo install rustic-rs --locked --version "$rustic_version" --root "$rivals" --target-dir "$rivals/build"
    rm -rf "$rivals/build"
fi
