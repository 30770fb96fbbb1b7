# Everything is run from here. `make help` lists the verbs: it reads this file.
.DEFAULT_GOAL := help
.PHONY: help setup demo up check format test test-slow test-flow coverage lint type bench lock
.DELETE_ON_ERROR:

BIN := .venv/bin
READY := .venv/.ready
# Installed first, by its own line and without a hash: a CPU build is taken where one is to be had, and the CUDA build
# on a machine for it. One line of a lock file cannot say both.
TORCH := torch==2.13.0
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# Several test processes: a third of the suite's time is waiting. The tests of a file share servers and networks.
PARALLEL := -n 3 --dist loadfile
FAST := "not slow and not flow and not browser and not house and not whole"
COMPILE := $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -q

help: ## List the verbs.
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(READY) ## Make .venv and install everything, from the lock file with hashes; quick when nothing changed.

$(READY): requirements.lock pyproject.toml
	@for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	  "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 && exit; \
	  echo "Making .venv with $$("$$python" --version)"; \
	  "$$python" -m venv --clear .venv; exit; \
	done; echo "Python 3.11 or newer with its venv module is needed; name it with PYTHON=..." >&2; exit 1
	@echo "Installing $(TORCH)"
	@$(PIP) install --quiet $(TORCH)
	@echo "Installing the rest from requirements.lock"
	@$(PIP) install --quiet --no-deps --require-hashes -r requirements.lock
	@PYTHONWARNINGS=ignore $(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## Run everything, find the shots of VIDEO=path (or of a clip of its own), stay up until Ctrl-C.
	@$(BIN)/sceneworks demo $(if $(VIDEO),"$(VIDEO)") $(ARGS)

up: $(READY) ## Run the whole system in var/ until Ctrl-C.
	@$(BIN)/sceneworks up $(ARGS)

check: lint type ## Run before each commit: style, contracts, types, fast tests; under 2 minutes on two cores.
	@$(BIN)/python -m pytest $(PARALLEL) -m $(FAST) $(ARGS)

format: $(READY) ## Format the code, and fix what ruff can fix.
	@$(BIN)/ruff check --fix --quiet . && $(BIN)/ruff format .

coverage: $(READY) ## Run all tests and list the lines that none reaches; child processes are not measured.
	@$(BIN)/python -m pytest $(PARALLEL) --cov=api --cov=shared --cov=worker --cov-report=term-missing:skip-covered $(ARGS)

test: $(READY) ## Run all tests, on servers of their own or on DATABASE_URL and REDIS_URL. ARGS goes to pytest.
	@$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

test-slow: $(READY) ## Run the tests that take longest: whole videos, every model, the wheel.
	@$(BIN)/python -m pytest -m slow $(ARGS)

test-flow: $(READY) ## Run the tests with real processes from upload to result, kills included.
	@$(BIN)/python -m pytest -m flow $(ARGS)

lint: $(READY) ## Check style, format and who may import whom.
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports --no-cache --no-logo

type: $(READY) ## Check types, strictly.
	@$(BIN)/mypy

bench: $(READY) ## Measure the worker against ffmpeg and against the models as published.
	@$(BIN)/python -m tests.bench $(or $(ARGS),shots)

lock: $(READY) ## Make the lock files anew from pyproject.toml: requirements.lock, and one for each image.
	@$(COMPILE) --extra worker --extra local --extra dev -o requirements.lock
	@$(COMPILE) -o requirements-api.lock
	@$(COMPILE) --extra worker -o requirements-worker.lock
