# Python 3.11+, venv and make are enough: every target makes .venv itself (.ci/setup.py says how).
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
BIN := .venv/bin
V2 := .venv-v2

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-v2 lint environment clean

help:
	@echo 'make demo       problems, a real vLLM engine, annotated steps, preference pairs, a table'
	@echo 'make test       lint, then the tests'
	@echo 'make test-all   the slow tests too: servers of their own, bfloat16; minutes more'
	@echo 'make test-v2    vLLM on its second model runner, without a GPU: in Triton'"'"'s interpreter; many minutes'
	@echo 'make lint       ruff check, ruff format --check, mypy'
	@echo 'make clean      remove .venv and caches; runs are kept'
	@echo 'Each makes .venv first where it is missing or out of date. PYTHON=... picks another Python.'

demo: environment
	$(BIN)/stepconf demo

test: lint
	$(BIN)/python -m pytest

test-all: lint
	$(BIN)/python -m pytest -m 'slow or not slow'

# Triton is left out of .venv, where vLLM would take a missing driver for a fault: it has a folder of its own, on top
# of .venv's packages. The stub stands in for a driver; vLLM's kernels then run in Triton's interpreter.
test-v2: environment
	@test -x $(V2)/bin/pip || $(BIN)/python -m venv $(V2)
	@$(BIN)/python -c 'import sysconfig as s; print("import site; site.addsitedir(%r)" % s.get_path("purelib"))' \
		> "$$($(V2)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/base.pth"
	$(V2)/bin/python -m pip install --quiet --no-deps triton==3.7.1 ./tests/engines/v2/stub
	TRITON_INTERPRET=1 VLLM_USE_V2_MODEL_RUNNER=1 $(V2)/bin/python -m pytest -n 1 -m 'slow or not slow' \
		tests/engines/test_vllm.py tests/engines/test_vllm_start.py tests/engines/v2

lint: environment
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

environment:
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ...'; exit 1; }
	@$(PYTHON) .ci/setup.py

clean:
	rm -rf .venv .venv-v2 .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist
	find stepconf tests -name __pycache__ -type d -prune -exec rm -rf {} +
