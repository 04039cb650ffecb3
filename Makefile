# One command from a fresh clone: `make demo` or `make test`. Each makes .venv and installs what it
# needs; the second call is instant. `make help` lists the rest.
#
#   PYTHON=/path/to/python3.12   the Python that .venv is made with (3.11 or newer)
#   PYTEST_ARGS="-k packaging"   what pytest gets besides the tests' own settings

VENV := .venv
BIN := $(VENV)/bin
# A worker that dies ends the tests: where pytest-xdist replaces it, they may never end.
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0
# The Triton of the latest CUDA builds of torch (2.15), where [kernels] pins the one that builds
# for older drivers: users have either, and all in between. The only place that names it.
NEWEST_TRITON := 3.9.0
TRITON := .triton-newest
PYTHON ?=
PYTHONS := $(if $(PYTHON),"$(PYTHON)",python3.11 python3.12 python3.13 python3 python)
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo demo-checkpoint edge-check gate test test-triton lint format type docs kernels build gpu-check clean

help:
	@echo "make demo       export the demo checkpoint, then masks for the slide in demo/data"
	@echo "make demo-checkpoint  train the demo checkpoint anew on synthetic textures"
	@echo "make edge-check the demo again where only [cpu] is installed: no torch, the same regions; the API's examples"
	@echo "make gate       counted operations of reading, post-processing and stitching, each with its limit"
	@echo "make test       the test suite"
	@echo "make test-triton  some of the kernels' tests under the newest Triton (1 GB, once)"
	@echo "make lint       ruff, its formatter in check mode, import directions"
	@echo "make format     let ruff rewrite what it can"
	@echo "make type       mypy, strict"
	@echo "make docs       the pages of docs/ as a site in build/site; broken links are errors"
	@echo "make kernels    compile the GPU kernels for all supported GPUs; needs none"
	@echo "make build      the kernels, then sdist and wheel in dist/"
	@echo "make gpu-check  tests and measurements on this machine's NVIDIA GPU; installs nothing"
	@echo "make clean      remove .venv and everything that was built"

demo: $(VENV)/.installed-demo
	$(BIN)/sshr-deploy export demo/checkpoint.safetensors --profile demo/profile.toml --out demo/out/bundle --overwrite
	$(BIN)/sshr-deploy infer demo/data --model demo/out/bundle --out demo/out/results

# Makes demo/checkpoint.safetensors anew; demo/README.md says how long it takes.
demo-checkpoint: $(VENV)/.installed-dev
	rm -rf demo/out/dataset demo/out/run
	$(BIN)/python -m sshr_deploy.train.demo_dataset demo/out/dataset
	$(BIN)/sshr-deploy train demo/out/dataset --profile demo/profile.toml --recipe demo/recipe.toml --width 8 --threads 1 --out demo/out/run
	$(BIN)/sshr-deploy evaluate demo/out/dataset/test --model demo/out/run/best.safetensors
	cp demo/out/run/best.safetensors demo/checkpoint.safetensors

edge-check: demo
	rm -rf .venv-edge
	$(BIN)/python -m venv .venv-edge
	.venv-edge/bin/python -m pip install --disable-pip-version-check --quiet '.[cpu]'
	@if .venv-edge/bin/python -c 'import torch' 2>/dev/null; then echo "torch got into [cpu]" >&2; exit 1; fi
	.venv-edge/bin/sshr-deploy infer demo/data --model demo/out/bundle --out demo/out/edge --overwrite
	cmp demo/out/results/CMU-1-Small-Region.svs/regions.geojson demo/out/edge/CMU-1-Small-Region.svs/regions.geojson
	rm -rf demo/out/api
	cd demo && ../.venv-edge/bin/python -m doctest ../docs/python-api.md

# Seconds, and the same on a busy machine; benchmarks/gate says what it counts.
gate: $(VENV)/.installed-dev
	$(BIN)/python -m sshr_deploy.benchmarks.gate

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# The kernels' tests marked any_triton, under the newest Triton in a folder of its own.
test-triton: $(VENV)/.installed-dev $(TRITON)/.$(NEWEST_TRITON)
	PYTHONPATH="$(CURDIR)/$(TRITON)" $(BIN)/python -c 'import sys, triton; sys.exit(triton.__version__ != "$(NEWEST_TRITON)")'
	PYTHONPATH="$(CURDIR)/$(TRITON)" $(BIN)/python -m pytest $(PYTEST_ARGS) -m any_triton tests/runtime/kernels

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: $(VENV)/.installed-dev
	$(BIN)/mypy
	$(BIN)/mypy docs/generate.py docs/hooks.py

# Fetches nothing. `python docs/generate.py` makes the pages anew that come from the code.
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo build/site/index.html

# Machine code for every SM, in runtime/kernels/cubins; ends with what each kernel uses of a GPU.
kernels: $(VENV)/.installed-dev
	$(BIN)/python -m sshr_deploy.runtime.kernels.building.build

build: kernels
	$(BIN)/python -m build --no-isolation

# Tests and measurements within eight minutes, by .venv or, without one, a python3 with PyTorch and
# Triton; OUT=folder gets the JSON file.
gpu-check:
	PYTHONPATH=. $(if $(PYTHON),"$(PYTHON)",$(if $(wildcard $(BIN)/python),$(BIN)/python,python3)) -m sshr_deploy.benchmarks.gpu.check

clean:
	rm -rf $(VENV) .venv-edge $(TRITON) build dist *.egg-info demo/out .coverage runtime/kernels/cubins
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created:
	@for python in $(PYTHONS); do \
		if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "making $(VENV) with $$("$$python" --version)"; \
			"$$python" -m venv --clear $(VENV) && touch $@; exit; \
		fi; \
	done; \
	echo "no Python 3.11 or newer with venv and pip among:" $(PYTHONS) >&2; \
	echo "install one (Debian: apt install python3 python3-venv) or name it: make PYTHON=/path/to/python3.12" >&2; \
	exit 1

$(VENV)/.installed-demo: pyproject.toml setup.py $(VENV)/.created
	@echo "installing what the demo needs; the first time this downloads torch"
	$(PIP_INSTALL) --editable '.[export,view]'
	@touch $@

# Holds all that the demo needs, so the demo is not installed again after it.
$(VENV)/.installed-dev: pyproject.toml setup.py $(VENV)/.created
	@echo "installing what development needs; the first time this downloads torch"
	$(PIP_INSTALL) --editable '.[export,train,dev,docs]'
	@$(BIN)/python -c 'import triton' 2>/dev/null || $(PIP_INSTALL) --editable '.[kernels]'  # CUDA builds of torch bring theirs
	@touch $@ $(VENV)/.installed-demo

$(TRITON)/.$(NEWEST_TRITON): $(VENV)/.created
	@echo "downloading Triton $(NEWEST_TRITON), 290 MB"
	rm -rf $(TRITON)
	$(PIP_INSTALL) --no-deps --target $(TRITON) triton==$(NEWEST_TRITON)
	@touch $@
