# The only entry point, for people and for continuous integration.
# `make demo` shows it, `make test` proves it; both install what they need on Debian 12 with a Rust toolchain, as root.

.PHONY: demo test lint unit e2e sim bench bench-have bench-ingest bench-pipeline bench-profile bench-rivals bench-quota \
	bench-rclone bench-untouched bench-scale bench-memory services clean

# Builds the binary and runs the main job on a simulated tenant. Nothing is left but target/.
demo: build-tools
	cargo build --release --locked --bin holdfast
	target/release/holdfast demo

# Everything that must hold: format, lints, unit, conformance and end-to-end tests, on real services.
test: services
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo build --workspace --all-targets --locked
	cargo nextest run --workspace --locked --no-fail-fast

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

# Only what runs inside one process.
unit:
	cargo nextest run --workspace --locked -E 'not package(holdfast-tests)'

# The cluster of separate processes under faults.
e2e: services
	cargo build --locked --bin holdfast
	cargo nextest run --locked -p holdfast-tests --no-capture

# The storage node and its client under deterministic simulation: `make sim SEEDS=10000`, `make sim SEEDS=1 FROM=42`.
SEEDS ?= 300
FROM ?= 0
sim: build-tools
	cargo run --release --locked -p holdfast-storage-sim -- --seeds $(SEEDS) --from $(FROM)

# Ratios against this machine's own limits; tests/benches/README.md says what each covers. Also one by one:
# bench-have, bench-ingest, bench-pipeline.
bench: bench-have bench-ingest bench-pipeline

bench-have bench-pipeline: bench-%: build-tools
	cargo bench --locked -p holdfast-tests --bench $*

bench-ingest: build-tools
	cargo build --release --locked --bin holdfast
	cargo bench --locked -p holdfast-tests --bench ingest

# Where the CPU goes during ingest, part by part.
bench-profile: build-tools
	deploy/install-rivals.sh perf
	cargo build --release --locked --bin holdfast
	cargo bench --locked -p holdfast-tests --bench ingest --no-run --message-format json \
		| python3 -c 'import json, sys; print([e for e in map(json.loads, sys.stdin) if e.get("executable")][-1]["executable"])' \
		> target/ingest-bench
	python3 tests/benches/profile.py "$$(cat target/ingest-bench)"

# The same files through restic, rustic, borg and Holdfast: `make bench-rivals`, `make bench-rivals MIB=256`.
MIB ?= 1024
bench-rivals: build-tools
	deploy/install-rivals.sh restic rustic borg
	cargo build --release --locked --bin holdfast
	cargo bench --locked -p holdfast-tests --bench rivals -- $(MIB)

# How much of Microsoft's limits is used: `make bench-quota`, `make bench-quota MIN=2 WINDOW=60 VARIANTS=alone,shared`.
MIN ?= 10
WINDOW ?=
VARIANTS ?= alone,shared,killed,emptied
bench-quota: services
	cargo build --release --locked --bin holdfast
	cargo bench --locked -p holdfast-tests --bench quota -- minutes=$(MIN) window=$(WINDOW) variants=$(VARIANTS)

# A drive through rclone and Holdfast under the same limits: `make bench-rclone`, `make bench-rclone FILES=500`.
FILES ?= 3000
bench-rclone: services
	deploy/install-rivals.sh rclone
	cargo build --release --locked --bin holdfast
	cargo bench --locked -p holdfast-tests --bench rclone -- $(FILES)

# What a run costs that finds nothing changed: `make bench-untouched`, `make bench-untouched MAILBOXES=20`.
MAILBOXES ?= 200
bench-untouched: services
	cargo build --release --locked --bin holdfast
	cargo bench --locked -p holdfast-tests --bench untouched -- $(MAILBOXES)

# Four workers beside one: `make bench-scale`, `make bench-scale OF=drive`.
OF ?= mailboxes drive
bench-scale: services
	cargo build --release --locked --bin holdfast
	cargo bench --locked -p holdfast-tests --bench scale -- $(OF)

# The most memory of a worker: `make bench-memory`, `make bench-memory ITEMS=200000,400000`.
ITEMS ?= 1000000
bench-memory: services
	cargo build --release --locked --bin holdfast
	cargo bench --locked -p holdfast-tests --bench memory -- items=$(ITEMS)

# Installs RabbitMQ, Redis, PostgreSQL, SeaweedFS (an S3 server), cargo-nextest and the independent reader's libraries where
# they are missing. Starts nothing: the tests start their own.
services: build-tools
	deploy/install-services.sh
	deploy/install-seaweedfs.sh
	tests/reader/install.sh

# A C compiler and make's friends, for the crates that build C.
build-tools:
	deploy/install-build-tools.sh

clean:
	cargo clean
