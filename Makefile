# `make demo`, `make test`, `make test-engine`, `make test-slow` and `make lint` need Python >= 3.11 and pip, and do their own set-up.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo docs test test-engine test-slow test-reliability test-guests test-postgres test-postgres-slow lint package clean

demo: $(VENV)/.installed
	$(BIN)/python -m examples.studies.demo

# One thread per worker: the arrays are small, and two pools on two cores only fight.
test: lint
	OMP_NUM_THREADS=1 MPLBACKEND=Agg $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not guests and not postgres and not engine"

# Every recorded study and random histories asked again; CI runs it, too.
test-engine: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "engine and not slow"

# Minutes of kill -9 and resume, and examples that no run has seen.
test-slow: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --hypothesis-profile explore tests/optimizer/test_engine_fuzz.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow and not guests and not postgres"

# The reliability suite, with its fast part that `make test` runs as well.
test-reliability: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/reliability -m "not postgres"

# Ray, Dask, Hydra, Lightning, Transformers, ifBO, optimizers, trackers: each on the real library.
test-guests: $(VENV)/.installed-dev
	$(PIP) -e '.[ray,dask,hydra,accelerate,lightning,transformers,hub,ftpfn,optimizers,mlflow,tensorboard,wandb]' optuna-dashboard
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/adapters tests/training
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/examples -m guests

# Installs PostgreSQL by apt where it is missing, and starts a server of its own on loopback.
test-postgres: $(VENV)/.installed-dev
	$(PIP) -e '.[postgres]'
	OMP_NUM_THREADS=1 tests/reliability/with_postgres.sh \
	  $(BIN)/python -m pytest tests/reliability -m "postgres and not slow"

# The same with 200 kills, and the server away for half a minute.
test-postgres-slow: $(VENV)/.installed-dev
	$(PIP) -e '.[postgres]'
	SCALETUNE_LONG=1 OMP_NUM_THREADS=1 tests/reliability/with_postgres.sh \
	  $(BIN)/python -m pytest tests/reliability -m postgres

# The documentation as a site, in build/docs; every warning is an error.
docs: $(VENV)/.installed-dev
	$(PIP) -e '.[docs]'
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "open build/docs/index.html"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 hpo surrogates
	$(BIN)/mypy --platform darwin hpo surrogates

# Wheel and source distribution in dist/, checked as a package index checks them.
package: $(VENV)/.installed-dev
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

# torch comes first and pinned: a later request that admits a newer release would fetch it.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "scaletune needs Python >= 3.11; name one with: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
