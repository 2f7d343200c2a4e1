# The menu. `make` alone prints it; CI calls the same targets (.ci/run).

PYTHON ?= python3
VENV   := .venv/bin
SOURCES = $(wildcard chatchain deploy tests benchmarks server.py client.py)
BENCHES := client chain gas crypto relay

# Recipes must not meet another project's environment.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup packages demo test lint format faults fuzz abi mutants prove slither coverage snapshots clean bench $(BENCHES:%=bench-%)

help: ## Print this menu
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Make .venv and node_modules from the lock files (every other target does it too)
	@$(PYTHON) deploy/bootstrap.py

packages: setup
	@$(PYTHON) deploy/packages.py

demo: setup ## The main job on a development chain: deploy, register, vote, message
	@$(VENV)/python deploy/demo.py

test: packages ## Every test: the contracts', Python's two files at a time, and what must run alone
	$(VENV)/python deploy/contract_tests.py
	$(VENV)/python -m pytest -m "not alone" --numprocesses 2 --dist loadfile
	$(VENV)/python -m pytest -m alone

lint: setup ## Style and types
	$(VENV)/ruff check $(SOURCES)
	$(VENV)/ruff format --check $(SOURCES)
	$(VENV)/mypy $(SOURCES)
	cd contracts && "$$(../$(VENV)/python ../deploy/tools.py forge)" fmt --check

format: setup ## Rewrite the sources as `make lint` wants them
	$(VENV)/ruff check --fix $(SOURCES)
	$(VENV)/ruff format $(SOURCES)
	cd contracts && "$$(../$(VENV)/python ../deploy/tools.py forge)" fmt

faults: packages ## The fault tests at full count
	CHATCHAIN_FAULTS=full $(VENV)/python -m pytest tests/integration/faults

fuzz: setup ## Every parser of foreign bytes under atheris, FUZZ_SECONDS (20) each
	@$(VENV)/python -m tests.fuzz

abi: setup ## Compile the contracts into the artifacts that the package carries
	@$(VENV)/python deploy/compile.py

FORGE = $$(../$(VENV)/python ../deploy/tools.py forge)

mutants: setup ## Break the contracts on purpose: their tests must notice every time
	$(VENV)/python deploy/mutants.py

# Their authors pin other versions of what we use, so each has an environment of its own.
.venv-%/ready: deploy/requirements-%.txt
	$(PYTHON) -m venv --clear .venv-$*
	.venv-$*/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

prove: setup .venv-halmos/ready ## Prove the transitions of keys for all inputs (halmos)
	cd contracts && PATH="$$(dirname "$(FORGE)"):$$PATH" ../.venv-halmos/bin/halmos --contract SymTest --solver-timeout-assertion 20000

slither: setup .venv-slither/ready ## Look for known weaknesses in the contracts
	cd contracts && PATH="$$(dirname "$(FORGE)"):$$PATH" ../.venv-slither/bin/slither . --config-file slither.json

coverage: setup ## Lines and branches of the contracts that their tests reach
	$(VENV)/python deploy/coverage.py

snapshots: setup ## Write down what the contracts' calls cost, for `make test` to compare
	$(VENV)/python benchmarks/gas.py --write contracts/snapshots/gas.json

bench: $(BENCHES:%=bench-%) ## Every benchmark; JSON lines on stdout and nothing else

bench-client: ## The client: start-up, one line, a thousand lines
bench-chain: ## The chain: catching up on its history
bench-gas: ## The contracts: gas of receipts, beside the usual designs
bench-crypto: ## Encryption: sessions, messages, groups, files
bench-relay: packages ## The relay: durable messages, idle connections, full mailboxes
$(BENCHES:%=bench-%): bench-%: setup
	@$(VENV)/python benchmarks/$*.py

clean: ## Remove what was built, .venv and node_modules too
	rm -rf .venv .venv-halmos .venv-slither node_modules build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .fuzz contracts/out contracts/cache
	find chatchain deploy tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
