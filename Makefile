# `make demo` runs the whole job here, `make test` passes the tests. Both install what they need into .venv and .elson, and nothing anywhere else.
PYTHON ?= python3
PY := .venv/bin/python
export PYTHONDONTWRITEBYTECODE := 1
# The models of the demo and the tests never come from a hub; two cores are shared by name, not by chance.
export HF_HUB_OFFLINE := 1
export TRANSFORMERS_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
# OpenMP workers sleep instead of busy-waiting: on a loaded machine spinning was 18 times slower.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test setup environments system missing check test-fast test-torch test-quantize test-gpu test-job test-vm locks audit sbom clean help

help:
	@echo "make demo   the whole job on this machine: data, train, merge, quantize, publish, serve, evaluate, report"
	@echo "make test   linting, types and all tests"
	@echo "make setup  the tools alone: plan, steer the cloud, build data, evaluate"
	@echo "make system list and install the Debian packages that some tests need (asks for root)"
	@echo "make locks  make every lock again, hashes included (UPGRADE=package lets one move, UPGRADE=all all of them)"
	@echo "make audit  known vulnerabilities in any lock; make sbom: bills of materials"
	@echo "make clean  remove everything these installed or wrote (but for make system)"

demo: environments
	$(PY) -m runners run --profile local

# The tools alone: enough to plan, to build data, to steer the cloud and to evaluate.
setup:
	@$(PYTHON) -m runners.installation tools

# The stages too: training, quantization, serving.
environments:
	@$(PYTHON) -m runners.installation tools train quantize serve

# The Debian packages of some tests (a browser, the simulated VM): listed, then installed. Nothing else here installs anything system-wide.
system:
	@bash tests/system_packages.sh install

missing:
	@bash tests/system_packages.sh list

check: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest tests/project

test-fast: environments
	$(PY) -m pytest tests --ignore=tests/torch --ignore=tests/quantize_env --ignore=tests/gpu --ignore=tests/job --ignore=tests/vm --ignore=tests/project -n 2 --dist worksteal

test-torch: environments
	OMP_NUM_THREADS=1 .elson/envs/train/bin/python -m pytest tests/torch -n 2 --dist worksteal

test-quantize: environments
	@$(PYTHON) -m runners.installation quantize-llmcompressor
	.elson/envs/quantize/bin/python -m pytest tests/quantize_env

# On a machine with a CUDA card: memory, speed and gates at the 14B's shape, beside the plan. Without one: the same tests on a tiny model.
test-gpu: environments
	.elson/envs/train/bin/python -m pytest tests/gpu
	.elson/envs/quantize/bin/python -m pytest tests/gpu/test_stages.py -k "awq or packed"

# The whole job, killed at every stage boundary and resumed.
test-job: environments
	$(PY) -m pytest tests/job -n 2

# Real systemd, guest agent, dockerd and registry in a simulated VM; needs root and `make system`.
test-vm: environments
	$(PY) -m pytest tests/vm -n 2

test: check test-fast test-torch test-quantize test-gpu test-job test-vm
	@bash tests/system_packages.sh list
	@echo "all tests that can run here passed"

# Every lock, from its requirements.in: the versions stay unless UPGRADE says otherwise, the hashes are the index's.
locks:
	@$(PYTHON) -m runners.installation.locks $(if $(UPGRADE),$(if $(filter all,$(UPGRADE)),--upgrade,$(addprefix --upgrade ,$(UPGRADE))))

audit: setup
	$(PY) -m runners images audit

sbom: setup
	$(PY) -m runners images sbom

clean:
	rm -rf .venv .elson .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info images/serve/avx2/build images/serve/avx2/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
