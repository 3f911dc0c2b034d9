# Needs only Python 3.11 or newer with pip and venv. Everything is installed into .venv.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?=
ARGS ?=
PORT ?=
REDIS ?=
COVERAGE ?=
# Most tests wait for something most of the time. `make test WORKERS=` runs them one after another.
WORKERS ?= -n 3 --dist worksteal

# Nothing is compiled when it is installed, so it is kept when it is imported.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo demo-cluster demo-notifications demo-secure demo-stream demo-ticker test check bench docs test-matrix clean

help: ## print this list
	@echo "Usage: make TARGET [ARGS=\"...\"] [PYTHON=/path/to/python3.11]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

demo: $(VENV)/.set-up-examples ## run the chat of examples/chat; PORT=8080 chooses its port
	@$(BIN)/python -m examples.chat $(if $(PORT),--port $(PORT)) $(ARGS)

demo-cluster: $(VENV)/.set-up-examples ## run examples/cluster: three nodes on a Redis, to be killed and frozen; PORT too
	@$(BIN)/python -m examples.cluster $(if $(PORT),--port $(PORT)) $(ARGS)

demo-notifications: $(VENV)/.set-up-examples ## run examples/notifications, with REDIS=redis://... on many processes; PORT too
	@$(BIN)/python -m examples.notifications $(if $(PORT),--port $(PORT)) $(if $(REDIS),--redis $(REDIS)) $(ARGS)

demo-secure: $(VENV)/.set-up-examples ## run the notice board of examples/secure, with sign-in; PORT too
	@$(BIN)/python -m examples.secure $(if $(PORT),--port $(PORT)) $(ARGS)

demo-stream: $(VENV)/.set-up-examples ## run examples/stream: texts that come word by word; PORT too
	@$(BIN)/python -m examples.stream $(if $(PORT),--port $(PORT)) $(ARGS)

demo-ticker: $(VENV)/.set-up-examples ## run examples/ticker: fast prices, and a client that is made slow; PORT too
	@$(BIN)/python -m examples.ticker $(if $(PORT),--port $(PORT)) $(ARGS)

test: $(VENV)/.set-up-test ## run the tests; ARGS go to pytest, COVERAGE=1 measures branches
ifeq ($(COVERAGE),)
	@$(BIN)/python -m pytest $(WORKERS) $(ARGS)
else
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest $(WORKERS) $(ARGS); status=$$?; \
		$(BIN)/coverage combine -q; $(BIN)/coverage report; exit $$status
endif

check: $(VENV)/.set-up-dev ## ruff, mypy and pyright (strict), and the tests of layers, exports and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@echo "$(BIN)/mypy & $(BIN)/pyright"; $(BIN)/mypy & mypy=$$!; $(BIN)/pyright; pyright=$$?; wait $$mypy && exit $$pyright
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_exports.py tests/test_typing.py

bench: $(VENV)/.set-up-test ## run the benchmarks; ARGS go to them
	@$(BIN)/python -m tests.benchmarks $(ARGS)

docs: $(VENV)/.set-up-docs ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

test-matrix: $(VENV)/.set-up-test ## run the tests with the lowest and the newest versions admitted
	@$(BIN)/python -m tests.matrix $(ARGS)

clean: ## remove what these targets made, environments included
	rm -rf $(VENV) .matrix site build dist .coverage .coverage.* htmlcov .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A target installs the extra that it needs, and again when pyproject.toml has changed.
WITH_dev := docs test examples
WITH_test := examples
$(VENV)/.set-up-%: pyproject.toml
	@set -e; \
	fits() { "$$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }; \
	python="$(PYTHON)"; \
	if [ -z "$$python" ]; then \
		for python in python3.11 python3; do if fits "$$python"; then break; fi; done; \
	fi; \
	if ! fits "$$python"; then \
		echo "wsrouter needs Python 3.11 or newer, and $$python is $$("$$python" --version 2>&1 || true)."; \
		echo "Install it, or say where it is: make PYTHON=/path/to/python3.11 ..."; \
		exit 1; \
	fi >&2; \
	echo "Setting up $(VENV) for $* (once, about a minute) ..."; \
	$(BIN)/python -m pip --version >/dev/null 2>&1 || "$$python" -m venv --clear $(VENV); \
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile --editable '.[$*]'; \
	touch $(addprefix $(VENV)/.set-up-,$* $(WITH_$*))
.PRECIOUS: $(VENV)/.set-up-%
