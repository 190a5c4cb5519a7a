# `make demo` trains and compares on real digits; `make test` runs the tests.  Each sets up .venv once.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

# Networks of this size gain nothing from a second thread, and on a busy machine lose much by it.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test check clean

demo: $(READY)
	$(BIN)/bayesvae fit --data digits --epochs 500 --out runs/standard-normal --overwrite true
	$(BIN)/bayesvae fit --data digits --epochs 500 --prior Mixture --prior.components 20 \
		--out runs/mixture --overwrite true
	$(BIN)/bayesvae compare runs/standard-normal
	$(BIN)/bayesvae compare runs/mixture

test: $(READY)
	$(BIN)/python -m pytest -n auto

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -q tests/test_imports.py

$(READY): setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $(READY)

clean:
	rm -rf .venv runs build *.egg-info
