# Set up, run and check openai-meter; every target works on a fresh checkout, in any directory, as root or not.
# Variables: PYTHON (3.11 or newer, default python3), ARGS (passed on by run, test, prove, bench and lock).

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
LOCK := .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes $(ARGS) \
	--no-header --no-annotate

# What an installation was made from; a moved checkout or another lock makes another one.
FINGERPRINT = { pwd; $(BIN)/python -V; cat pyproject.toml; cat requirements/*.txt; } | sha256sum

.PHONY: help install dev e2e run test prove surfaces check lint types contracts cover bench lock wheel clean

help: ## say what there is
	@sed -n 's/^\([a-z0-9]*\):.*## /\1\t/p' Makefile

install: ## set up .venv; openai-meter is .venv/bin/openai-meter afterwards
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	{ echo "openai-meter needs Python 3.11 or newer; $(PYTHON) is none: make PYTHON=python3.12 $@" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv || \
	{ echo "Python cannot make a virtual environment: apt-get install python3-venv" >&2; exit 1; }
	@[ "$$(cat .venv/installed 2>/dev/null)" = "$$($(FINGERPRINT))" ] || { \
	echo "setting up .venv" && rm -f .venv/installed .venv/installed-* && \
	$(PIP) install --quiet --require-hashes -r requirements/run.txt -r requirements/build.txt && \
	$(PIP) install --quiet --no-deps --no-build-isolation --editable . && \
	$(FINGERPRINT) > .venv/installed; }

dev: install ## add what tests and checks need
	@cmp -s .venv/installed .venv/installed-dev || { \
	echo "adding the tools of the tests" && \
	$(PIP) install --quiet --require-hashes -r requirements/dev.txt && cp .venv/installed .venv/installed-dev; }

e2e: dev ## add the real server that the end-to-end tests run
	@cmp -s .venv/installed .venv/installed-e2e || { \
	echo "adding the server of the end-to-end tests" && \
	$(PIP) install --quiet --require-hashes -r requirements/e2e.txt && cp .venv/installed .venv/installed-e2e; }

run: install ## start everything; Ctrl-C stops it
	@exec $(BIN)/openai-meter serve $(ARGS)

test: dev ## run the tests
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
	echo "Chromium is not installed (apt-get install chromium): the tests in a browser are skipped, all others run"
	@$(BIN)/python -m pytest $(ARGS)

surfaces: install ## write docs/surfaces.md anew from the registry and the price list
	@$(BIN)/python -c 'from proxy.core.surfaces import page; from proxy.pricefile import load_price_book; \
	from proxy.resources import resource; print(page(load_price_book(resource("pricing.yaml"))), end="")' \
	> docs/surfaces.md

prove: dev ## break everything under load and count what came of it
	@$(BIN)/python -m prove $(ARGS)

lint: dev ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: dev ## mypy, strict
	@$(BIN)/mypy proxy dashboard tests prove

contracts: dev ## import-linter: who may know whom
	@$(BIN)/lint-imports

cover: dev ## the core by its own tests alone: every branch
	@rm -rf build/coverage && mkdir -p build/coverage
	@$(BIN)/coverage run --data-file=build/coverage/core --source=proxy.core -m pytest -q tests/proxy/core
	@$(BIN)/coverage combine --quiet --data-file=build/coverage/core
	@$(BIN)/coverage report --data-file=build/coverage/core --skip-covered --show-missing --fail-under=100

check: lint types contracts cover test ## all of the above

bench: dev ## measure the proxy beside its peers
	@$(BIN)/python bench/relay.py $(ARGS)

wheel: install ## build dist/*.whl
	@rm -rf dist
	@$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist

lock: ## renew requirements/*.txt from pyproject.toml
	@[ -x .venv-lock/bin/uv ] || { $(PYTHON) -m venv --clear .venv-lock && .venv-lock/bin/python -m pip install --quiet uv; }
	@$(LOCK) requirements/build.in -o requirements/build.txt
	@$(LOCK) -c requirements/build.txt pyproject.toml -o requirements/run.txt
	@$(LOCK) -c requirements/build.txt -c requirements/run.txt --extra dev pyproject.toml -o requirements/dev.txt
	@$(LOCK) -c requirements/build.txt -c requirements/dev.txt --extra e2e pyproject.toml -o requirements/e2e.txt

clean: ## remove everything that was made here
	rm -rf .venv .venv-lock dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
