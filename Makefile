# Every target is one short script in scripts/, the same on a laptop and in CI.
.DEFAULT_GOAL := help
.PHONY: help setup hello test test-fast test-e2e test-paths test-all mutants check fmt bench bench-peers criu lock clean

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*##' Makefile | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | column -t -s "$$(printf '\t')"

setup: ## install what is missing: Debian packages, .venv/
	@scripts/setup

hello: ## set up, then run examples/hello.py in containers
	@scripts/hello

test: ## set up, then fast, kernel and end-to-end tests (under 20 minutes)
	@scripts/test

test-fast: ## only the fast tests: no root, no network (under a minute)
	@scripts/test fast

test-e2e: ## only the end-to-end tests
	@scripts/test e2e

test-paths: ## the end-to-end tests with each way to start a container forced
	@scripts/test paths

test-all: ## every test, slow ones too (one to two hours)
	@scripts/test all

mutants: ## take each behaviour of the list of faults away and see its test fail; ARGS="ctrl-c not-root" picks
	@scripts/mutants $(ARGS)

check: ## lint, types and the rules of the house
	@scripts/check

fmt: ## format and sort imports
	@scripts/fmt

bench: ## measure the figures of docs/performance.md; ARGS="warm_call map" picks
	@scripts/bench $(ARGS)

bench-peers: ## install what the figures are compared with into .venv-peers/
	@scripts/bench-peers

criu: ## install CRIU in /opt/squall, by which templates can be put on disk (optional)
	@scripts/criu

lock: ## write requirements.lock anew from pyproject.toml
	@scripts/lock

clean: ## remove what set-up, tests and builds made in this folder
	@scripts/clean
