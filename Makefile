# make demo: the main job. make test: the fast tests. make check: all of CI. Needs Python 3.11 and make.
# TORCH_INDEX=https://... adds a package index for pip, e.g. one with CPU wheels of torch (see README).

PYTHON ?= python3.11
TORCH_INDEX ?=
RUN ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
TORCH := $(shell grep '^torch==' constraints.txt)
JOBS ?= 2

.PHONY: demo test test-slow check lint types floors notebooks format clean

demo: .venv/installed  ## train a graph policy on mpe2.simple_spread_v3 and write its report
	$(BIN)/concert train examples/demo.yaml $(if $(RUN),run_dir=$(RUN))

test: .venv/dev  ## fast tests
	$(BIN)/python -m pytest -n $(JOBS)

test-slow: .venv/dev  ## learning tests that take minutes
	$(BIN)/python -m pytest -m slow -o timeout=3600

check: test lint types floors notebooks  ## everything CI runs

lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/dev
	$(BIN)/pyright

floors: .venv/dev
	$(BIN)/lint-imports

notebooks: .venv/dev  ## execute the examples
	rm -rf .venv/notebooks && mkdir -p .venv/notebooks
	for f in examples/[0-9]*.py docs/recipes/*.py; do \
	  $(BIN)/jupytext --quiet --to notebook --output .venv/notebooks/$$(basename $$f .py).ipynb $$f || exit 1; done
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=300 -o addopts= -q .venv/notebooks

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build *.egg-info

.venv/bin/python:
	$(PYTHON) -m venv .venv

# torch first, under its own pin: a plain torch may bring gigabytes of CUDA
.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) $(TORCH)
	$(PIP) -e .
	touch $@

.venv/dev: .venv/installed
	$(PIP) -e '.[dev]'
	touch $@
