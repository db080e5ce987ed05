# The commands a person types. `make` alone lists them.
# python3, or where that is too new or too old for the packages, the newest that is not.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null && echo $$p && exit; \
  done; echo python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo peer test test-integration test-slow lint lock lock-cpu sbom audit chromium services spark fuzz clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

# Progress for people; a log would get a line for each of hundreds of packages.
QUIET := $(shell test -t 2 || echo --quiet)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 15) else f"nfbmr needs Python 3.11 to 3.14 (Ray has no build for later ones), but $(PYTHON) is {v.major}.{v.minor}; name another one: make PYTHON=python3.11 ...")'
	@$(PYTHON) -c 'import ensurepip' || { echo "$(PYTHON) cannot make environments: on Debian, install its package python3-venv." >&2; exit 1; }
	@echo "== Installing the locked packages into $(VENV) (about 6 GB; a minute or two)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@$(BIN)/uv pip sync $(QUIET) --system-certs --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --system-certs --python $(BIN)/python --no-deps --editable .
	@touch $@

setup: $(STAMP) ## install the locked packages into .venv

demo: $(STAMP) ## build a small factory, train, score, evaluate, report
	@$(BIN)/python jobs/demo.py

test: $(STAMP) ## linters, types, and every test that is not marked slow or integration
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	@sh tests/install_chromium.sh
	@$(BIN)/python -m pytest -m "not slow and not integration"

test-integration: $(STAMP) services ## the tests with real services: an object store that fails, a database
	@$(BIN)/python -m pytest -m "integration and not slow" --durations=15

test-slow: $(STAMP) chromium services ## the tests that take minutes
	@$(BIN)/python -m pytest -m slow

spark: $(STAMP) ## install Spark for its integration test, in an environment of its own (needs Java)
	@sh tests/install_spark.sh $(BIN)

chromium: # the report's test opens the page in a real browser
	@sh tests/install_chromium.sh

services: # the integration tests start an object store and a database of their own
	@sh tests/install_services.sh

fuzz: $(STAMP) ## a million changed inputs for everything that parses foreign bytes (half an hour)
	@$(BIN)/python -W ignore -m tests.fuzz.run --inputs 70000 --seed 1000000
	@$(BIN)/uv pip install --quiet --system-certs --target .fuzz/atheris --python $(BIN)/python atheris==3.0.0
	@for target in tar zip parquet manifest configuration category plan-plan.json; do \
	  PYTHONPATH=.:.fuzz/atheris $(BIN)/python -W ignore -m tests.fuzz.coverage_guided $$target -runs=50000 -timeout=5 -rss_limit_mb=2048 || exit 1; done

lint: $(STAMP) ## format and lint
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix . && $(BIN)/mypy

# What goes into the container image: the same versions, without what only tests need.
IMAGE_LOCK = $(BIN)/uv pip compile --quiet --system-certs --generate-hashes --no-emit-index-url \
  --no-emit-find-links --no-annotate --extra server --constraints requirements.lock --python-version 3.11 \
  --custom-compile-command "make $(MAKECMDGOALS)" pyproject.toml

lock: $(STAMP) ## resolve the dependencies anew into requirements.lock (versions and hashes, no host)
	@$(BIN)/uv pip compile --quiet --system-certs --universal --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-annotate --extra dev --extra server --python-version 3.11 \
	  --custom-compile-command "make lock" pyproject.toml -o requirements.lock
	@$(IMAGE_LOCK) --universal -o cluster/requirements-cuda.lock

lock-cpu: $(STAMP) ## lock the image without CUDA: make lock-cpu TORCH_INDEX=<index of PyTorch's CPU builds>
	@test -n "$(TORCH_INDEX)" || { echo "say where the CPU builds are: make lock-cpu TORCH_INDEX=..." >&2; exit 2; }
	@$(IMAGE_LOCK) --python-platform x86_64-manylinux_2_28 --index "$(TORCH_INDEX)" \
	  --index-strategy unsafe-best-match -o cluster/requirements-cpu.lock

sbom: $(STAMP) ## list what is installed, with licences, as CycloneDX: dist/sbom.json
	@mkdir -p dist
	@$(BIN)/uv tool run --system-certs --from cyclonedx-bom==7.5.0 cyclonedx-py environment \
	  --pyproject pyproject.toml --output-reproducible --of JSON -o dist/sbom.json $(BIN)/python
	@echo "dist/sbom.json"

audit: $(STAMP) ## check that every locked package has hashes, then ask for known vulnerabilities
	@$(BIN)/python -m pytest -q tests/security/test_dependencies.py
	@$(BIN)/uv tool run --system-certs pip-audit==2.10.1 --strict --disable-pip --require-hashes \
	  -r requirements.lock -r cluster/requirements-cuda.lock

peer: $(STAMP) ## anomalib in an environment of its own, for jobs/benchmark.py throughput --peer
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .venv-anomalib
	@$(BIN)/uv pip install --quiet --system-certs --python .venv-anomalib/bin/python anomalib==2.7.0
	@echo "give it as: --peer .venv-anomalib/bin/python"

clean: ## remove the environment and what the demo made
	@rm -rf $(VENV) .venv-anomalib .demo .tools
