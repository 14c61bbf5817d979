#!/usr/bin/env bash
# Installs what the build itself needs where it is missing: a C compiler.
set -euo pipefail

missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
if ((${#missing[@]})); then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
if ! command -v cargo >/dev/null; then
    echo "error: cargo is not installed: install the Rust toolchain named in rust-toolchain.toml first" >&2
    exit 1
fi
