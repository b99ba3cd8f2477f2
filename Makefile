# The commands of MoE Workbench. `make` alone lists them. They need Python 3.11 to 3.13 with venv, and make.

PYTHON  ?= python3
PORT    ?= 8888
WORKERS ?= 2
BENCHES ?= tests/bench kernels/bench
BIN     := .venv/bin
HEAVY   := slow or distributed or notebook or browser
# These want the cores for themselves.
ALONE   := distributed or notebook or browser

# The set-up leaves the compiling of modules to their first import, which this variable would put off for ever.
unexport PYTHONDONTWRITEBYTECODE

# A browser is opened where there is one to open; `--allow-root` is JupyterLab's condition for running as root.
LAB_FLAGS = --ServerApp.port=$(PORT) \
	$(shell [ "$$(uname)" = Darwin ] || [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ] || echo --no-browser) \
	$(shell [ "$$(id -u)" != 0 ] || echo --allow-root)

.PHONY: help setup setup-test setup-dev workbench demo test test-all test-gpu check bench checkpoints notebooks pictures clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: ## create .venv and install the workbench into it
	@$(PYTHON) workbench/bootstrap.py

setup-test:
	@$(PYTHON) workbench/bootstrap.py --extras test

setup-dev:
	@$(PYTHON) workbench/bootstrap.py --extras dev

workbench: setup ## open JupyterLab on the tour (PORT=8888)
	$(BIN)/python -m workbench.data.prepare
	$(BIN)/jupyter-lab $(LAB_FLAGS) --LabApp.default_url=/lab/tree/notebooks/00_tour.ipynb

demo: setup ## train, swap the router, generate, write a report: two minutes, no display needed
	$(BIN)/workbench demo

test: setup-test ## unit tests, contracts and house rules
	$(BIN)/pytest -n $(WORKERS) --durations=10 -m "not ($(HEAVY) or gpu)"

test-all: setup-test ## the rest: slow, several processes, notebooks, browser
	@failed=0; \
	$(BIN)/pytest -n $(WORKERS) --durations=10 -m "slow and not ($(ALONE) or gpu)" || failed=1; \
	$(BIN)/pytest --durations=10 -m "($(ALONE)) and not gpu" || failed=1; \
	exit $$failed

test-gpu: setup-test ## the tests that need a CUDA GPU
	$(BIN)/pytest --durations=10 -m gpu

check: setup-dev ## format, lint and types, those of the JupyterLab extension and of the views too
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -P workbench/lab/build.py --types

# Without conftest: it checks every signature at run time, and a number must be that of the production path.
bench: setup-test ## every number that the README states, as tables (BENCHES=kernels/bench: the kernels alone)
	$(BIN)/pytest -s --noconftest -o addopts="--import-mode=importlib --strict-markers" \
		-o python_files="bench_*.py" -o python_functions="bench_*" $(BENCHES)

checkpoints: setup ## four small models trained differently, in runs/checkpoints
	$(BIN)/python -m workbench.train.sample_models runs/checkpoints

notebooks: setup-test ## execute every notebook
	$(BIN)/pytest --durations=10 tests/house/test_notebooks.py

pictures: setup-test ## take the pictures of README.md anew, from a model that trains
	$(BIN)/pytest tests/browser/test_first_minute.py tests/browser/test_live_cell.py -k "minute or shows_itself" --pictures docs/pictures

clean: ## remove .venv, caches and builds; runs/ stays
	rm -rf .venv build dist workbench/lab/labextension workbench/lab/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
