# Two commands do everything on a fresh machine: make quickstart, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKDIR ?= results/quickstart
CONFIG := configs/quickstart.py

.PHONY: quickstart test torture fuzz bench lint lock clean

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

# 100 kill -9s of small sweeps with branches, 50 of them at random times; the tests hold a form of ten.
torture: $(VENV)/.installed
	rm -rf build/torture && mkdir -p build/torture
	SCALING_CACHE=build/torture/cache PYTHONPATH=tests $(BIN)/python tests/sweeps/survival_sweep.py build/torture 100 50

# 10,000 cases of odd configurations, grids, tables and laws; the tests hold 15 of each property's 500.
fuzz: $(VENV)/.installed
	SCALING_FUZZ=full $(BIN)/python -m pytest tests/fuzz --timeout=3600

BENCHMARKS := sweep_throughput sweep_end_to_end overhead scaling_cost early_stopping fitting limits diagnostics mixers accelerator
bench: $(VENV)/.installed
	@for name in $(BENCHMARKS); do echo "== $$name" && $(BIN)/python -m benchmarks.$$name || exit 1; done

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/mypy

lock:
	uv pip compile pyproject.toml --universal --all-extras --python-version 3.11 --no-header --no-annotate --upgrade \
	  --quiet --output-file requirements.lock

clean:
	rm -rf $(VENV) build *.egg-info
