.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install -q --no-build-isolation --no-deps --require-hashes --only-binary :all:

.PHONY: help demo up test test-faults sim lint types proto baseline docs lock bench clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(VENV)/run.stamp: requirements/build.lock requirements/run.lock requirements/photos.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned packages into $(VENV) (once) …"
	@$(INSTALL) -r requirements/build.lock
	@$(INSTALL) -r requirements/run.lock
	@$(INSTALL) -r requirements/photos.lock
	@$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp requirements/dev.lock
	@echo "Installing the pinned packages for development …"
	@$(INSTALL) -r requirements/dev.lock
	@touch $@

demo: $(VENV)/run.stamp ## Run the photo-catalog workflow on real photos (IMAGES=DIR for your own, ARGS=--exit to stop when done)
	@$(BIN)/pixloom demo $(if $(IMAGES),"$(IMAGES)") $(ARGS)

up: $(VENV)/run.stamp ## Start everything on this machine in the foreground
	@$(BIN)/pixloom up $(ARGS)

test: $(VENV)/dev.stamp ## Run all tests (embedded Postgres and NATS; ARGS for pytest)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n $(or $(WORKERS),3) --dist loadgroup tests $(ARGS)

test-faults: $(VENV)/dev.stamp ## Run a load while parts die, stall, forget and lie (CASES=a,b SCALE=0.1 SECONDS=60 SCHEDULERS=2)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.faults $(if $(CASES),--cases $(CASES)) $(if $(SCALE),--scale $(SCALE)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SCHEDULERS),--schedulers $(SCHEDULERS)) $(ARGS)

sim: $(VENV)/dev.stamp ## Run the engine in a simulated world (SEEDS=A:B, default 0:2000; ARGS=--mutants for the planted faults)
	@$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),0:2000) $(ARGS)

lint: $(VENV)/dev.stamp ## Check style, layers and protos
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/buf lint

types: $(VENV)/dev.stamp ## Check types
	@$(BIN)/mypy

proto: $(VENV)/dev.stamp ## Generate src/pixloom/v1 from protos
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I protos --python_out=src --mypy_out=src --grpc_python_out=src --mypy_grpc_out=src protos/pixloom/v1/*.proto

baseline: $(VENV)/dev.stamp ## Take the protos as they are for what later ones must not break (at a release)
	@$(BIN)/buf build --exclude-source-info -o protos/baseline.binpb

docs: $(VENV)/dev.stamp ## Generate docs/reference and the catalogue of built-in ops from the code
	@$(BIN)/python -m pixloom_executor.catalogue
	@$(BIN)/python -m tools.reference

lock: $(VENV)/dev.stamp ## Resolve and pin the dependencies again (needs the network)
	@requirements/compile.sh

bench: $(VENV)/dev.stamp ## Measure the figures of docs/explanation/performance.md
	@$(BIN)/python -m tests.bench $(ARGS)

clean: ## Remove what was built and what ran
	rm -rf $(VENV) .pixloom pixloom-out .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
