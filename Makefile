# `make` alone prints what there is. On Windows without make: the plain commands stand in CONTRIBUTING.md.
PYTHON ?= python3
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
RECIPE ?= quick
DATASET ?= cifar10

.DEFAULT_GOAL := help
.PHONY: help lab test lint notebooks site train visdom class-kit bench clean
.PHONY: lab-environment test-environment site-environment style types test-package test-notebooks

help:  ## print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST) | expand -t 18

lab-environment:
	@$(PYTHON) tools/environment.py lab

test-environment: lab-environment
	@$(PYTHON) tools/environment.py test

site-environment:
	@$(PYTHON) tools/environment.py site

lab: lab-environment  ## open the notebooks in JupyterLab (makes .venv first)
	@$(BIN)/python tools/lab.py

# What is told in a second comes first. Then two halves side by side, equally long, with a processor each: the package, and
# types with the notebooks. Each is printed when it is done (as far as this make can: -O).
test: test-environment  ## check everything: style, types, tests, all notebooks
	@$(MAKE) style
	OMP_NUM_THREADS=1 $(MAKE) --jobs=2 $(if $(filter output-sync,$(.FEATURES)),--output-sync) test-package types test-notebooks

test-package:
	$(BIN)/python -m pytest --doctest-modules --ignore=tests/e2e --cov=vgg_course --cov-report=term --cov-fail-under=97
	$(BIN)/python -m pytest tests/e2e/test_site.py tests/e2e/test_page.py

test-notebooks:
	$(BIN)/python -m pytest tests/e2e --ignore=tests/e2e/test_site.py --ignore=tests/e2e/test_page.py
	$(BIN)/python -m pytest --nbval notebooks/

lint: test-environment  ## check the style of the code, notebooks included, the spelling, and the types of the package
	@$(MAKE) style types

style:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m codespell_lib

types:
	$(BIN)/python -m mypy

notebooks: test-environment  ## run all notebooks on CIFAR-10 and store their outputs
	$(BIN)/python tools/store_outputs.py

site: site-environment  ## build the website of the course: build/site/html/index.html
	$(BIN)/python tools/build_site.py

train: lab-environment  ## train a named run and record it: make train RECIPE=fast DATASET=cifar10
	$(BIN)/python -m vgg_course.runs $(RECIPE) --dataset $(DATASET)

visdom: lab-environment  ## start a visdom server for all notebooks at http://localhost:8097
	$(BIN)/python -m vgg_course.visdom_server

class-kit: lab-environment  ## make one archive to install the course without a network
	$(BIN)/python tools/class_kit.py

bench: test-environment  ## print the benchmarks
	for file in benchmarks/*.py; do $(BIN)/python $$file || exit 1; done

clean:  ## remove the environment and what tools left behind, not the data
	rm -rf .venv build dist .pytest_cache .ruff_cache .mypy_cache .coverage
