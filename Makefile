# Needs python3 >= 3.11 with venv, and make. Everything installed goes into .venv, at the versions of constraints.txt.

PYTHON ?= python3
ARGS ?=
DIST ?= dist

PY := .venv/bin/python
CLIENTS := tests/clients
NPM := $(shell command -v npm 2>/dev/null)

# Read by pip, and by the pip that it starts to build a package (the second name from pip 25.3 on).
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test bench lint format docs bundle clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

demo: .venv/.base ## make an ad from examples/product.png, without a GPU or models
	@.venv/bin/ad-agent-mcp demo $(ARGS)

test: lint $(if $(NPM),$(CLIENTS)/node_modules/.stamp) ## check the code and run every test; ARGS="-k word" goes to pytest
	$(PY) -m pytest -n 2 --dist loadfile $(ARGS)

bench: .venv/.dev ## measure everything, into out/bench.json; ARGS="--document docs/benchmarks.md" writes the document's table
	@$(PY) -m bench $(ARGS)

lint: .venv/.dev ## check formatting, lint, types, import order and the Dockerfile
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/pyright
	.venv/bin/lint-imports
	.venv/bin/hadolint Dockerfile

format: .venv/.dev ## format the code and fix what can be fixed by machine
	.venv/bin/ruff check --fix-only .
	.venv/bin/ruff format .

docs: .venv/.base ## write the tables of README and docs/reference.md anew
	$(PY) -m tests.documents

# The light server alone, without extras and test tools, at the versions of constraints.txt. The host's uv installs it.
bundle: $(if $(NPM),$(CLIENTS)/node_modules/.stamp) ## build dist/ad-agent-mcp.mcpb for desktop hosts; needs npm
	@test -n "$(NPM)" || { echo "make bundle needs npm, which packs the bundle. On Debian and Ubuntu: apt-get install npm" >&2; exit 1; }
	@rm -rf $(DIST)/mcpb && mkdir -p $(DIST)/mcpb/examples
	@cp -R packaging/mcpb/. ad_agent_mcp fonts README.md LICENSE $(DIST)/mcpb
	@cp examples/product.png $(DIST)/mcpb/examples
	@{ sed '/^\[project.optional-dependencies]/,/^\[project.scripts]/{/^\[project.scripts]/!d;}' pyproject.toml; \
	  echo '[tool.uv]'; echo 'constraint-dependencies = ['; sed -n 's/^[^#].*/  "&",/p' constraints.txt; echo ']'; \
	} > $(DIST)/mcpb/pyproject.toml
	@$(CLIENTS)/node_modules/.bin/mcpb pack $(DIST)/mcpb $(DIST)/ad-agent-mcp.mcpb
	@rm -rf $(DIST)/mcpb

clean: ## remove everything that make made
	rm -rf .venv out dist htmlcov .coverage .coverage.* .pytest_cache .ruff_cache .hypothesis .import_linter_cache $(CLIENTS)/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "ad-agent-mcp needs Python 3.11 or newer, and '$(PYTHON)' is not. Name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv --clear .venv

.venv/.base: pyproject.toml constraints.txt | $(PY)
	@echo "Installing ad-agent-mcp into .venv (once, about a minute) ..."
	@$(PY) -m pip install --quiet --editable .
	@touch $@

# Dependency groups need pip 25.1; an older pip is replaced by the one in constraints.txt.
.venv/.dev: .venv/.base
	@echo "Installing the test tools and model libraries into .venv (once, a few minutes) ..."
	@$(PY) -m pip install --help | grep -q -e '--group' || $(PY) -m pip install --quiet --upgrade pip
	@$(PY) -m pip install --quiet --editable '.[diffusion]' --group dev
	@touch $@

# Outside MCP clients, conformance suites and a tokenizer, for the end-to-end tests.
$(CLIENTS)/node_modules/.stamp: $(CLIENTS)/package.json $(CLIENTS)/package-lock.json
	@echo "Installing outside MCP clients and suites into $(CLIENTS)/node_modules (once) ..."
	@cd $(CLIENTS) && npm ci --no-audit --no-fund --ignore-scripts --omit-lockfile-registry-resolved --loglevel=error
	@touch $@
