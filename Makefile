# `make` lists the targets. Everything is installed into .venv, once; .venv/.installed says that it is there.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= $(shell for python in python3 python3.12 python3.11 python; do \
	if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; \
	then command -v $$python; break; fi; done)
PY := .venv/bin/python
WORKERS ?= 2
SEED ?= 0
# One thread per test process; what the tests start inherits it.
PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(PY) -m pytest -q -n $(WORKERS) --dist worksteal

.PHONY: help train grids spikes sort test suite examples docs test-slow test-faults test-slurm lint style types lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

train: .venv/.installed ## train the sleep CNN on simulated nights, then score a night it has not seen
	@$(PY) train.py experiment=sleep_cnn
	@echo "a night of a subject that was not in training:"
	@$(PY) -m src.simulate.sleep artifacts/unseen --first-subject 90 --seed 99
	@$(PY) infer.py bundle=runs/sleep_cnn/latest input=artifacts/unseen/SC4901E0-PSG.edf

grids: .venv/.installed ## simulated calcium recordings to spikes to grids, dense and sparse, with figures
	@$(PY) -m src.simulate.calcium --output_dir artifacts/calcium/raw --subjects 2 --cells 600 --frames 900
	@$(PY) preprocess.py preprocess=cascade_coo cascade_model=embedded input_dir=artifacts/calcium/raw output_dir=artifacts/calcium/coo num_neurons=3
	@$(PY) preprocess.py preprocess=cascade_grid cascade_model=embedded input_dir=artifacts/calcium/raw output_dir=artifacts/calcium/dense figures=false

# Recordings are simulated in the project's own folder alone, never in one that a user names.
SIMULATED_SPIKES := artifacts/spikes
SPIKES ?= $(SIMULATED_SPIKES)
ARGS ?=
# Training steps are too small for a second thread to help.
ONE_THREAD = OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1}
spikes: .venv/.installed ## spike sorter: D2–D6 sorted with the neurons of D1; SPIKES=<folder of your own D*.mat>
	@[ "$(SPIKES)" != "$(SIMULATED_SPIKES)" ] || [ -e $(SPIKES)/D1.mat ] || \
		$(PY) preprocess.py preprocess=spike_lookalikes output_dir=$(SPIKES)
	@truth=""; [ ! -d $(SPIKES)/truth ] || truth="options.truth=$(SPIKES)/truth"; \
	$(PY) infer.py method=bank labelled=$(SPIKES)/D1.mat input=$(SPIKES) $$truth $(ARGS)

sort: .venv/.installed ## the coursework's networks instead: trained on D1, then predictions of D2–D6
	@$(ONE_THREAD) $(PY) train.py experiment=spike_detector datamodule.data_dir=$(SPIKES) $(ARGS)
	@$(ONE_THREAD) $(PY) train.py experiment=spike_classifier datamodule.data_dir=$(SPIKES) $(ARGS)
	@truth=""; [ ! -d $(SPIKES)/truth ] || truth="options.truth=$(SPIKES)/truth"; \
	$(PY) infer.py bundle=runs/spike_detector/latest options.classifier=runs/spike_classifier/latest input=$(SPIKES) $$truth

test: style ## style, then types and every test that takes seconds, side by side
	@$(MAKE) -j2 types suite

suite: .venv/.installed
	@$(PYTEST)

examples: .venv/.installed ## run the notebooks of examples/ from beginning to end
	@$(PYTEST) -m examples tests/test_examples.py

test-slow: .venv/.installed ## the tests that take minutes
	@$(PYTEST) -m "slow and not faults and not examples"

test-faults: .venv/.installed ## kills at 50 moments, full disks, 30 000 spoiled files; SEED=2 draws others
	@FAULT_SEED=$(SEED) FAULT_KILLS=50 FAULT_EXAMPLES=1000 $(PYTEST) -m "faults or not slow" tests/faults

test-slurm: .venv/.installed ## sweeps and preprocessing on a real one-node SLURM, installed from Debian if need be
	@setup/slurm_one_node.sh install
	@OMP_NUM_THREADS=1 $(PY) -m pytest -q -m slurm -rs tests/runs/test_slurm.py

lint: style types ## style, format and types

style: .venv/.installed
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

types: .venv/.installed
	@.venv/bin/mypy .

docs: .venv/.installed ## the site, into build/site; warnings are errors
	@$(PY) -m pip install -qq --disable-pip-version-check --no-compile -r setup/site_requirements.txt
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

lock: ## resolve pyproject.toml into the two locks; UPGRADE=--upgrade takes the newest of everything
	@tools=$$(mktemp -d); trap 'rm -rf "$$tools"' EXIT; \
	"$(PYTHON)" -m venv "$$tools"; "$$tools/bin/pip" install -q --disable-pip-version-check uv; \
	for file in requirements.lock setup/without_cascade.lock; do \
		extra=$$([ $$file = requirements.lock ] && echo "--extra cascade" || true); \
		cp requirements.lock "$$tools/lock" 2>/dev/null || true; \
		"$$tools/bin/uv" pip compile pyproject.toml --universal --python-version 3.11 --fork-strategy fewest $$extra \
			--group dev --extra hub --extra slurm --extra sweep --extra trackers --no-header --no-annotate --quiet $(UPGRADE) -o "$$tools/lock" >/dev/null; \
		{ echo '# Made from pyproject.toml by `make lock`; docs/decisions.md says what is left out and why.'; \
		  sed -E 's/ ;.*//' "$$tools/lock" | grep -vE '^(nvidia-|cuda-|triton)'; } > "$$tools/new"; \
		mv "$$tools/new" $$file; \
	done

clean: ## remove .venv and the tools' caches; results are kept
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis

# LOCK=setup/without_cascade.lock leaves out TensorFlow, which only CASCADE's networks need.
LOCK ?= requirements.lock
.venv/.installed: $(LOCK) setup/torchaudio_without_cuda.py
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null || { \
		echo "neurolit needs Python 3.11 or 3.12, found $$(python3 --version 2>&1); say make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@[ -x $(PY) ] || "$(PYTHON)" -m venv .venv || { rm -rf .venv; \
		echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "installing the pinned dependencies into .venv (once; some minutes)"
	@$(PY) -m pip install -qq --disable-pip-version-check --no-compile -r $(LOCK)
	@$(PY) setup/torchaudio_without_cuda.py
	@$(PY) -m compileall -qq -j 0 -x '/tests?/' .venv/lib || true # pip uses one core; a few files are for other Pythons
	@touch $@
