# Every target sets up .venv by itself; the second time that costs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-slow lint bench serve clean

demo: $(READY)  ## run the whole pipeline on a small made-up world and write a report
	$(BIN)/partseg run demo

test: $(READY)  ## everything but the tests marked slow
	$(BIN)/pytest -q -n 2 --dist loadfile -m "not slow"

test-slow: $(READY)
	$(BIN)/pytest -q -m slow

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(READY)  ## ratios measured side by side; see tests/bench/README.md
	$(BIN)/python -m tests.bench

serve: $(READY)  ## a local Prefect server with one deployment per recipe
	$(BIN)/python -m flows.serve

clean:
	rm -rf $(VENV) .partseg .pytest_cache .mypy_cache .ruff_cache

# uv (itself installed by pip) puts the same pins in place several times faster than pip.
$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("partseg needs Python 3.11 or newer; name one: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@
