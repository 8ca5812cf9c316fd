# Needs only make and Python 3.11 or newer; everything else goes into .venv, pinned by requirements/ (and, where npm
# is, by tests/azurite/package-lock.json).
# The second call of anything is instant: an environment is rebuilt when its lock changes.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python3.14 python; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && break; done)
PYTEST_ARGS ?=
DEMO_ARGS ?=
BENCH_ARGS ?=
LOCK_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP_FLAGS := -m pip --quiet --disable-pip-version-check --no-input
UV_VERSION := 0.13.9

.PHONY: all help demo test test-long test-integrations check fix changes bench pictures wheel lock clean
all: check test

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/run.stamp ## see the whole thing at work
	$(BIN)/holdfast demo $(DEMO_ARGS)

# What fails once has a second chance, alone, and is named for it (tests/again.py).
test: $(VENV)/dev.stamp $(VENV)/azurite/stamp ## run the tests (PYTEST_ARGS="-k ship -x")
	$(BIN)/python -m tests.again -m "not long" -n auto --dist worksteal --durations 25 $(PYTEST_ARGS)

test-long: $(VENV)/dev.stamp $(VENV)/azurite/stamp ## run the tests that take minutes
	$(BIN)/python -m pytest -m long --timeout 3600 $(PYTEST_ARGS)

test-integrations: .venv-integrations/stamp ## run the adapters' tests and the frameworks' own (SUITES=langgraph-store)
	HOLDFAST_FRAMEWORKS=all .venv-integrations/bin/python -m pytest -p no:asyncio -m "not long" -n auto --dist loadfile \
		tests/integrations $(DOCS) $(PYTEST_ARGS)
	.venv-integrations/bin/python -m tests.integrations.suites.run $(SUITES)
# Pages of the documentation that need a framework, and the suites to be run: none means all.
PAGES := docs/langgraph.md docs/frameworks.md
DOCS = $(PAGES:%="tests/house/test_docs.py::test_every_python_block_runs[%]")
SUITES ?=

check: $(VENV)/dev.stamp ## format, lint, types, floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fix: $(VENV)/dev.stamp ## put right what a tool can put right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

changes: $(VENV)/dev.stamp ## show what the next release's changelog will say
	$(BIN)/towncrier build --draft --version next

pictures: $(VENV)/dev.stamp ## a picture of every page, into pictures/ (docs/pictures/ has some of them)
	$(BIN)/python -m tests.ui.shots pictures

bench: .venv-bench/bench.stamp .venv-bench/azurite/stamp ## measure against the neighbours
	.venv-bench/bin/python -m bench $(BENCH_ARGS)

wheel: $(VENV)/dev.stamp ## build the wheel and prove it in an empty environment
	rm -rf dist
	$(BIN)/hatchling build -t wheel
	$(PYTHON) -m venv --clear .venv-wheel
	.venv-wheel/bin/python $(PIP_FLAGS) install dist/*.whl
	.venv-wheel/bin/python -I tests/house/bare_check.py

lock: ## pin the dependencies again (LOCK_ARGS=--upgrade takes newer ones)
	$(PYTHON) -m venv --clear .venv-lock
	.venv-lock/bin/python $(PIP_FLAGS) install uv==$(UV_VERSION)
	$(COMPILE) $(DEV_EXTRAS) --group build --group test --group check -o requirements/dev.txt
	$(COMPILE) -c requirements/dev.txt --extra hub --group build -o requirements/run.txt
	$(COMPILE) -c requirements/dev.txt $(DEV_EXTRAS) --group build --group bench -o requirements/bench.txt
	$(COMPILE) --extra all --extra frameworks --group build --group test --group integrations \
		-o requirements/integrations.txt
# Not held to dev.txt: the ADK wants an older OpenTelemetry.
# All but the frameworks, which have an environment of their own.
DEV_EXTRAS := --extra hub --extra postgres --extra redis --extra otel --extra s3 --extra gcs --extra azure --extra key-value \
	--extra keyring --extra vector
COMPILE = .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock" \
	$(LOCK_ARGS) pyproject.toml

clean: ## remove what make made
	rm -rf .venv .venv-bench .venv-integrations .venv-lock .venv-wheel dist
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# How an environment is made: the lock by hash, then this package in place without looking further.
define install
	$(1)/bin/python $(PIP_FLAGS) install --require-hashes -r $(2)
	$(1)/bin/python $(PIP_FLAGS) install --no-deps --no-build-isolation -e .
	@touch $@
endef

%/bin/python:
	@test -n "$(PYTHON)" || { echo "Holdfast needs Python 3.11 or newer, with venv." >&2; exit 1; }
	$(PYTHON) -m venv --clear $*

$(VENV)/run.stamp: requirements/run.txt pyproject.toml | $(BIN)/python
	$(call install,$(VENV),$<)

$(VENV)/dev.stamp: requirements/dev.txt pyproject.toml | $(BIN)/python
	$(call install,$(VENV),$<)

# Azure's emulator for the tests and the benchmarks. Without npm they skip what needs it; CI must have it.
%/azurite/stamp: tests/azurite/package.json tests/azurite/package-lock.json | %/bin/python
	@mkdir -p $(@D) && cp $^ $(@D) && \
	if ! command -v npm >/dev/null; then echo "npm is not installed: no Azurite, what needs it will be skipped" >&2; \
	elif (cd $(@D) && npm ci --no-audit --no-fund --loglevel=error); then touch $@; exit 0; \
	else rm -rf $(@D)/node_modules; echo "npm could not install Azurite: what needs it will be skipped" >&2; fi; \
	test "$$CI" != true

.venv-bench/bench.stamp: requirements/bench.txt pyproject.toml | .venv-bench/bin/python
	$(call install,.venv-bench,$<)

.venv-integrations/stamp: requirements/integrations.txt pyproject.toml | .venv-integrations/bin/python
	$(call install,.venv-integrations,$<)
