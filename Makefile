# Every target makes what it needs and may be repeated: a stamp in .venv stands for each lock file that is installed.
# Where packages come from is what this machine's pip says; the lock files hold versions and hashes only.

PYTHON ?= python3
BROKER ?= nats
ARGS ?=
SEEDS ?= 200

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest --timeout 900
STYLE := tests/test_tidy.py tests/test_docs.py
# A sudo-less container is root; anybody else is told what to install.
NEED = @$(1) >/dev/null 2>&1 || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(2) >/dev/null; } || \
	{ echo "missing: $(2); install it and run make again" >&2; exit 1; }; }

.PHONY: venv demo test check vectors brokers crash interop unit sim bench docs lock clean
.DEFAULT_GOAL := venv
.DELETE_ON_ERROR:

venv: $(VENV)/.dev

# The environment itself. venv without ensurepip is what Debian installs by default.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "broker_crypto needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	$(call NEED,$(PYTHON) -m ensurepip --version,python3-venv)
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@touch $@

# What runs: enough for the demo. What is installed from dev.lock contains it.
$(VENV)/.run: locks/run.lock pyproject.toml $(VENV)/.made
	$(PIP) install --require-hashes -r locks/run.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

# What tests, checks and measures.
$(VENV)/.dev: locks/dev.lock $(VENV)/.run
	$(PIP) install --require-hashes -r locks/dev.lock
	@touch $@

$(VENV)/.docs: locks/docs.lock $(VENV)/.dev
	$(PIP) install --require-hashes -r locks/docs.lock
	@touch $@

demo: $(VENV)/.run
	$(BIN)/broker-crypto demo --broker $(BROKER) $(ARGS)

# With CI=true in the environment nothing may be left out; without it, tests whose data lies elsewhere say so and are left out.
test: check
	$(PYTEST) tests $(addprefix --ignore=,$(STYLE)) $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-cache
	$(PYTEST) -q $(STYLE)

unit vectors brokers crash interop: $(VENV)/.dev
	$(PYTEST) tests/$@ $(ARGS)

# SEEDS runs of the simulator; a seed that fails is printed with the command that plays it alone.
sim: $(VENV)/.dev
	$(BIN)/python -m tests.sim --seeds $(SEEDS) $(ARGS)

bench: $(VENV)/.dev
	$(call NEED,$(BIN)/python -c 'import pysodium',libsodium23)
	$(BIN)/python -m bench $(ARGS)

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -q -W --keep-going -n -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# Renews the lock files from locks/*.in; UV names a uv. run and docs follow the versions of dev.
UV ?= uv
COMPILE = $(UV) pip compile -q --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate
lock:
	$(COMPILE) locks/dev.in -o locks/dev.lock
	$(COMPILE) -c locks/dev.lock locks/run.in -o locks/run.lock
	$(COMPILE) -c locks/dev.lock locks/docs.in -o locks/docs.lock

clean:
	rm -rf $(VENV) build dist docs/_build bench/out .mypy_cache .ruff_cache .hypothesis .import_linter_cache
