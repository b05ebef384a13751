# `make demo` and `make test` each set up everything they need in .venv; they need only Python 3.11-3.13 and make.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# Tests with Warp's native code have a process of their own.
WARP := tests/test_rasterize.py

# Whole groups to each worker, in the order of tests/conftest.py.
SPREAD := --dist=loadgroup --no-loadscope-reorder

.PHONY: venv demo test test-thorough test-all lint

venv: $(VENV)/.installed

$(VENV)/.installed: setup.cfg
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "facerig_jax needs Python 3.11, 3.12 or 3.13, but $(PYTHON) is %d.%d: run make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[cli,test]'
	touch $@

demo: venv
	$(PY) -m experiments.fit --images=docs/photos --out=out/demo

lint: venv
	$(PY) -m ruff check .
	$(PY) -m mypy

test: lint
	$(PY) -m pytest -q -m "not slow and not thorough" -n 2 $(SPREAD) --durations=25 --ignore=$(WARP)
	$(PY) -m pytest -q -m "not slow and not thorough" $(WARP)

test-thorough: venv
	$(PY) -m pytest -q -m thorough -n 2 $(SPREAD) --durations=10

test-all: lint
	$(PY) -m pytest -q -n 2 $(SPREAD) --durations=25 --ignore=$(WARP)
	$(PY) -m pytest -q $(WARP)
