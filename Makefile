# `make` alone lists what there is. Everything lives in .venv; nothing else on the machine is touched.

PYTHON  ?= python3
VENV    ?= .venv
RUNS    ?= runs
WORKERS ?= 2

RUN := $(VENV)/bin/python -m
PIP := $(RUN) pip --disable-pip-version-check install

# TORCH is what pip is asked for: `torch` means the pinned version; options choose the build (see the README).
# It is remembered in $(VENV)/torch, and naming another one builds the environment anew.
REMEMBERED := $(shell cat $(VENV)/torch 2>/dev/null)
ifndef TORCH
TORCH := $(or $(REMEMBERED),torch)
endif
PINNED_TORCH := $(shell sed -n 's/^\(torch==[^ ;]*\).*/\1/p' constraints.txt)

.PHONY: help demo course lab test test-slow bench gpu results figures wheel api site web release lint clean FORCE
.DELETE_ON_ERROR:

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'
	@echo
	@echo '  DATA=path      demo: your own folder of rainy/clean pairs or of clean photographs'
	@echo '  RUNS=folder    demo: where results go (now: $(RUNS))'
	@echo '  TORCH="..."    another torch build (now: $(TORCH)), e.g.'
	@echo '                 TORCH="torch --index-url https://download.pytorch.org/whl/cpu"'
	@echo '  PYTHON=...     the Python that makes $(VENV) (now: $(PYTHON); 3.11 or newer)'
	@echo '  WORKERS=n      test processes (now: $(WORKERS))'

demo: $(VENV)/installed-core ## search, derive, retrain and evaluate on real photographs under synthetic rain
	$(RUN) manas_lite demo --runs-dir "$(RUNS)"$(if $(DATA), --data "$(DATA)")

course: $(VENV)/installed-dev ## every notebook at smoke size, and an index page over them
	$(RUN) tools.course run all --preset smoke --out "$(RUNS)/course"

lab: $(VENV)/installed-dev ## the course in JupyterLab
	$(RUN) jupyter lab notebooks/00_start_here.ipynb

test: $(VENV)/installed-dev ## the everyday tests
	$(RUN) pytest -m "not slow" -n $(WORKERS)

test-slow: $(VENV)/installed-dev ## the remaining tests, a few minutes each at most
	$(RUN) pytest -m slow -n $(WORKERS)

bench: $(VENV)/installed-core ## how fast the kit is beside a plain implementation: ratios, a quarter of an hour
	$(RUN) benchmarks

gpu: $(VENV)/installed-dev ## all that a CUDA GPU must show, within 15 minutes, part by part: tests, speed, presets; into results/gpu
	$(RUN) benchmarks.gpu

results: $(VENV)/installed-dev ## docs/results.md and its tables, from the committed result files
	$(VENV)/bin/python scripts/results_page.py

figures: $(VENV)/installed-dev ## figures/, from the committed result files
	$(VENV)/bin/python scripts/figures.py

wheel: $(VENV)/installed-core ## the wheel, into dist/: what a set-up cell installs
	$(RUN) pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir dist .

release: $(VENV)/installed-dev ## sdist and wheel, checked, installed by each Python here, and tried; goes on where it stopped
	@$(PIP) --quiet build twine
	$(VENV)/bin/python scripts/release.py --torch '$(patsubst torch,$(PINNED_TORCH),$(TORCH))'

api: $(VENV)/installed-dev ## the reference of every public name, as pages in build/api
	$(VENV)/bin/python scripts/api_reference.py

site: $(VENV)/installed-dev ## the course, docs, results and API as a site, into build/site; runs notebooks that have no copy
	$(VENV)/bin/python scripts/build_site.py --copies "$(RUNS)/course"

web: $(VENV)/installed-dev ## the page that derains in the browser, into build/web; needs npm
	$(VENV)/bin/python scripts/build_web.py

lint: $(VENV)/installed-dev ## style, formatting, types, layers, pins
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(VENV)/bin/lint-imports --no-cache
	$(VENV)/bin/python scripts/pins.py --check
	$(VENV)/bin/python scripts/release.py --check

bounds: $(VENV)/installed-dev ## a few tests with the lowest and the newest dependencies that are allowed: half an hour
	@$(PIP) --quiet uv
	$(VENV)/bin/python scripts/bounds.py

clean: ## remove the environment and caches; runs stay
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# --- the environment: torch first, in the build asked for, then the rest at the pinned versions ---------------

CHECK_PYTHON = import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, but \
$(PYTHON) is " + ".".join(map(str, sys.version_info[:3])) + ": install a newer one, or name it: make PYTHON=/path/to/python3.11")
CHECK_VENV = import sys, importlib.util; importlib.util.find_spec("ensurepip") or sys.exit("$(PYTHON) cannot make \
virtual environments: on Debian or Ubuntu, `sudo apt install python3-venv`")

ifneq ($(TORCH),$(REMEMBERED))
$(VENV)/torch: FORCE
endif
$(VENV)/torch: constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c '$(CHECK_PYTHON)'
	@$(PYTHON) -c '$(CHECK_VENV)'
	@echo "Making $(VENV) with $(TORCH); the first time, the download takes a few minutes"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) $(patsubst torch,$(PINNED_TORCH),$(TORCH))
	@grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt
	@echo '$(TORCH)' > $@

$(VENV)/installed-core: EXTRAS =
$(VENV)/installed-dev: EXTRAS = [accelerate,course,dask,data,dev,onnx,site]
$(VENV)/installed-%: $(VENV)/torch pyproject.toml
	@echo "Installing manas_lite$(EXTRAS)"
	@$(PIP) --quiet -c $(VENV)/constraints.txt -e ".$(EXTRAS)"
	@touch $@
