# Two commands: `make demo` runs the whole job here, `make test` passes the tests. Both install what they need into .venv and .elson.
PYTHON ?= python3
PY := .venv/bin/python
export PYTHONDONTWRITEBYTECODE := 1
# The models of the demo and the tests never come from a hub; two cores are shared by name, not by chance.
export HF_HUB_OFFLINE := 1
export TRANSFORMERS_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
# Waiting threads sleep: spinning ones make a busy machine 18 times slower.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test setup system check test-fast test-torch test-quantize test-job test-vm clean help

help:
	@echo "make demo   the whole job on this machine: data, train, merge, quantize, publish, serve, evaluate, report"
	@echo "make test   linting, types and all tests"
	@echo "make clean  remove everything the two installed or wrote"

demo: setup
	$(PY) -m runners run --profile local

setup:
	@$(PYTHON) -m runners.environments tools train quantize serve

# Debian packages that only tests need (a browser, the simulated VM); skipped where they are there, or without root.
system:
	@bash tests/system_packages.sh

check: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest tests/project

test-fast: setup system
	$(PY) -m pytest tests --ignore=tests/torch --ignore=tests/quantize_env --ignore=tests/job --ignore=tests/vm --ignore=tests/project -n 2

test-torch: setup
	.elson/envs/train/bin/python -m pytest tests/torch

test-quantize: setup
	@$(PYTHON) -m runners.environments quantize-llmcompressor
	.elson/envs/quantize/bin/python -m pytest tests/quantize_env

# The whole job, killed at every stage boundary and resumed.
test-job: setup
	$(PY) -m pytest tests/job

# Real systemd, guest agent, dockerd and registry in a simulated VM; needs root.
test-vm: setup system
	$(PY) -m pytest tests/vm -n 2

test: check test-fast test-torch test-quantize test-job test-vm
	@echo "all tests passed"

clean:
	rm -rf .venv .elson .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info images/serve/avx2/build images/serve/avx2/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
