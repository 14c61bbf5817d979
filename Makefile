# The only entry point, for people and for continuous integration.
# `make demo` shows it, `make test` proves it; both install what they need on Debian 12 with a Rust toolchain, as root.

.PHONY: demo test lint unit e2e sim bench bench-rivals services clean

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

bench: build-tools
	cargo bench --locked -p holdfast-tests

bench-rivals: build-tools
	deploy/install-rivals.sh
	cargo bench --locked -p holdfast-tests --bench rivals

# Installs RabbitMQ, Redis, PostgreSQL and cargo-nextest where they are missing. Starts nothing: the tests start their own.
services: build-tools
	deploy/install-services.sh

# A C compiler and make's friends, for the crates that build C.
build-tools:
	deploy/install-build-tools.sh

clean:
	cargo clean
