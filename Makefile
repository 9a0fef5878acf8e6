# Every target sets itself up: a fresh clone needs only python3 (>= 3.10) with venv, and a package index.
#
#   make demo        the whole story on a CPU, in minutes: shards -> train -> align -> retrieval -> probes -> report
#   make sprites     the longer run: an hour of training, more of measuring
#   make study       every objective of the paper, several seeds, equal budgets: many hours
#   make test        linter, formatter, type checker and every test
#   make test-fast   the tests that take seconds
#   make format      rewrite the code in the project's format
#   make clean       remove what `make demo` and the checkers wrote, not the virtual environment

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed

# Tests and demo run alike on any machine: no accelerator, no hub.
OFFLINE := HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1
CPU     := DS_ACCELERATOR=cpu
# One test process per core; more than four would starve the tests that start ranks of their own.
SPREAD  := -n auto --maxprocesses 4
SOURCES := mmjepa tests data_prep eval train.py

.PHONY: demo sprites study test test-fast lint format clean
.DEFAULT_GOAL := test

# Depends on pyproject.toml alone, so that the environment is made once and mended when a dependency changes.
$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[demo,dev]'
	touch $@

demo: $(READY)
	$(OFFLINE) $(BIN)/python eval/pipeline.py pipeline=demo

sprites: $(READY)
	$(OFFLINE) $(BIN)/python eval/pipeline.py pipeline=sprites

study: $(READY)
	$(OFFLINE) $(BIN)/python eval/study.py

lint: $(READY)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

test: lint
	$(CPU) $(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SPREAD)

test-fast: $(READY)
	$(CPU) $(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SPREAD) -m 'not slow'

format: $(READY)
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:
	rm -rf runs/demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
