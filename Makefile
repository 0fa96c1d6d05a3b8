# Two commands do everything on a fresh machine: make quickstart, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKDIR ?= results/quickstart
CONFIG := configs/quickstart.py

.PHONY: quickstart test lint lock clean

# uv where it is there, else venv and pip; pins from requirements.lock either way.
$(VENV)/.installed: pyproject.toml requirements.lock
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
	  uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable '.[dev]'; \
	else \
	  $(PYTHON) -m venv $(VENV) && \
	  $(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[dev]'; \
	fi
	@touch $@

quickstart: $(VENV)/.installed
	$(BIN)/python -m experiments.run --config=$(CONFIG) --workdir=$(WORKDIR)

test: $(VENV)/.installed
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/mypy

lock:
	uv pip compile pyproject.toml --universal --all-extras --python-version 3.11 --no-header --no-annotate --upgrade \
	  --quiet --output-file requirements.lock

clean:
	rm -rf $(VENV) build *.egg-info
