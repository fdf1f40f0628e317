# `make demo` runs the main job, `make test` the tests; each sets up .venv by itself.
#   DATA=folder   read datasets from a mirror of the hub's layout instead of the hub; DATA=embedded: the generated ones
#   PYTHON=...    the interpreter that .venv is made from (3.11)
#   PIP_ARGS=...  more arguments for pip, such as an index of CPU builds of torch

PYTHON ?= python3
PIP_ARGS ?=
BIN := .venv/bin
INSTALLED := .venv/installed
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup demo test lint ui pin clean

help:
	@sed -n '1,4s/^# \{0,1\}//p' Makefile

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed, PYTHON=%s is %s" % (sys.executable, sys.version.split()[0]))'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -e '.[dev]' -c constraints.txt
	touch $@

demo: setup
ifdef DATA
	dvc exp run -S 'prepare.source="$(if $(filter embedded,$(DATA)),embedded,$(abspath $(DATA)))"'
else
	dvc repro || { echo 'Without access to the hub: make demo DATA=folder (a mirror of it), or DATA=embedded' >&2; exit 1; }
endif
	@cat results/table.md
	@echo "Tables and plots: results/. Runs: make ui"

# one thread each: two processes with two threads on two cores take five times as long
test: setup
	OMP_NUM_THREADS=1 $(if $(DATA),DATA=$(abspath $(DATA))) pytest --numprocesses 2 --dist loadfile

lint: setup
	ruff check .
	ruff format --check .
	mypy

ui: setup
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true mlflow server --workers 1 \
		--backend-store-uri sqlite:///$(CURDIR)/mlflow.db --artifacts-destination $(CURDIR)/mlartifacts \
		--host 127.0.0.1 --port 5055

# pin the datasets' newest commits in pemt_core/tasks/revisions.json
pin: setup
	python -m components.prepare --pin --output data --provenance provenance/prepare.json

clean:
	rm -rf .venv checkpoints
