# Two commands matter: `make demo` and `make test`. Both install what they need into .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow lint clean
.DELETE_ON_ERROR:

demo: $(VENV)/.core  ## install, then train the three arms of the entropy experiment and write a report
	$(BIN)/maypole run entropy_mechanism

test: $(VENV)/.dev lint  ## lint, types, layering, and every test that is not marked slow
	$(BIN)/python -m pytest -n 2 -m "not slow"

APART := tests/data/synlogic tests/kernels_pallas tests/models tests/rl
test-slow: $(VENV)/.dev  ## the tests marked slow; of the tasks also those that draw examples, with more of them
	$(BIN)/python -m pytest -m slow $(APART:%=--ignore %)
	$(BIN)/python -m pytest -n 2 -m slow tests/kernels_pallas tests/models tests/rl
	THOROUGH=1 $(BIN)/python -m pytest -n 2 -m "slow or hypothesis" tests/data/synlogic

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright

$(VENV)/.venv:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Maypole needs Python 3.11 or newer, but $(PYTHON) is {v[0]}.{v[1]}. Type: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.core: $(VENV)/.venv pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.venv pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@ $(VENV)/.core

clean:
	rm -rf $(VENV) build *.egg-info
