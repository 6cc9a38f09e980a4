# `make demo` and `make test` are all the set-up there is: each installs what it needs into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := mllm_tvm relax_passes targets tests

.PHONY: demo test lint qemu clean

demo: $(VENV)/.installed qemu
	$(BIN)/mllm-tvm run

test: $(VENV)/.installed-test qemu lint
	# The first time on a machine the cross compiler builds a C library: a minute that no test's limit should count.
	.ci/timed "device servers" $(BIN)/python -c 'from targets.hexagon.toolchain import prepare_servers; prepare_servers()'
	# By file: most of the time goes into what the tests of a file share, compiled models.
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: $(VENV)/.installed-test
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

qemu:
	@.ci/install-qemu

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	.ci/timed "install" $(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	.ci/timed "install" $(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build *.egg-info
