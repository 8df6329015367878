# make demo   the whole main job on the shipped sample: run, score, calibrate, report
# make test   the tests; each target sets up .venv first, once
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# What the last installation compiled; nothing without a compiler.
BUILT := $(shell cat $(STAMP) 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all lint clean

help:
	@echo "make demo      run, score, calibrate and report a small ensemble"
	@echo "make test      the tests; set MYRIAD_REAL_DATA to a folder of real data to run those too"
	@echo "make test-all  the tests, slow ones included"
	@echo "make lint      check style and formatting"
	@echo "make clean     remove the environment, caches and the demo's output"
	@echo "The first call sets up $(VENV) with PYTHON=$(PYTHON) (3.11 or later; about 6.4 GB, minutes)."

$(STAMP): pyproject.toml constraints.txt scoring/_loops.c forecast/_sfno.c forecast/_harmonics.h $(BUILT)
	@command -v $(PYTHON) >/dev/null || \
	  { echo "$(PYTHON) is not there: name a Python, 'make PYTHON=python3.12 ...'" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "myriadcast needs Python 3.11 or later, $(PYTHON) is $$($(PYTHON) --version 2>&1):" \
	         "name another, 'make PYTHON=python3.12 ...'" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e '.[test]'
	@find scoring forecast -name '*.so' > $@

$(BUILT): ;

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/myriad all examples/demo.yaml

test: $(STAMP)
	$(BIN)/python -m pytest

test-all: $(STAMP)
	$(BIN)/python -m pytest -m ''

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) build dist runs *.egg-info scoring/*.so forecast/*.so .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
