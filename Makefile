# Every target builds what it needs from Python 3.11 or newer and make: a .venv, then the extras it uses.
# A stamp file in .venv marks extras that are installed, so the second run starts at once.
#
#   PYTHON=python3.12 make test     choose the interpreter (otherwise: the newest on PATH)
#   make test ARGS="-k actors"      pass arguments on (also for demo and bench)
#   make bench RAY=1                install Ray as well, to measure against it

# Whatever the caller prefers, bytecode is worth keeping: every worker process starts from these modules.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
RUN := $(VENV)/bin/python
DEV := $(VENV)/.installed-dev
DEV_RAY := $(VENV)/.installed-dev-ray
DEMO := $(VENV)/.installed-demo
BENCH := $(VENV)/.installed-bench$(if $(RAY),-ray)

CANDIDATES := $(if $(PYTHON),"$(PYTHON)",python3.14 python3.13 python3.12 python3.11 python3 python)
SUITABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
INSTALL = $(RUN) -m pip install --quiet --disable-pip-version-check --editable

# A .venv whose creation failed half-way must not pass for a good one.
.DELETE_ON_ERROR:
.PHONY: help demo test test-ray test-as-ray chaos check page bench growth clean

help:
	@echo "make demo    watch it work: pages fetched, packed and counted (under a minute)"
	@echo "make test    run the tests"
	@echo "make test-ray  run the tests on a Ray cluster of two nodes on this machine"
	@echo "make test-as-ray  run libraries that were written for Ray on klieg, in a virtual environment of their own"
	@echo "make chaos   inject every fault in every combination, and kill at random (under 15 minutes)"
	@echo "make check   format, lint, types and layers"
	@echo "make page    run every example of the page, on both engines"
	@echo "make bench   measure it against a bare loop, and against Ray with RAY=1"
	@echo "make growth  measure and draw how the cost grows with calls, actors, payload and callers"
	@echo "make clean   remove the .venv and all caches"

demo: $(DEMO)
	@$(RUN) examples/demo $(ARGS)

test: $(DEV)
	$(RUN) -m pytest $(ARGS)

# On a cluster of two nodes on this machine; a worker process of Ray takes half a second, so this takes a quarter of an hour.
test-ray: $(DEV_RAY)
	KLIEG_TEST_ENGINES=ray KLIEG_TEST_NET_SECONDS=120 $(RUN) -m pytest tests/conformance $(ARGS)

# Downloads Ray and the libraries, some hundred megabytes, every time.
test-as-ray: $(DEV)
	KLIEG_TEST_NET_SECONDS=1200 $(RUN) -m pytest tests/as_ray/libraries.py $(ARGS)

# Prints its seed; `KLIEG_SEED=n make chaos ARGS="-k ..."` tells a run again.
chaos: $(DEV)
	KLIEG_CHAOS=nightly KLIEG_TEST_NET_SECONDS=600 $(RUN) -m pytest tests/faults $(ARGS)

check: $(DEV)
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(RUN) -m pytest -q tests/test_layers.py

page: $(DEV)
	$(RUN) examples/page.py --engine local
	$(RUN) examples/page.py --engine inline

bench: $(BENCH)
	@$(RUN) -m benchmarks $(ARGS)
	$(if $(RAY),@$(RUN) -m benchmarks.ray_engine $(filter --quick,$(ARGS)))

growth: $(BENCH)
	@$(RUN) -m benchmarks.growth --plot growth.svg --json growth.json $(ARGS)

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEV): pyproject.toml | $(RUN)
	@echo "installing klieg with its test and development tools into $(VENV)"
	@$(INSTALL) '.[dev]'
	@touch $@

$(DEV_RAY): pyproject.toml | $(RUN)
	@echo "installing klieg with its tests and Ray into $(VENV)"
	@$(INSTALL) '.[dev,ray]'
	@touch $@ $(DEV)

$(DEMO): pyproject.toml | $(RUN)
	@echo "installing klieg and what the demo needs into $(VENV)"
	@$(INSTALL) '.[demo]'
	@touch $@

$(VENV)/.installed-bench: pyproject.toml | $(RUN)
	@echo "installing klieg and what the benchmarks need into $(VENV)"
	@$(INSTALL) '.[bench]'
	@touch $@

$(VENV)/.installed-bench-ray: pyproject.toml | $(RUN)
	@echo "installing klieg, Ray and what the benchmarks need into $(VENV)"
	@$(INSTALL) '.[bench,ray]'
	@touch $@

# Each candidate is run, not looked up: a version manager's shim may exist and still start nothing.
$(RUN):
	@for python in $(CANDIDATES); do \
	    if "$$python" -c '$(SUITABLE)' >/dev/null 2>&1; then \
	        echo "creating $(VENV) with $$("$$python" --version)"; \
	        exec "$$python" -m venv --clear $(VENV); \
	    fi; \
	done; \
	echo "klieg needs Python 3.11 or newer with its venv module; none of these is one:" >&2; \
	for python in $(CANDIDATES); do \
	    echo "  $$python: $$("$$python" --version 2>&1 | head -n 1)" >&2; \
	done; \
	echo "Install one (on Debian and Ubuntu also python3-venv), or name it: make PYTHON=/path/to/python3" >&2; \
	exit 1
