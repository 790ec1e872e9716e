# What can be done here: `make help`. Servers are started on free ports and thrown away.

# The features beside the two facades; each is linted alone and with each facade.
FACADES = blocking nonblocking
EXTRAS = postgres tls near-cache cli

comma := ,
FEATURE_SETS = $(FACADES) $(foreach extra,$(EXTRAS),$(extra) $(FACADES:%=%$(comma)$(extra)))

# A directory of .py files for the demo; by default, Python's own library.
WORKSPACE =

# Other servers than the installed ones: `make test REDIS=/path/to/redis-server POSTGRES=/path/to/bin`.
ifeq ($(origin REDIS),command line)
export BIFROST_TEST_REDIS_SERVER := $(if $(findstring /,$(REDIS)),$(abspath $(REDIS)),$(REDIS))
endif
ifeq ($(origin POSTGRES),command line)
export BIFROST_TEST_PG_BIN := $(abspath $(POSTGRES))
endif

# Most tests wait for a time-out or a server, and need little of a processor.
THREADS_PER_CPU = 4

.DEFAULT_GOAL = help
.PHONY: help setup demo test lint bench soak

help: ## Show this list
	@awk -F ': .*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what demo, tests and benches need (Debian packages, a Python environment)
	@scripts/setup.sh redis postgres pgbouncer python

demo: ## Serve a real workspace from throw-away servers; WORKSPACE=dir picks another one
	@scripts/setup.sh redis postgres
	@cargo build --quiet --release --features cli --bin bifrost-modules --example demo
	@cargo run --quiet --release --features cli --example demo -- $(if $(WORKSPACE),"$(WORKSPACE)")

test: setup ## Run all tests; REDIS=program and POSTGRES=directory pick other servers
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$(($(THREADS_PER_CPU) * $$(nproc)))} cargo test --all-features

lint: ## Check the format, every set of features and the documentation
	@scripts/setup.sh rustfmt clippy
	cargo fmt --check
	cargo clippy --all-targets --no-default-features -- -D warnings
	@set -e; for features in $(FEATURE_SETS); do \
		echo "cargo clippy --all-targets --no-default-features --features $$features -- -D warnings"; \
		cargo clippy --all-targets --no-default-features --features $$features -- -D warnings; \
	done
	cargo clippy --all-targets -- -D warnings
	cargo clippy --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features

bench: setup ## Run the benchmarks, and draw docs/performance.svg from their results
	cargo bench --all-features
	@scripts/plot.py

soak: setup ## Run the long tests, one after another
	cargo test --release --all-features --tests -- --ignored --nocapture --test-threads=1
