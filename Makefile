# The menu. `make` alone prints it; CI calls the same targets (.ci/run).

PYTHON ?= python3
VENV   := .venv/bin
SOURCES = $(wildcard chatchain deploy tests benchmarks server.py client.py)
BENCHES := client chain crypto

# Recipes must not meet another project's environment.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup packages demo test lint format faults abi clean bench $(BENCHES:%=bench-%)

help: ## Print this menu
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Make .venv and node_modules from the lock files (every other target does it too)
	@$(PYTHON) deploy/bootstrap.py

packages: setup
	@$(PYTHON) deploy/packages.py

demo: setup ## The main job on a development chain: deploy, register, vote, message
	@$(VENV)/python deploy/demo.py

test: packages ## Every test: the contracts', then Python's
	cd contracts && "$$(../$(VENV)/python ../deploy/tools.py forge)" test
	$(VENV)/python -m pytest

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

abi: setup ## Compile the contracts into the artifacts that the package carries
	@$(VENV)/python deploy/compile.py

bench: $(BENCHES:%=bench-%) ## Every benchmark; JSON lines on stdout and nothing else

bench-client: ## The client: start-up, one line, a thousand lines
bench-chain: ## The chain: catching up on its history
bench-crypto: ## Encryption: sessions, messages, groups, files
$(BENCHES:%=bench-%): bench-%: setup
	@$(VENV)/python benchmarks/$*.py

clean: ## Remove what was built, .venv and node_modules too
	rm -rf .venv node_modules build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis contracts/out contracts/cache
	find chatchain deploy tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
