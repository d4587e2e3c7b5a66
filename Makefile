# Bootlink. `make demo` boots a real PC from an image link; `make test` is what CI runs.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv/bin
SOURCES := libs services cli tests
WORKERS ?= 3
export PYTHON

.PHONY: help setup demo run check test soak bench compose-test conformance asyncapi grafana lock docs clean

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 13

setup: ## install what is missing and make .venv
	@tools/setup

demo: setup ## boot a real PC (QEMU) from an image link, twice; show its waterfalls
	@PYTHONPATH=tests $(VENV)/python -m guest.demo

run: setup ## start Bootlink on a network card: make run IF=eth1
	@$(VENV)/bootlink up --interface $(or $(IF),$(error say which network card serves the PCs: make run IF=eth1))

check: setup ## ruff, mypy, import rules, generated docs fresh
	@$(VENV)/ruff check --quiet $(SOURCES)
	@$(VENV)/ruff format --quiet --check $(SOURCES)
	@$(VENV)/mypy $(SOURCES)
	@$(VENV)/lint-imports --no-logo
	@$(VENV)/python -m bootlink_events.docs --check docs

# Files in the order of their folders: booting PCs, which take longest, come early, and the quick ones fill up the end.
test: check ## everything CI runs: check, then all tests, with a real PC booting
	@$(VENV)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

soak: setup ## the full counts of every rig, into docs/guarantees.md (half an hour)
	@PYTHONPATH=tests $(VENV)/python -m soak

bench: setup ## the speed beside peers, into docs/performance.md; ONLY=reads prints it
	@PYTHONPATH=tests $(VENV)/python -m bench $(ONLY)

compose-test: setup ## boot a PC from compose.yaml on a Docker engine of the test's own
	@PYTHONPATH=tests $(VENV)/python -m containers

conformance: setup ## libiscsi's tests on Bootlink and tgt, into docs/conformance.md
	@PYTHONPATH=tests $(VENV)/python -m conformance

asyncapi: setup ## hold docs/asyncapi.yaml against AsyncAPI's own schema (needs npm)
	@PYTHONPATH=tests $(VENV)/python -m conformance.asyncapi

grafana: setup ## hold the dashboards against Grafana's own types (needs npm)
	@PYTHONPATH=tests $(VENV)/python -m conformance.grafana

docs: setup ## write the generated pages of docs anew
	@$(VENV)/python -m bootlink_events.docs docs
	@PYTHONPATH=tests $(VENV)/python -m lab.settings_page
	@PYTHONPATH=tests $(VENV)/python -m lab.metrics_page

lock: setup ## resolve requirements/*.in into hash-pinned requirements/*.txt
	@cd requirements && for name in runtime build chassis registry command dev; do \
		../$(VENV)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
			--no-header $$name.in -o $$name.txt || exit 1; done

clean: ## remove .venv and everything built
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
