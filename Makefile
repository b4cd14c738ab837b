# `make help` lists what there is. Everything runs in .venv, which the first target that needs it makes.
# P2P_GPU=1 says that python3 already has every package (a GPU machine without network): nothing is installed.
PYTHON ?= python3
ifeq ($(P2P_GPU),1)
  PY := $(PYTHON)
  INSTALLED :=
  DOCS :=
else
  PY := .venv/bin/python
  INSTALLED := .venv/.installed
  DOCS := .venv/.installed-docs
endif
# Torch-TensorRT and CV-CUDA do not even import without a driver.
comma := ,
EXTRAS := dev,serve$(if $(shell command -v nvidia-smi 2>/dev/null),$(comma)gpu)

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-wheel lint soak test-gpu test-browser test-scale test-notebook docs bench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(INSTALLED) ## train on the shipped pairs, export, translate the held-out images: runs/demo/index.html
	$(PY) train.py name=demo
	$(PY) export.py name=demo
	$(PY) infer.py +pipeline=overlap batch_size=8 name=demo

test: lint ## ruff, mypy and the tests that need no GPU
	OMP_NUM_THREADS=1 $(PY) -m pytest -q --numprocesses 2 --dist worksteal

test-slow: $(INSTALLED) ## 4 minutes of tests more: whole commands that are stopped, resumed, killed, run as several processes
	OMP_NUM_THREADS=1 $(PY) -m pytest -q --numprocesses 2 --dist worksteal -m 'slow and not soak and not gpu'

test-wheel: $(INSTALLED) ## build the wheel, install it into an empty environment, run every command in an empty folder
	PY=$(PY) tests/wheel.sh

lint: $(INSTALLED) ## ruff and mypy alone
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

soak: $(INSTALLED) ## the long tests of docs/reliability.md, an hour: kills, full disks, races, 200,000 images
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -m soak -rP

test-gpu: $(INSTALLED) ## the tests that need an NVIDIA GPU
	$(PY) -m pytest -q -m gpu

test-browser: $(INSTALLED) ## the pages in chromium, with the extra browser
	$(PY) -m pytest -q -m browser tests/browser

test-notebook: $(DOCS) ## run examples/quickstart.ipynb from top to bottom
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -m notebook tests/docs

docs: $(DOCS) ## the documentation as a site in site/, built without warnings, its links checked
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

test-scale: $(INSTALLED) ## Ray, whose processes and machines are lost, and stores; with the extras scale and stores, in minutes
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -m scale tests/scale

bench: $(INSTALLED) ## the benchmarks: benchmarks/results/*.json
	$(PY) -m benchmarks.pipeline
	$(PY) -m benchmarks.ladder

clean: ## remove .venv and caches, but no run
	rm -rf .venv site .pytest_cache .ruff_cache .mypy_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "error: p2p needs Python 3.10 to 3.13, and $(PYTHON) is another: use make PYTHON=python3.12, say"; exit 1; }
	@echo "installing into .venv, which takes minutes; PyTorch and its CUDA libraries are 5 GB"
	@test -d .venv || $(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]' --constraint constraints.txt
	@touch $@

.venv/.installed-docs: .venv/.installed
	@echo "installing the packages of the documentation into .venv"
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]' --constraint constraints.txt
	@touch $@
