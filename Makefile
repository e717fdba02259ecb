# What there is to do here; `make help` says it, and is the default.

PYTHON ?= python3
ENGINE ?= inprocess
ROBOT  ?=
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.unbrick-installed
SYSTEM_STAMP := $(VENV)/.unbrick-system-installed
BENCH_STAMP := $(VENV)/.unbrick-bench-installed
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check \
    --constraint constraints.txt --editable
INSTALLED_FROM = pyproject.toml setup.py constraints.txt \
    harness/unbrick/compile.py \
    $(shell find harness -path "*/c/*.[ch]" -o -path "*/roms/*/*") $(wildcard firmware/lib/delta*.[ch])
# Tests wait for other processes half of their time. How they are shared out: tests/summary.py.
WORKERS = $(shell echo $$((2 * $$(nproc))))
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS)
# Containers often set it. Every worker and every process that a test starts would compile all anew.
unexport PYTHONDONTWRITEBYTECODE
C_FILES = $(shell find examples firmware harness robot_tests tests tools -name '*.[ch]' -not -path '*/build/*')
MARKDOWN_FILES = $(shell find . -name '*.md' -not -path './.*/*' -not -path '*/build/*')

.DEFAULT_GOAL := help
.PHONY: help setup firmware check test lint format hil-test robot bench run up console docs docs/chip-models docs/traceability clean

help: ## this list
	@sed -n 's/^\([a-z/-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22
	@echo
	@echo "  ENGINE=qemu runs hil-test, robot, run and console on QEMU (now: $(ENGINE))"

setup: $(STAMP) ## make .venv and install everything into it

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "Python 3.10 or later is needed: make setup PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	    { echo "python3 -m venv does not work here (Debian: apt install python3-venv)"; exit 2; }

# What runs the system is half of what tests it.
$(SYSTEM_STAMP): $(INSTALLED_FROM) | $(BIN)/pip
	@echo "installing into $(VENV)"
	@$(PIP_INSTALL) '.[system]'
	@touch $@

$(STAMP): $(INSTALLED_FROM) | $(BIN)/pip
	@echo "installing into $(VENV), with all that tests need"
	@$(PIP_INSTALL) '.[dev]'
	@touch $(SYSTEM_STAMP) $@

# Not part of the set-up: it compiles detools, which needs a compiler.
$(BENCH_STAMP): $(STAMP)
	@echo "installing what the measurements compare with into $(VENV)"
	@$(PIP_INSTALL) '.[bench]'
	@touch $@

firmware: $(SYSTEM_STAMP) ## build boot, agent and every release of the application
	$(BIN)/unbrick firmware build

check: lint ## the linters, and every test that takes less than two seconds
	$(PYTEST) -m 'not slow'

test: lint ## all tests, after the linters
	$(PYTEST)

lint: $(STAMP) ## ruff, mypy --strict, clang-format and mdformat
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(C_FILES)
	$(BIN)/mdformat --check $(MARKDOWN_FILES)

format: $(STAMP) ## lay out Python, C and Markdown as lint wants them
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_FILES)
	$(BIN)/mdformat $(MARKDOWN_FILES)

hil-test: $(SYSTEM_STAMP) ## the whole system once: boot, update over the air, restoration
	@$(BIN)/unbrick hil-test --engine $(ENGINE)

robot: $(STAMP) ## the Robot suites, into build/robot; ROBOT="-t NAME" for further options
	@$(BIN)/python -m robot --variable ENGINE:$(ENGINE) --outputdir build/robot/$(ENGINE) \
	    $(ROBOT) robot_tests

bench: $(BENCH_STAMP) ## measure, as ratios; needs a compiler; writes docs/performance.md
	@$(BIN)/python tools/bench.py
	@$(BIN)/python tools/bench_mcu.py
	@$(BIN)/python tools/bench_search.py
	@$(BIN)/python tools/bench_flash.py
	@$(BIN)/python tools/bench_load.py
	@$(BIN)/python tools/bench_flood.py
	@$(BIN)/python tools/bench_list.py
	@$(BIN)/python tools/bench_delta.py

run: $(SYSTEM_STAMP) ## a terminal in real time, its serial lines as ports
	@$(BIN)/unbrick run --engine $(ENGINE)

up: $(SYSTEM_STAMP) ## the whole system for people: terminal, server, bridge and customer center
	@$(BIN)/unbrick up --demo

console: $(SYSTEM_STAMP) ## sit at a terminal's console
	@$(BIN)/unbrick console --engine $(ENGINE)

docs: $(STAMP) ## the documentation as a site, into build/docs; every link is followed
	@$(BIN)/python tools/docs_site.py

docs/chip-models: $(STAMP) ## write docs/chip-models.md from the chips' files
	$(BIN)/python tools/chip_page.py

docs/traceability: $(STAMP) ## write docs/traceability.md from the tests
	$(BIN)/python tools/traceability.py

clean: ## remove what was built; .venv stays
	rm -rf build dist harness/*.egg-info harness/unbrick/engine/*/*.so harness/unbrick/campaign/*.so
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f $(STAMP) $(SYSTEM_STAMP) $(BENCH_STAMP)
	find firmware harness tests tools -name __pycache__ -prune -exec rm -rf {} +
