# vidlbc: every target sets up .venv by itself; needs only make and Python 3.11 to 3.13.
# The first of some names that runs: a name may be there and start nothing (pyenv's of a version that is not chosen).
runs     = $(firstword $(shell for p in $(1); do "$$p" -c 0 2>/dev/null && echo "$$p"; done) $(firstword $(1)))
PYTHON  ?= $(call runs,python3.11 python3)
VENV    := .venv
PY      := $(VENV)/bin/python
STAMP   := $(VENV)/.installed
BARE    := .venv-bare
PY313   := .venv-py313
PYTHON313 ?= $(call runs,python3.13 $(wildcard $(HOME)/.pyenv/versions/3.13.*/bin/python))
PYTHON312 ?= $(call runs,python3.12 $(wildcard $(HOME)/.pyenv/versions/3.12.*/bin/python))
DEMO    := out/demo
# More tests or other settings: make test ARGS="tests/video -x", make demo ARGS="temporal=lstm"
ARGS    ?=
# Test files are shared among this many processes of one thread each; some 2 GB of memory each.
CORES   := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
WORKERS ?= $(if $(filter 1,$(CORES)),0,$(if $(filter 2 3,$(CORES)),2,4))
PYTEST   = $(PY) -m pytest --numprocesses $(WORKERS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help env demo test test-fast test-bare test-py313 check format bench clean distclean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(STAMP) ## set up .venv (done by every other target when pyproject.toml changes)

$(STAMP): pyproject.toml tools/setup_env.py
	@$(PYTHON) tools/setup_env.py $(VENV)
	@touch $@

demo: $(STAMP) ## generate the embedded motion corpus and run the whole main job on it (minutes, no GPU)
	@$(PY) -m vidlbc demo data.root=$(DEMO)/videos out=$(DEMO)/run $(ARGS)

test: $(STAMP) ## run the test suite; in random order with ARGS=--random-order
	@$(PYTEST) $(ARGS)

test-fast: $(STAMP) ## run its quick tests, some of every package
	@$(PYTEST) -m "not slow" $(ARGS)

test-bare: $(BARE)/.installed ## run what must work without PyAV, CompressAI, wandb: Python 3.12, numpy 2, OpenCV (5 GB)
	@PYTHONPATH=$(CURDIR)/$(BARE)/carried:$(CURDIR) $(BARE)/bin/python -m pytest tests/bare $(ARGS)

$(BARE)/.installed: tools/setup_env.py
	@$(PYTHON312) tools/setup_env.py $(BARE) bare
	@touch $@

test-py313: $(PY313)/.installed ## the wheel, Python 3.13, numpy 2, no CompressAI: its demo, encode, decode, then the quick tests (6 GB)
	@cd $$(mktemp -d) && export PYTHONSAFEPATH=1 && $(CURDIR)/$(PY313)/bin/vidlbc demo && \
	$(CURDIR)/$(PY313)/bin/vidlbc encode input=out/demo/videos/right output=shards && \
	$(CURDIR)/$(PY313)/bin/vidlbc decode input=shards output=decoded
	@PYTHONPATH=$(CURDIR) $(PY313)/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile -m "not slow" $(ARGS)

$(PY313)/.installed: pyproject.toml tools/setup_env.py
	@$(PYTHON313) tools/setup_env.py $(PY313) plain
	@touch $@

check: $(STAMP) ## ruff (lint and format), layers and circles of imports, mypy
	@$(PY) -m ruff format --check --quiet . || { echo 'make format mends it'; exit 1; }
	@$(PY) -m ruff check .
	@$(VENV)/bin/lint-imports --no-logo --no-cache
	@$(PY) -m mypy

format: $(STAMP) ## let ruff mend what it can
	@$(PY) -m ruff check --fix --quiet .
	@$(PY) -m ruff format .

bench: $(STAMP) ## speed and memory beside CompressAI and x265
	@$(PY) tools/benchmark.py $(ARGS)

clean: ## remove outputs and caches, keep .venv
	rm -rf out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis wandb *.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## remove .venv too
	rm -rf $(VENV) $(BARE) $(PY313)
