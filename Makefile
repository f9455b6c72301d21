# Python 3.11+, venv and make are enough: every target makes .venv itself (.ci/setup.py says how).
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint environment clean

help:
	@echo 'make demo       problems, a real vLLM engine, annotated steps, preference pairs, a table'
	@echo 'make test       lint, then the tests'
	@echo 'make test-all   the slow tests too: servers of their own, bfloat16; minutes more'
	@echo 'make lint       ruff check, ruff format --check, mypy'
	@echo 'make clean      remove .venv and caches; runs are kept'
	@echo 'Each makes .venv first where it is missing or out of date. PYTHON=... picks another Python.'

demo: environment
	$(BIN)/stepconf demo

test: lint
	$(BIN)/python -m pytest

test-all: lint
	$(BIN)/python -m pytest -m 'slow or not slow'

lint: environment
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

environment:
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ...'; exit 1; }
	@$(PYTHON) .ci/setup.py

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist
	find stepconf tests -name __pycache__ -type d -prune -exec rm -rf {} +
