PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup demo test check docs links format clean

setup: $(READY)

# One environment with everything that the demo and the tests need. The marker file comes last,
# so an installation that broke off starts again.
$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(READY)  ## The whole job on an invented cohort, offline, in minutes
	$(BIN)/atypia demo --out demo-$$(date +%Y%m%d-%H%M%S)

# One process per core, each with one thread; the tests of a file share what they trained.
test: $(READY)  ## The fast tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

check: $(READY) docs  ## Format, lint, types, documentation
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

docs: $(READY)  ## The documentation site: docs/_build/html/index.html
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/html

links: $(READY)  ## Every link of the documentation, those to other sites too; needs the network
	$(BIN)/python -m sphinx -b linkcheck --keep-going --quiet docs docs/_build/links

format: $(READY)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	rm -rf .venv dist .mypy_cache .ruff_cache .pytest_cache
