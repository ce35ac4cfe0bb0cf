# The front door: `make run` measures Local Linear Attention end to end, `make test` runs the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BASE := $(VENV)/.installed
DEV := $(VENV)/.installed-dev

BUDGET ?= 12h
ARGS ?=
RUN_BUDGET ?= 4m30s

.DEFAULT_GOAL := help
.PHONY: help run test test-slow smoke-wheel check format docs pictures reference dashboard bench bench-measuring bench-attentions bench-speed bench-lla bench-lla-gpu clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BASE): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(DEV): $(BASE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

run: $(BASE) ## measure lla on causal-cross beside softmax and none (under six minutes on 2 cores)
	$(BIN)/cab run --attn lla --pattern causal-cross --time-budget $(RUN_BUDGET) $(ARGS)

test: $(DEV) ## run the tests, a file at a time on each of two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder \
		--benchmark-disable

test-slow: $(DEV) ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow

smoke-wheel: $(DEV) ## install a wheel and use it beside folders of the suite's names (two minutes)
	$(BIN)/python -m pytest -m slow tests/slow/test_installed.py tests/slow/test_wheel.py

check: $(DEV) ## format, lint, types, generated docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python docs/build_tasks.py --check
	$(BIN)/python docs/build_findings.py --check
	$(BIN)/python docs/build_attentions.py --check
	$(BIN)/python docs/build_speed.py --check
	$(BIN)/python docs/build_short_runs.py --check

format: $(DEV) ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(DEV) ## write the pages in docs/ that follow from code and results
	$(BIN)/python docs/build_tasks.py
	$(BIN)/python docs/build_findings.py
	$(BIN)/python docs/build_attentions.py
	$(BIN)/python docs/build_speed.py
	$(BIN)/python docs/build_short_runs.py

pictures: $(DEV) ## draw the pictures of the README anew (six minutes; needs Chromium)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[pictures]'
	$(BIN)/python docs/build_pictures.py

reference: $(DEV) ## measure what results/reference lacks (BUDGET=2h, ARGS='--attn lla')
	$(BIN)/python -m runners.reference --time-budget $(BUDGET) $(ARGS)

dashboard: $(BASE) ## browse the leaderboard
	$(BIN)/cab dashboard

bench: $(DEV) ## time the attentions and our own hot paths (pytest-benchmark)
	$(BIN)/python -m pytest benchmarks/*.py --benchmark-only

bench-measuring: $(DEV) ## hold the measuring itself to its promises (about ten minutes on 2 idle cores)
	$(BIN)/python -m benchmarks.agreement
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.repeatability

bench-attentions: $(DEV) ## time attentions beside their straightforward forms, and how cost grows
	$(BIN)/python -m pytest benchmarks/attentions --benchmark-only \
		--benchmark-group-by=func,group --benchmark-columns=median,iqr,rounds
	$(BIN)/python -m benchmarks.attentions.exponents

bench-speed: $(DEV) ## measure what docs/speed.md says of papers' claims (eight minutes of a processor)
	$(BIN)/python -m benchmarks.attentions.speed_claims --out docs/speed.json
	$(BIN)/python docs/build_speed.py

bench-lla: $(DEV) ## time lla beside its plain forms and softmax (about six minutes on 2 cores)
	$(BIN)/python -m pytest benchmarks/lla --benchmark-only \
		--benchmark-group-by=func --benchmark-columns=median,iqr,rounds

bench-lla-gpu: $(DEV) ## time the lla kernels on a CUDA device (about eight minutes on an H200)
	$(BIN)/python -m benchmarks.lla.gpu

clean: ## remove the environment and caches (results stay)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info
