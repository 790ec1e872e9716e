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

# The environment of the Python package, and other interpreters to test its wheel with:
# `make test PYTHONS="python3.12 /path/to/python3.13"`.
VENV = target/python
PYTHONS =
MATURIN = PATH="$(CURDIR)/$(VENV)/bin:$$PATH" VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(VENV)/bin/maturin
PACKAGE = -m python/Cargo.toml
CRATE = -p bifrost-module-cache-python

# Most tests wait for a time-out or a server, and need little of a processor.
THREADS_PER_CPU = 2

.DEFAULT_GOAL = help
.PHONY: help setup demo test test-rust test-python lint lint-rust lint-python wheel bench bench-python soak

help: ## Show this list
	@awk -F ': .*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what demo, tests and benches need (Debian packages, a Python environment)
	@scripts/setup.sh redis postgres pgbouncer package python

demo: ## Serve a real workspace from throw-away servers; WORKSPACE=dir picks another one
	@scripts/setup.sh redis postgres
	@cargo build --quiet --release --features cli --bin bifrost-modules --example demo
	@cargo run --quiet --release --features cli --example demo -- $(if $(WORKSPACE),"$(WORKSPACE)")
	@scripts/setup.sh package
	@$(MATURIN) develop --quiet $(PACKAGE)
	@$(VENV)/bin/python3 python/benches/demo.py $(if $(WORKSPACE),"$(WORKSPACE)")
	@$(VENV)/bin/python3 python/benches/guard.py target/release/bifrost-modules

test: test-rust test-python ## Run all tests; REDIS=program and POSTGRES=directory pick other servers

test-rust: setup ## Run the Rust crate's tests alone
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$(($(THREADS_PER_CPU) * $$(nproc)))} cargo test --all-features

test-python: setup ## Run the Python package's tests alone; PYTHONS=programs: its wheel in these too
	$(MATURIN) develop --quiet --profile dev $(PACKAGE)
	cd python && ../$(VENV)/bin/python3 -m pytest
	@$(if $(PYTHONS),scripts/test_wheel.sh $(PYTHONS))

lint: lint-rust lint-python ## Check format, every set of features, documentation, types and stubs

lint-python: ## Check the Python package alone
	@scripts/setup.sh rustfmt clippy package
	cargo fmt $(CRATE) --check
	cargo clippy $(CRATE) -- -D warnings
	cargo clippy $(CRATE) --no-default-features -- -D warnings
	$(MATURIN) develop --quiet --profile dev $(PACKAGE)
	cd python && MYPYPATH=examples ../$(VENV)/bin/python3 -m mypy bifrost_module_cache examples
	cd python && ../$(VENV)/bin/python3 -m mypy.stubtest bifrost_module_cache

lint-rust: ## Check the Rust crate alone
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

wheel: ## Build the Python package's wheel and source distribution into target/wheels
	@scripts/setup.sh package
	$(MATURIN) build --out target/wheels $(PACKAGE)
	$(MATURIN) sdist --out target/wheels $(PACKAGE)

bench-python: ## Compare imports from the cache with those from a disk, in CPU time
	@scripts/setup.sh redis package
	$(MATURIN) develop --quiet $(PACKAGE)
	@$(VENV)/bin/python3 python/benches/imports.py

soak: setup ## Run the long tests, one after another; PYTHONS=programs as in test-python
	cargo test --release --all-features --tests -- --ignored --nocapture --test-threads=1
	$(MATURIN) develop --quiet $(PACKAGE)
	cd python && ../$(VENV)/bin/python3 -m pytest -m long
	@$(if $(PYTHONS),scripts/test_wheel.sh $(PYTHONS) -- -m long)
