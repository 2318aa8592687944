SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory --no-builtin-rules
unexport PYTHONDONTWRITEBYTECODE  # each process of the tests would compile all that it loads
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip -q --disable-pip-version-check

# What we are measured against has an environment of its own: it is for nothing else.
BENCH := .venv/bench/bin/python -m

DEMO := DSPEX_DATABASE_URL=sqlite:///.demo/dspex.db $(BIN)/dspex run examples/debian_sections/signature.json --inputs examples/debian_sections/packages.jsonl --output demo-output.jsonl
DEMO_REAL := OPENAI_API_KEY=... $(BIN)/dspex run examples/debian_sections/signature.json --inputs examples/debian_sections/packages.jsonl --output demo-output.jsonl --expect section --model openai/gpt-4o-mini

.PHONY: help
help: ## what can be made here
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: .venv/.runtime ## run an example on the mock adapter: no server, no key
	@mkdir -p .demo
	$(DEMO) --adapter mock
	echo
	echo "On a real model:"
	echo "  $(DEMO_REAL)"

.PHONY: test
test: lint .venv/.environments ## linters, type checkers and every test, on real servers
	@deploy/system_packages.sh tests
	$(BIN)/pytest -n 5 --dist loadfile --no-loadscope-reorder --ignore tests/faults
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder tests/faults

.PHONY: torture
torture: .venv/.environments ## the tests of faults and of properties at their full size, and mutants: hours
	@deploy/system_packages.sh tests
	DSPEX_TEST_TORTURE=1 $(BIN)/pytest tests/unit tests/contract/store/test_lifecycle.py tests/contract/test_adapters.py tests/integration/test_dspy_versions.py tests/acceptance/test_asyncapi.py tests/faults
	$(BIN)/python -m deploy.mutants

.PHONY: mutants
mutants: .venv/.dev ## change the code here and there, and tell what no test has seen; ARGUMENTS=--count 50 --seed 1
	@$(BIN)/python -m deploy.mutants $(ARGUMENTS)

.PHONY: versions
versions: .venv/.runtime ## try the lowest and the newest version of every dependency, on Python 3.11 to 3.13: an hour or two
	@deploy/system_packages.sh tests
	$(BIN)/python -m deploy.versions $(ARGUMENTS)

.PHONY: check
check: lint ## linters, type checkers and the tests that need no server
	@$(BIN)/pytest -q -m "not integration and not acceptance"

.PHONY: lint
lint: .venv/.dev
	@echo "ruff, pyright, mypy --strict, import-linter"
	$(BIN)/pyright --warnings --project pyproject.toml > .venv/pyright.log &
	pyright=$$!; trap 'kill $$pyright 2> /dev/null || true' EXIT
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet || { $(BIN)/ruff format --check; exit 1; }
	$(BIN)/mypy --strict --no-error-summary
	$(BIN)/lint-imports > .venv/lint-imports.log || { cat .venv/lint-imports.log; exit 1; }
	wait $$pyright || { cat .venv/pyright.log; exit 1; }

.PHONY: bench
bench: .venv/.bench servers ## measure DSPex against its peers, three hours; ARGUMENTS=--quick tries it out, five minutes
	@$(BENCH) benchmarks.bench $(ARGUMENTS)

.PHONY: profile
profile: .venv/.bench servers ## where the CPU of one execution goes, two minutes
	@$(BENCH) benchmarks.profile $(ARGUMENTS)

.PHONY: format
format: .venv/.dev ## rewrite the code in the project's format
	@$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format

.PHONY: contract
contract: .venv/.dev ## write the JSON Schemas and AsyncAPI again, from the models
	@$(BIN)/python -m dspex.schemas messages/contract

.PHONY: verbs
verbs: .venv/.dev ## write the client's verbs for asyncio again, from the interface
	@$(BIN)/python -m deploy.verbs messages/dspex/client/async_verbs.py

.PHONY: sql
sql: .venv/.dev ## write docs/sql again, the SQL that workers send, from the code
	@$(BIN)/python -m deploy.sql docs/sql

.PHONY: docs
docs: .venv/.docs ## the pages and the reference as a site, in build/site; a link that leads nowhere fails
	@$(BIN)/sphinx-build -q -W --keep-going -n -j auto -d build/doctrees -c docs . build/site
	echo "build/site/index.html"

.PHONY: servers
servers:
	@deploy/system_packages.sh

.PHONY: up
up: servers ## start local PostgreSQL, RabbitMQ and Redis, print their settings
	@$(PYTHON) -m deploy.local_servers up

.PHONY: down
down: ## stop them; their data stays in .servers
	@$(PYTHON) -m deploy.local_servers down

.PHONY: constraints
constraints: .venv/.dev ## pin every dependency again, newest versions: constraints/*.txt
	@$(BIN)/python constraints/compile.py --upgrade

.PHONY: clean
clean: down ## remove what was built, and the data of local servers
	@rm -rf .venv .servers .demo demo-output.jsonl build dist .*_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The virtual environment. A stamp is newer than what it was built from, so a second run builds nothing.

.venv/.python:
	@deploy/virtual_environment.sh $(PYTHON) .venv
	touch $@

.venv/.runtime: .venv/.python constraints/runtime.txt pyproject.toml messages/pyproject.toml
	@echo "Installing what DSPex runs on: once, a minute or two"
	$(PIP) install --require-hashes -r constraints/runtime.txt
	$(PIP) install --no-deps --no-build-isolation -e ./messages -e .
	touch $@

.venv/.dev: .venv/.runtime constraints/dev.txt
	@echo "Installing the tools of development"
	$(PIP) install --require-hashes -r constraints/dev.txt
	touch $@

.venv/.environments: .venv/.dev deploy/environments.py $(wildcard constraints/dspy-*.txt)
	@echo "Installing older versions of DSPy for the tests"
	$(BIN)/python -m deploy.environments
	touch $@

.venv/.docs: .venv/.dev constraints/docs.txt
	@echo "Installing what makes the documentation"
	$(PIP) install --require-hashes -r constraints/docs.txt
	touch $@

.venv/.bench: .venv/.runtime constraints/bench.txt
	@echo "Installing what DSPex is measured against"
	deploy/virtual_environment.sh $(PYTHON) .venv/bench
	.venv/bench/bin/python -m pip -q --disable-pip-version-check install --require-hashes -r constraints/bench.txt
	.venv/bench/bin/python -m pip -q --disable-pip-version-check install --no-deps --no-build-isolation -e ./messages -e .
	touch $@
