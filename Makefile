# `make lab` is all that a new user needs; `make help` lists the rest.
#
#   PYTHON=python3.12        which Python makes the virtual environment (3.11 or newer)
#   VENV=.venv               where that lies
#   LAB_OPTIONS=--no-browser what else to tell JupyterLab
#   PYTEST_OPTIONS=-x        what else to tell pytest
#   WORKERS=3                how many processes run the tests: they wait more than they compute
#   ROUNDS=20                how many rounds `make hunt` does
#   SEED=7                   what its schedule is made from; without it, another one each time
#   HUNT_OPTIONS=--plan      what else to tell the hunt: --faults short, --longest 6, --keep (in docs/hunt.txt)

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV ?= .venv
NOTEBOOK ?= notebooks/01_first_dataflow.ipynb
MINUTES ?= 60
WORKERS ?= 3
ROUNDS ?= 20

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help lab test check docs hunt mutants bench soak clean

help:
	@echo 'make lab     install into $(VENV) and open the first notebook in JupyterLab'
	@echo 'make test    check the code and run all tests'
	@echo 'make check   check the code only: ruff, mypy, import-linter'
	@echo 'make docs    write anew what pages show of the code (the table of rights)'
	@echo "make hunt    let a flow's parts fail in ROUNDS=$(ROUNDS) rounds (SEED=…): is anything lost, doubled, reordered or inexact?"
	@echo 'make mutants switch off one mechanism at a time: do the tests see that? (some 15 minutes)'
	@echo 'make bench   measure throughput, latency and memory (some minutes; writes artefacts/bench.json)'
	@echo 'make soak    run a flow for MINUTES=$(MINUTES) and watch its memory'
	@echo 'make clean   delete what make has made; what flows have stored (.pratipad) stays'

lab: $(VENV)/.lab
	@if [ "$$(id -u)" = 0 ] && ! echo '$(LAB_OPTIONS)' | grep -q -- --allow-root; then \
	    echo 'JupyterLab does not start for root unless told to: make lab LAB_OPTIONS=--allow-root' >&2; exit 1; fi
	$(BIN)/jupyter lab --ServerApp.root_dir=. $(LAB_OPTIONS) $(NOTEBOOK)

test: check
	$(BIN)/pytest --quiet --numprocesses $(WORKERS) --dist loadgroup --no-loadscope-reorder $(PYTEST_OPTIONS)

check: $(VENV)/.all
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo > $(VENV)/lint-imports.txt 2>&1 || { cat $(VENV)/lint-imports.txt; exit 1; }

docs: $(VENV)/.all
	$(BIN)/python tests/rights_page.py

hunt: $(VENV)/.all
	$(BIN)/python tests/faults/rounds.py --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED)) $(HUNT_OPTIONS)

mutants: $(VENV)/.all
	$(BIN)/python tests/faults/mutants.py $(MUTANT_OPTIONS)

bench: $(VENV)/.all
	$(BIN)/python tests/benchmarks/bench_throughput.py $(BENCH_OPTIONS)

soak: $(VENV)/.all
	$(BIN)/python tests/benchmarks/soak.py --minutes $(MINUTES)

clean:
	rm -rf $(VENV) artefacts build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find pratipad_nb tests notebooks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf

# One stamp for each set of extras: as long as pyproject.toml is older, nothing is installed again.
$(VENV)/.lab $(VENV)/.all: $(VENV)/.%: pyproject.toml | $(BIN)/python
	@echo 'Installing pratipad-nb[$*] into $(VENV): a minute or two, once.'
	@$(PIP) install --editable '.[$*]'
	@touch $@

$(BIN)/python:
	@if [ -z '$(PYTHON)' ]; then \
	    echo 'Pratipad-NB needs Python 3.11 or newer, and there is none on the PATH' >&2; \
	    echo '(python3 is $(shell python3 --version 2>&1 | head -1)). Install one, or say where it is:' >&2; \
	    echo '    make $(firstword $(MAKECMDGOALS)) PYTHON=/path/to/python3.12' >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo 'Pratipad-NB needs Python 3.11 or newer; PYTHON=$(PYTHON) is '"$$($(PYTHON) --version 2>&1)." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	    echo 'The virtual environment could not be made. On Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }
