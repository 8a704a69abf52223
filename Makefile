# Every target sets up what it needs: a bare machine with Python 3.11 or newer is enough.
PYTHON ?= python3
TASK ?= ALE/Pong-v5
ARGS ?=
BIN := .venv/bin

.PHONY: help install train test lint types clean

help:
	@echo "make train [TASK=HalfCheetah-v5] [ARGS='--seed 1']   learn a task from synthetic preferences"
	@echo "make test                                            lint, types and tests"
	@echo "make install                                         set up .venv only"

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "prefrl needs Python 3.11 or newer; got $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,language]'
	@touch $@

train: install
	$(BIN)/prefrl train $(TASK) $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

test: lint types
	$(BIN)/python -m pytest -n 2 --dist loadfile  # two cores

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
