# make demo   sets everything up and shows the main job
# make test   sets everything up and runs the tests
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
# Tests wait more than they work: two at a time, each with a database server of its own. WORKERS=0 runs them one by one.
WORKERS ?= 2

.PHONY: demo test check lock clean help
help:
	@sed -n 's/^# make/make/p' Makefile

$(VENV)/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "setting up $(VENV) (once, about a minute)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/ready-dev: $(VENV)/ready requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	@touch $@

demo: $(VENV)/ready
	@$(BIN)/onekey demo

test: $(VENV)/ready-dev
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# make check  the checks that CI runs beside the tests
check: $(VENV)/ready-dev
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/check

# make lock   renew the exact versions after a change of pyproject.toml (needs uv)
lock:
	@uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-annotate --no-header pyproject.toml -o requirements.lock
	@uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-annotate --no-header -c requirements.lock --group dev pyproject.toml -o requirements-dev.lock

clean:
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
