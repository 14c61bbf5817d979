#!/usr/bin/env bash
# Installs what benchmarks compare and measure with, where it is missing: restic, borg, rclone and perf from Debian, rustic by cargo
# into target/rivals. The build of rustic takes several minutes, once.
#
#     deploy/install-rivals.sh restic rustic borg
#     deploy/install-rivals.sh perf
set -euo pipefail
cd "$(dirname "$0")/.."

rustic_version=0.11.4

install_package() {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1"
}

install_rustic() {
    local rivals="$PWD/target/rivals"
    if "$rivals/bin/rustic" --version 2>/dev/null | grep -qF " $rustic_version"; then
        return
    fi
    # Its own target folder, as it is another workspace with its own lock file; gone after the build.
    cargo install rustic-rs --locked --version "$rustic_version" --root "$rivals" --target-dir "$rivals/build"
    rm -rf "$rivals/build"
}

for tool in "$@"; do
    case "$tool" in
        rustic) install_rustic ;;
        restic) command -v restic >/dev/null || install_package restic ;;
        rclone) command -v rclone >/dev/null || install_package rclone ;;
        borg) command -v borg >/dev/null || install_package borgbackup ;;
        perf) command -v perf >/dev/null || install_package linux-perf ;;
        *) echo "no such tool: $tool" >&2; exit 2 ;;
    esac
done
