# Two commands: `make demo` and `make test`. Both set up a virtual environment in .venv first.
# Needed beforehand: Python 3.10 or newer with venv, a C compiler, make.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Compiled Python goes into the environment too, so that the source tree stays as it was cloned.
export PYTHONPYCACHEPREFIX := $(CURDIR)/$(VENV)/pycache
# Where an environment forbids to keep it, every command would compile its modules again.
export PYTHONDONTWRITEBYTECODE :=

# pytest's workers. They take whole files in the order of folders, which begins with the long ones. Each holds
# the memory of a compiler and a torch process; where there is enough for a third one, it works while others
# wait for browsers and files.
WORKERS ?= $(shell awk '/^MemTotal:/ {print(($$2 > 15e6) ? 3 : 2)}' /proc/meminfo 2>/dev/null || echo 2)

.PHONY: demo test test-all lint format schemas clean

# The beginning of a class, for the model to go on with.
define PROMPT
class Attention(nn.Module):
    def __init__(self, config
endef
export PROMPT

demo: $(VENV)/.user
	@$(BIN)/edgec build tinypy
	@$(BIN)/edgec run tinypy "$$PROMPT" --echo --max-tokens 110 --seed 1 --repetition-penalty 1.1

# Workers share the processors already: PyTorch's threads of each would wait for those of the others.
test test-all: export OMP_NUM_THREADS := 1

test: $(VENV)/.dev
	@sh ci/stand_ins.sh
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not nightly"

test-all: $(VENV)/.dev
	@sh ci/stand_ins.sh
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

schemas: $(VENV)/.user
	@$(BIN)/edgec schema --write docs/schemas
	@$(BIN)/edgec schema --markdown --write docs/reference

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find artifacts -mindepth 1 ! -name README.md -delete

$(VENV)/bin/python:
	@echo "setting up $(VENV)" >&2
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "edgec needs Python 3.10 or newer, and $(PYTHON) is " + sys.version.split()[0])'
	@$(PYTHON) -m venv $(VENV)

# A stamp is written only after everything before it succeeded.
$(VENV)/.user: $(VENV)/bin/python pyproject.toml ci/constraints.txt
	@echo "installing edgec and the reference it is verified against (about a minute)" >&2
	@$(PIP) install --constraint ci/constraints.txt --editable '.[reference]'
	@touch $@

$(VENV)/.dev: $(VENV)/.user
	@echo "installing what the tests need" >&2
	@$(PIP) install --constraint ci/constraints.txt --editable '.[dev]'
	@touch $@
