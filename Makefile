# Every target does its own set-up: it needs make, Python 3.11 to 3.14 with venv, and (once) the network.
VENV := .venv
BIN := $(VENV)/bin
# What make gate compares with: a revision, or what tunewright gate save has kept.
BASE ?= origin/main
STAMP := $(VENV)/.installed

# Every child process imports TVM: without byte code on disk it would compile its sources each time, a second of CPU.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test check gate format lock clean

help:
	@echo "make demo    tune a real model, compile it, and compile it again with other weights (about 5 minutes)"
	@echo "make test    make check, then all tests"
	@echo "make check   lint, format, types, import directions, file sizes"
	@echo "make gate    time kernels built by this tree's code against those of BASE (default origin/main)"
	@echo "make format  apply the formatter and the linter's safe fixes"
	@echo "make lock    write requirements.lock again from pyproject.toml"
	@echo "make clean   remove the environment and everything that was generated"

$(STAMP): requirements.lock pyproject.toml scripts/setup.sh
	@PYTHON="$(PYTHON)" sh scripts/setup.sh $(VENV)
	@touch $@

demo: $(STAMP)
	$(BIN)/python scripts/demo.py

test: check
	$(BIN)/python -m pytest -n 2

check: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy -n 2
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_sizes.py

gate: $(STAMP)
	$(BIN)/python -m tunewright gate run --suite benchmarks/gate/gate.toml --baseline "$(BASE)"

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lock: $(STAMP)
	$(BIN)/python scripts/lock.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache demo-output
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
