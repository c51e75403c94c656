# One command for each thing to do; `make up` on a fresh machine needs Python 3.11 and no Docker.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Most of a test is waiting for servers, so more of them run at once than there are cores.
TESTERS ?= 4

.PHONY: up up-federation test test-browser test-containers check bench faults faults-federation clean venv

up: $(STAMP)
	@$(BIN)/hikyaku up

# Two linked sites: users of osaka write to alice@tokyo.
up-federation: $(STAMP)
	@$(BIN)/hikyaku up-federation

test: $(STAMP)
	@$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile \
	  --ignore tests/browser --ignore tests/containers

# Needs Chromium: `apt-get install chromium`.
test-browser: $(STAMP)
	@$(BIN)/python -m pytest -n 2 --dist loadfile tests/browser

# Where a Docker engine answers.
test-containers: $(STAMP)
	@.ci/containers

check: $(STAMP)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

bench: $(STAMP)
	@$(BIN)/hikyaku bench $(ARGS)

# As root, also the faults for which a server needs a network and a disk of its own.
faults: $(STAMP)
	@$(BIN)/python -m bench.cluster_faults $(ARGS)

# Three linked sites, with faults of the links.
faults-federation: $(STAMP)
	@$(BIN)/python -m bench.federation_faults $(ARGS)

venv: $(STAMP)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Hikyaku needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Install it and run make with PYTHON=python3.11, for example." >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV) || { \
	  rm -rf $(VENV); echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check \
	  -c constraints.txt -e '.[chat,local,bench,otel,dev]'
	@touch $@
