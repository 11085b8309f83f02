# What there is to do here; every target can be run again and needs no step before it.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
SEEDS ?= 1
export AMI_SHARED_DATA ?= ../shared/data
FILMS := $(wildcard $(AMI_SHARED_DATA)/video)
ROOMS := $(wildcard $(AMI_SHARED_DATA)/rgbd)
ROBOTS := $(wildcard $(AMI_SHARED_DATA)/robot)
# An unpinned torch is the newest build for CUDA: gigabytes.
INSTALL := $(BIN)/pip install --quiet --constraint constraints/torch.txt --editable

.PHONY: help setup demo test check docs bench reproduce-rooms reproduce-plan reproduce-wall reproduce-door reproduce-video reproduce-memory reproduce-reason reproduce-spatial

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-16s %s\n", $$1, $$2}'

.venv/core.stamp: pyproject.toml constraints/torch.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(INSTALL) .
	touch $@

.venv/dev.stamp: .venv/core.stamp
	$(INSTALL) . --group dev
	touch $@

.venv/bench.stamp: .venv/core.stamp
	$(INSTALL) '.[bench,hf,memory,worlds]'
	touch $@

setup: .venv/dev.stamp ## make the environment in .venv, with all that tests need

demo: .venv/core.stamp ## the main job: gather experience, train one baby model, ask it everything, write runs/demo
	$(BIN)/ami demo --out runs/demo $(if $(FILMS)$(ROBOTS),--data $(FILMS) $(ROBOTS))

test: setup ## all tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

check: setup ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: setup ## write docs/cli.md anew
	$(BIN)/python -m ami.cli.manual > docs/cli.md

bench: .venv/bench.stamp ## speeds, side by side with what others would use
	for file in benchmarks/*.py; do echo "== $$file"; OMP_NUM_THREADS=1 $(BIN)/python $$file || exit 1; done

reproduce-rooms: .venv/core.stamp ## Two Rooms from scratch, once for each of SEEDS trainings (1, or SEEDS=3)
	$(BIN)/ami reproduce rooms --seeds $(SEEDS) --out runs/reproduce/rooms $(if $(ROBOTS),--data $(ROBOTS))

reproduce-plan: .venv/worlds.stamp ## planning from scratch: far goals, no way, forbidden places, simulated tasks; likewise
	$(BIN)/ami reproduce plan --seeds $(SEEDS) --out runs/reproduce/plan

reproduce-wall: .venv/core.stamp ## far goals in Two Rooms alone, in less time, likewise
	$(BIN)/ami reproduce wall --seeds $(SEEDS) --out runs/reproduce/wall

reproduce-door: .venv/core.stamp ## the same where only the door moves, in still less, likewise
	$(BIN)/ami reproduce door --seeds $(SEEDS) --out runs/reproduce/door

reproduce-memory: .venv/core.stamp ## what is remembered of walks, from scratch, likewise
	$(BIN)/ami reproduce memory --seeds $(SEEDS) --out runs/reproduce/memory

reproduce-reason: .venv/core.stamp ## physics from scratch: surprise, hidden causes, what if; likewise
	$(BIN)/ami reproduce reason --seeds $(SEEDS) --out runs/reproduce/reason

.venv/worlds.stamp: .venv/core.stamp
	$(INSTALL) '.[worlds]'
	touch $@

reproduce-spatial: .venv/worlds.stamp ## places from colours, depth and poses, with twins that lack depth or true poses; likewise
	$(BIN)/ami reproduce spatial --seeds $(SEEDS) --out runs/reproduce/spatial $(if $(ROOMS),--data $(ROOMS))

reproduce-video: .venv/core.stamp ## films from scratch, drawn ones and those at hand, likewise
	$(BIN)/ami reproduce video --seeds $(SEEDS) --out runs/reproduce/video $(if $(FILMS),--data $(FILMS))
