# Everything here works from a fresh clone with python3 (3.11 or newer), make and a package registry.
# The environment lives in .venv and is made again only when pyproject.toml or compiled sources change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
WORKERS ?= 2
# What the build compiles, where a compiler is present: changed sources mean a new installation.
COMPILED := $(wildcard src/rmap/*/*/*.bpf.c src/rmap/*/*/*.h src/rmap/lab/conform/puppet.c)

.DEFAULT_GOAL := help
.PHONY: help run test lint docs bench exhaustive fidelity picture traces clean

help:
	@echo "make run         the main job: a real machine's memory under every design"
	@echo "make test        every test (RMAP_LIVE=1: a missing ability of the machine is a failure)"
	@echo "make lint        ruff, import-linter, mypy"
	@echo "make docs        docs/cli.md, completion scripts, the man page, and the examples of every document"
	@echo "make bench       speed and memory, against the running kernel"
	@echo "make exhaustive  every sequence of up to four (three) system calls, all designs (long)"
	@echo "make fidelity    count what every rule was put to the test by, for docs/fidelity.md (root, some minutes)"
	@echo "make picture     record the shipped picture anew (root)"
	@echo "make traces      record the shipped traces anew (root; redis-server, gcc)"
	@echo "make clean       remove .venv and whatever tools left behind"

run: $(VENV)/run.stamp
	@$(BIN)/rmap demo

test: $(VENV)/test.stamp
	$(BIN)/pytest -q -m alone $(PYTEST_ARGS) || [ $$? -eq 5 ] # 5: none of those that were asked for
	$(BIN)/pytest -n $(WORKERS) -m "not alone" $(PYTEST_ARGS)

lint: $(VENV)/lint.stamp
	$(BIN)/ruff check
	$(BIN)/lint-imports
	$(BIN)/mypy

docs: $(VENV)/test.stamp
	$(BIN)/python -m rmap.cli.docs > docs/cli.md.new
	mv docs/cli.md.new docs/cli.md
	$(BIN)/python tools/completions.py
	$(BIN)/python tools/history.py
	$(BIN)/python tools/console.py README.md docs/*.md docs/designs/*.md

bench: $(VENV)/run.stamp
	$(BIN)/python benchmarks/speed.py $(BENCH_ARGS)

exhaustive: $(VENV)/test.stamp
	$(BIN)/python tests/model/exhaustive.py

fidelity: $(VENV)/test.stamp
	$(BIN)/python tools/fidelity.py $(FIDELITY_ARGS)

traces: $(VENV)/run.stamp
	$(BIN)/python tools/record_traces.py

picture: $(VENV)/run.stamp
	$(BIN)/python tools/record_picture.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .benchmarks build dist
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp per set of packages: each target waits only for what it needs.
$(VENV)/run.stamp: EXTRAS :=
$(VENV)/test.stamp: EXTRAS := [test]
$(VENV)/lint.stamp: EXTRAS := [lint]

$(VENV)/%.stamp: pyproject.toml hatch_build.py $(COMPILED) | $(BIN)/python
	@echo "setting up $(VENV) for make $* ..." >&2
	@$(PIP) -e '.$(EXTRAS)'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "rmap needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
