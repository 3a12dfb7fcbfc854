# Each target makes its own .venv from nothing. PYTHON and ARGS can be given.
PYTHON ?= python3
BIN := .venv/bin
DEMO_RUNS ?= runs

# Rewritten tests and checked sources are compiled once, whatever the caller's environment says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo tour test test-all golden soak mutants same check bench gpu-check docs screenshots wheel clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# Modules are compiled when they are first imported; pip would compile all, most of which no one imports.
PIP_INSTALL = $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt

# What a run needs. torch comes by pip alone and first, so that the constraint decides its build.
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP_INSTALL) torch
	$(PIP_INSTALL) -e .
	touch $@

.venv/ready: .venv/installed
	$(PIP_INSTALL) -e '.[dev]'
	touch $@

setup: .venv/ready  ## install attnlab and its tools into .venv

demo: .venv/installed  ## 4 variants x 2 depths x 3 seeds on `pronoun`, trained, compared and drawn
	$(BIN)/attnlab train -m -j 2 dataset=pronoun variant=vanilla,multihead,moe,lstm \
		depth=shallow,base seed=0,1,2 sweep=demo \
		runs_dir=$(DEMO_RUNS)
	$(BIN)/attnlab compare demo --runs-dir $(DEMO_RUNS)
	$(BIN)/attnlab report demo --runs-dir $(DEMO_RUNS) -o report.html
	@echo
	@echo 'Open report.html in a browser. Then, for these runs:'
	@echo '  source .venv/bin/activate'
	@echo '  attnlab attend pronoun-multihead-2x64-s0 "The animal did not cross the street because it was too wide."'
	@echo '  attnlab curves demo -o curves.svg'
	@echo 'and on with the tour in README.md, which works in its order from here.'

tour: .venv/installed  ## run the lines of the tour after the demo, and time them (ARGS=--write: into README.md)
	$(BIN)/python docs/tour.py $(ARGS)

test: .venv/ready  ## the fast tests
	$(BIN)/python -m pytest -q -n 2 -m 'not slow and not browser' $(ARGS)

# The peers that speed is measured against; Lightning starts a second later beside them.
.venv/bench: .venv/ready
	$(PIP_INSTALL) -e '.[bench]'
	touch $@

test-all: .venv/bench  ## every test (ARGS="-m slow" for the slow ones alone)
	$(BIN)/python -m pytest -q -n 2 $(ARGS)

golden: .venv/ready  ## write anew what the tests hold word by word and number by number; read the difference
	ATTNLAB_WRITE_PROSE=1 $(BIN)/python -m pytest -q -n 2 -m 'not soak' $(ARGS)
	$(BIN)/python -m tests.records.behaviour

SHARE ?= 1
soak: .venv/ready  ## the long tests at full size, written into docs/soak.md (SHARE=.1: a tenth)
	$(BIN)/python -m bench.soak --share $(SHARE)

mutants: .venv/ready  ## 100 faults put into src, each against the tests that reach it
	$(BIN)/python -m bench.mutants $(ARGS)

BASE ?= HEAD^
same: .venv/ready  ## train the same tiny runs with commit BASE and with this tree: bit for bit?
	$(BIN)/python -m bench.same $(BASE)

# Types and parity tests know the peers' own.
check: .venv/bench  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

bench: .venv/ready  ## the tables of timings, interleaved in one run
	$(BIN)/python -m bench $(ARGS)

gpu-check: .venv/bench  ## what only a GPU can show, in 9 minutes at most; says so where there is none
	$(BIN)/python -m bench.gpu $(ARGS)

docs: .venv/ready  ## pages of mixers and datasets from their classes, tables from judged results
	$(BIN)/python docs/make.py
	$(BIN)/python docs/evidence.py
	$(BIN)/python docs/reports.py

screenshots: .venv/ready  ## the README's pictures of the demo's runs (make demo); needs Chromium
	$(BIN)/python docs/screenshots.py $(DEMO_RUNS)

wheel: .venv/ready  ## build the wheel into dist/
	$(BIN)/python -m build --wheel --installer pip .

clean:  ## remove what the targets made
	rm -rf .venv dist build
