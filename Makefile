# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# One thread: simulated clients are parallel already, and results must not depend on a machine's cores.
export OMP_NUM_THREADS = 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test check crosscheck format bench accept-main accept-breadth accept-engine accept-privacy accept-assess accept-attack accept-compare accept-experiments accept-deploy accept-alignment accept-serve accept-secure clean

help: ## Show what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(READY) ## Create .venv and install FedSafe with the pinned versions

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

demo: $(READY) ## Train, assess and report on the embedded Adult data (under a minute)
	$(BIN)/fedsafe run experiments/adult.toml

test: $(READY) ## Run the tests; FEDSAFE_DATA_DIR names the real data sets, if they are there
	$(BIN)/python tests/in_two.py

check: $(READY) ## Format, lint, types and import contracts, without changing anything
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

crosscheck: $(READY) ## Hold attacks, certificates, explanations and group metrics to other people's libraries
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
		--target tests/crosscheck/.libraries --requirement tests/crosscheck/requirements.txt
	$(BIN)/python -m pytest -p no:cacheprovider tests/crosscheck

format: $(READY) ## Format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

accept-main: $(READY) ## Run the full lines of the main job; writes benchmarks/results/main.json
	$(BIN)/python benchmarks/accept_main.py

accept-breadth: $(READY) ## Run every experiment and Flower's runtimes; writes benchmarks/results/breadth.json
	$(BIN)/python benchmarks/accept_breadth.py

accept-engine: $(READY) ## Run the benchmarks and the full lines of the engine; writes benchmarks/results/engine.json
	$(BIN)/python benchmarks/accept_engine.py

accept-privacy: $(READY) ## Run the full lines of privacy; writes benchmarks/results/privacy.json
	$(BIN)/python benchmarks/accept_privacy.py

accept-assess: $(READY) ## Run the full lines of the assessors; writes benchmarks/results/assess.json
	$(BIN)/python benchmarks/accept_assess.py

accept-attack: $(READY) ## Run the full lines of training under attack; writes benchmarks/results/attack.json
	$(BIN)/python benchmarks/accept_attack.py

accept-compare: $(READY) ## Run the full lines of comparing budgets; writes benchmarks/results/compare.json
	$(BIN)/python benchmarks/accept_compare.py

accept-experiments: $(READY) ## Run the commands of the experiments' READMEs again; writes benchmarks/results/experiments.json
	$(BIN)/python benchmarks/accept_experiments.py

accept-deploy: $(READY) ## Run the full lines of deployment; writes benchmarks/results/deploy.json
	$(BIN)/python benchmarks/accept_deploy.py

accept-alignment: $(READY) ## Run the full lines of alignment; writes benchmarks/results/alignment.json
	$(BIN)/python benchmarks/accept_alignment.py

accept-serve: $(READY) ## Run the full lines of the guarded service; writes benchmarks/results/serve.json
	$(BIN)/python benchmarks/accept_serve.py

accept-secure: $(READY) ## Run the full lines of secure aggregation; writes benchmarks/results/secure.json
	$(BIN)/python benchmarks/accept_secure.py

bench: $(READY) ## Time FedSafe beside Opacus, Flower and pfl; writes benchmarks/results/bench.json
	$(BIN)/python benchmarks/bench.py

clean: ## Remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
