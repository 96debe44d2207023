# Everything runs in .venv, which the first call makes. A stamp there for each set of extras, newer
# than SOURCES, tells that nothing is to be installed or compiled.

PYTHON ?= python3
ARGS ?=
# For instance PYTEST_ARGS="tests/unit -k replay", or PYTEST_ARGS="-n 0 -x".
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.installed-core
TEST := $(VENV)/.installed-test
SOURCES := pyproject.toml constraints.txt setup.py $(wildcard lstm_core/kernels/native/*.[ch])
LINT := $(VENV)/.installed-lint
BENCH := $(VENV)/.installed-bench
RIVALS := $(VENV)/.installed-rivals
BENCH_RESULTS := build/bench.json
KERNEL_RESULTS := build/bench-kernels.json

# The pins are those of the newest Python that TensorFlow runs on. A newer one can still serve, with
# the newest versions of everything.
PINS = $(shell $(BIN)/python -c 'import sys; print("--constraint constraints.txt" * (sys.version_info < (3, 14)))')
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PINS) --editable

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help serve test test-gpu parity chaos lint bench bench-kernels bench-stores bench-training bench-gpu protos

help: ## show this
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

serve: $(CORE) ## serve the bundled models on 127.0.0.1:8000, without TensorFlow (ARGS="--port 9000")
	@$(BIN)/lstm-service serve $(ARGS)

test: $(TEST) ## run every test (PYTEST_ARGS="tests/unit")
	$(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

test-gpu: $(TEST) ## run the tests that need a GPU, on a machine that has one
	$(BIN)/python -m pytest -m gpu tests/gpu $(PYTEST_ARGS)

chaos: $(TEST) ## break replicas, Redis and the network under load, and check every answer (ARGS="--help")
	$(BIN)/python -m tests.chaos $(ARGS)

lint: $(LINT) ## ruff, mypy, import contracts, hadolint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/hadolint Dockerfile

bench: $(BENCH) ## measure the hot path beside its targets and its peers, and draw it (ARGS="--only http")
	$(BIN)/python benchmarks/hot_path.py --json $(BENCH_RESULTS) $(ARGS)
	$(BIN)/python benchmarks/plot.py $(BENCH_RESULTS) benchmarks/plots/hot_path.png

bench-kernels: $(RIVALS) ## measure the native kernel beside every CPU runtime, and draw it (ARGS="--quick")
	PYTHONPATH=. $(BIN)/python benchmarks/kernels.py --json $(KERNEL_RESULTS) $(ARGS)
	$(BIN)/python benchmarks/kernels_plot.py $(KERNEL_RESULTS) benchmarks/plots/kernels.png

bench-stores: $(TEST) ## measure what stores and durability cost, and a failover
	$(BIN)/python benchmarks/durable_steps.py $(ARGS)
	$(BIN)/python benchmarks/stores.py
	PYTHONPATH=. $(BIN)/python benchmarks/failover.py

bench-training: $(TEST) ## training and inference beside keras.layers.LSTM (ARGS="--all --mask")
	$(BIN)/python benchmarks/training.py $(ARGS)

bench-gpu: $(TEST) ## single steps of many sessions on a GPU, beside PyTorch if it is installed
	$(BIN)/python benchmarks/gpu.py $(ARGS)

protos: $(TEST) ## compile the messages of gRPC, after a change of inference.proto
	mkdir -p build
	$(BIN)/python -m grpc_tools.protoc --proto_path=service/transport/grpc \
	  --descriptor_set_out=service/transport/grpc/inference.binpb --pyi_out=build inference.proto
	mv build/inference_pb2.pyi service/transport/grpc/messages.pyi

parity: $(TEST) ## 2,000 examples a law, and the table of differences
	HYPOTHESIS_PROFILE=parity $(BIN)/python -m pytest -n 2 tests/parity --parity-table=parity.md $(PYTEST_ARGS)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'Python 3.11 or newer is needed, and "$(PYTHON)" is not: make PYTHON=python3.13 $(MAKECMDGOALS)' >&2; \
	  exit 1; }
	@echo 'Making $(VENV) with $(PYTHON)'
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }

$(CORE): $(SOURCES) | $(BIN)/python
	@echo 'Installing the service (the first time only)'
	@$(INSTALL) '.[grpc,redis]'
	@touch $@

$(TEST): $(SOURCES) | $(BIN)/python
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info >= (3, 14))' || { \
	  echo 'TensorFlow needs Python 3.11 to 3.13: rm -r $(VENV) && make PYTHON=python3.13 $(MAKECMDGOALS)' >&2; \
	  exit 1; }
	@echo 'Installing the service, TensorFlow and the test tools (the first time only: minutes)'
	@$(INSTALL) '.[tensorflow,test]'
	@touch $(CORE) $@

$(BENCH): $(TEST)
	@echo 'Installing what draws the benchmark'
	@$(INSTALL) '.[bench]'
	@touch $@

# PyTorch comes from wherever pip is told to look; on Linux its CPU build is a tenth of the other one.
$(RIVALS): $(BENCH)
	@echo 'Installing the runtimes that the kernel is measured beside (minutes, and gigabytes)'
	@$(INSTALL) '.[rivals]'
	@touch $@

$(LINT): $(SOURCES) | $(BIN)/python
	@echo 'Installing the service and the linters (the first time only)'
	@$(INSTALL) '.[lint]'
	@touch $(CORE) $@
