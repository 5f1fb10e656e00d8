.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run demo relay test simulate lint types format bench clean

PYTHON ?= python3
BIN := .venv/bin
FILES := relay app.py gunicorn.conf.py tests $(wildcard bench)

ifneq (,$(filter run demo relay,$(MAKECMDGOALS)))
include run.env
endif

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 14

run: .venv/run.stamp ## start web, worker and a stand-in for Velt on this machine; Ctrl-C stops all
	@$(BIN)/python -m relay hello --check
	@mkdir -p var
	@$(BIN)/python -m relay migrate
	@$(BIN)/honcho -e /dev/null -f Procfile.dev start || [ $$? = 130 ] # 130: Ctrl-C

demo: .venv/run.stamp ## send sample events to the relay of `make run`, show what Velt was asked to remove
	@$(BIN)/python -m relay demo

relay: .venv/run.stamp ## any command on the relay of `make run`: make relay ARGS="events"
	@$(BIN)/python -m relay $(or $(ARGS),--help)

test: .venv/dev.stamp ## run all tests
	@$(BIN)/pytest -n auto

simulate: .venv/dev.stamp ## live through 10,000 random histories of a company: make simulate HISTORIES=500
	@$(BIN)/python -m tests.simulate $(or $(HISTORIES),10000)

lint: .venv/dev.stamp types ## check style, spelling and the direction of imports
	@$(BIN)/ruff format --check $(FILES)
	@$(BIN)/ruff check $(FILES)
	@$(BIN)/lint-imports
	@$(BIN)/codespell $(filter-out tests,$(FILES)) docs schemas *.yaml $(wildcard *.md)

types: .venv/dev.stamp ## check types
	@$(BIN)/mypy

format: .venv/dev.stamp ## put the code into shape
	@$(BIN)/ruff format $(FILES)
	@$(BIN)/ruff check --fix $(FILES)

bench: .venv/dev.stamp ## measure
	@$(BIN)/python -m bench.bench

clean: ## remove what these commands made: .venv, var and caches
	rm -rf .venv var .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	  { echo "Python's venv is missing; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/run.stamp: requirements.txt | .venv/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/dev.stamp: requirements-dev.txt requirements.txt | .venv/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@ .venv/run.stamp
