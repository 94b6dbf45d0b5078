# Each target sets up its own environment in .venv; all it needs is Python 3.11, 3.12 or 3.13.
# PYTHON=/path/to/python names the Python to use; without it the first that fits is taken.

DEMO_DIR ?= demo
DEMO_FLAGS ?=
MODEL ?= $(DEMO_DIR)/edge/localizer_int8.tflite
SITE ?= site
PYTHON ?=
PYTHONS := python3.13 python3.12 python3.11 python3

.DEFAULT_GOAL := help
.PHONY: help test test-beam test-jax demo web lint docs clean setup

# What the user's shell points to must not leak into the environment.
unexport PYTHONPATH PYTHONHOME

help:
	@echo 'make test    run the tests'
	@echo 'make test-beam  run the tests of --runner, in an environment with Apache Beam (.venv-beam)'
	@echo 'make test-jax   run those of benchmarks/many_trainings.py, in an environment with JAX (.venv-jax)'
	@echo 'make demo    train, score and export on drawn objects (DEMO_DIR=demo, DEMO_FLAGS=)'
	@echo 'make web     show a .tflite in the browser (MODEL=that of the demo, SITE=site); needs npm'
	@echo 'make lint    check style, format and types (ruff, mypy)'
	@echo 'make docs    build the documentation and the API reference into build/docs'
	@echo 'make clean   remove the environment, the caches, build/ and demo/'
	@echo 'make help    print these lines; PYTHON=... chooses the Python of the environment'

# Files in their own order: sorted by their numbers of tests, the slowest would be the last.
test: setup
	.venv/bin/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder

# An environment of its own, .venv-NAME, of requirements-NAME.txt.
define environment
@set -e; \
if ! cat requirements-$(1).txt pyproject.toml | cmp -s - .venv-$(1)/stamp; then \
  rm -rf .venv-$(1); \
  .venv/bin/python -m venv .venv-$(1); \
  .venv-$(1)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-$(1).txt; \
  .venv-$(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .; \
  cat requirements-$(1).txt pyproject.toml > .venv-$(1)/stamp; \
fi
endef

# Apache Beam needs older packages than all else.
test-beam: setup
	$(call environment,beam)
	.venv-beam/bin/python -m pytest tests/test_beam.py tests/test_runners.py

# With JAX and without TensorFlow, as on the GPU that benchmarks/many_trainings.py is for.
test-jax: setup
	$(call environment,jax)
	.venv-jax/bin/python -m pytest tests/benchmarks

demo: setup
	.venv/bin/python -m wsol_tf.demo --output_dir='$(DEMO_DIR)' $(DEMO_FLAGS)

web: setup
	.venv/bin/python -m edge.build_web --model='$(MODEL)' --output_dir='$(SITE)'
	.venv/bin/python -m http.server --directory '$(SITE)'

lint: setup
	.venv/bin/python -m ruff check
	.venv/bin/python -m ruff format --check
	.venv/bin/python -m mypy

docs: setup
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	.venv/bin/python benchmarks/results.py --check
	NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict
	@echo 'Open build/docs/index.html.'

clean:
	rm -rf .venv .venv-beam .venv-jax build wsol_tf.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis demo
	find wsol_tf edge tests benchmarks docs -name __pycache__ -prune -exec rm -rf {} +

# Prints the interpreter behind a python command, or fails when it does not fit. The interpreter
# itself, not the command: with .venv activated, python3 is a link that goes away with .venv.
FITTING := import sys, venv, ensurepip, os.path; \
	(3, 11) <= sys.version_info[:2] <= (3, 13) or sys.exit(1); \
	print(os.path.realpath(sys._base_executable))

# The stamp is a copy of what was installed. A missing one means that set-up did not finish, so
# .venv starts anew, as it does when its Python is gone or is not the one asked for.
setup:
	@set -e; \
	python=; \
	in_place=$$(.venv/bin/python -c '$(FITTING)' 2>/dev/null || true); \
	for candidate in $(if $(PYTHON),'$(PYTHON)',"$$in_place" $(PYTHONS)); do \
	  [ -z "$$python" ] || break; \
	  python=$$("$$candidate" -c '$(FITTING)' 2>/dev/null || true); \
	done; \
	if [ -z "$$python" ]; then \
	  echo 'No Python that fits: needed is 3.11, 3.12 or 3.13 with its venv and ensurepip modules;' \
	    'tried $(or $(PYTHON),$(PYTHONS)).' \
	    'Install one (on Debian and Ubuntu also python3-venv) or name one:' \
	    'make $(or $(MAKECMDGOALS),test) PYTHON=/path/to/python3.12' >&2; \
	  exit 1; \
	fi; \
	if [ "$$in_place" = "$$python" ] && [ -f .venv/stamp ]; then \
	  if cat requirements.txt pyproject.toml | cmp -s - .venv/stamp; then exit 0; fi; \
	else \
	  rm -rf .venv; \
	  "$$python" -m venv .venv; \
	fi; \
	echo "Setting up .venv with $$python: about 3 GB, one to three minutes."; \
	rm -f .venv/stamp; \
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt; \
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .; \
	cat requirements.txt pyproject.toml > .venv/stamp
