# Everything runs in .venv, made from the committed lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OLLAMA := .cache/ollama
BROWSER := .cache/browser
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
# where Python may keep its bytecode, importing Unsloth takes half the time
unexport PYTHONPATH PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test tools lint fast e2e docs ollama browser lock wheel clean

help: ## Show these targets
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(READY) ## Make .venv from the lock, llama.cpp built in

demo: setup ## Run the main job on the shipped model, offline
	$(BIN)/pipe run -r demo
	$(BIN)/pipe check -r demo
	$(BIN)/pipe report -r demo
	@echo 'Talk to it: $(BIN)/pipe chat -r demo'

test: tools lint fast e2e ## Set everything up and pass every test

tools:
	@scripts/check_tools.sh $(PYTHON) test

lint: setup ## ruff, mypy, the layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fast: setup browser ## Tests without a model
	$(BIN)/pytest -q -n auto

e2e: setup ollama ## Tests with the real Unsloth, llama.cpp and Ollama
	$(BIN)/pytest -q -m e2e

docs: setup ## Build the pages into build/docs, their notebooks run
	$(BIN)/python scripts/command_reference.py
	$(BIN)/python scripts/write_notebooks.py
	DOCS_EXECUTE=1 $(BIN)/sphinx-build -W -n -q -d build/doctrees docs build/docs
	@echo build/docs/index.html

ollama: setup ## A real Ollama for the tests, unless one is installed
	@scripts/install_ollama.sh $(OLLAMA) $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

browser: setup ## A Chromium for the tests, unless one is installed
	@scripts/install_browser.sh $(BROWSER)

lock: $(BIN)/uv ## Resolve again and write requirements.lock
	$(BIN)/uv lock --upgrade
	$(BIN)/uv export -q --all-groups --no-emit-project --no-header --format requirements-txt -o requirements.lock

wheel: setup ## Build dist/r1pipe-*.whl
	$(BIN)/uv build -q --wheel -o dist

clean: ## Remove what was made here, runs excepted
	rm -rf $(VENV) .cache build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# bytecode: pipe --help takes half the time, and Unsloth's import where Python may not write its own
INSTALL := $(BIN)/uv pip install --compile-bytecode

$(BIN)/uv:
	@scripts/check_tools.sh $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv==0.13.9

# llama-cpp-python has no wheel: its build takes minutes, once; pyproject.toml holds its options.
# Offline first: asked again, a registry may make uv forget the wheel that it built.
$(READY): requirements.lock pyproject.toml $(BIN)/uv
	@scripts/check_tools.sh $(PYTHON)
	$(INSTALL) --quiet --offline --require-hashes -r requirements.lock 2>/dev/null || \
		$(INSTALL) --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --no-deps --editable .
	@touch $@
