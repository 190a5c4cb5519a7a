# `make demo` trains and compares on real digits; `make test` runs the tests.  Each sets up .venv once.
# `make bench` measures training steps against others', in an environment of its own (Python 3.11).

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

# Networks of this size gain nothing from a second thread, and on a busy machine lose much by it.
export OMP_NUM_THREADS ?= 1

.PHONY: demo pictures test check tutorials bench clean

demo: $(READY)
	$(BIN)/bayesvae fit --data digits --epochs 500 --out runs/standard-normal --overwrite
	$(BIN)/bayesvae fit --data digits --epochs 500 --prior Mixture --prior.components 20 \
		--out runs/mixture --overwrite
	$(BIN)/bayesvae compare runs/standard-normal
	$(BIN)/bayesvae compare runs/mixture
	$(BIN)/bayesvae bracket runs/mixture --data-count 50 --temperatures 50
	$(BIN)/bayesvae calibrate runs/mixture
	$(BIN)/bayesvae sample runs/mixture

# The pictures of the README.
pictures: $(READY)
	$(BIN)/bayesvae fit --data digits --latent 2 --epochs 500 --out runs/plane --overwrite
	$(BIN)/bayesvae sample runs/plane
	mkdir -p tutorials/pictures
	cp runs/plane/samples/latent_space.png runs/plane/samples/posteriors.png tutorials/pictures

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist worksteal

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -q tests/test_imports.py

tutorials: $(READY)
	$(BIN)/python tutorials/execute.py tutorials/*.ipynb

# Options: make bench BENCH='--quick', or --parts, --cases, --contestants, --threads; see --help.
bench: .venv-bench/ready
	.venv-bench/bin/python -m benchmarks.speed $(BENCH)

.venv-bench/ready: setup.cfg pyproject.toml benchmarks/requirements.txt
	test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --editable . --requirement benchmarks/requirements.txt
	touch .venv-bench/ready

$(READY): setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $(READY)

clean:
	rm -rf .venv .venv-bench runs build *.egg-info
