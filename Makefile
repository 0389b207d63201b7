# How stepwes is built, tried, checked and packaged. `make` alone lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CARGO ?= cargo
PYTHON ?= python3
export PYTHON
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))

##@ Try it
.PHONY: help demo
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: .venv build ## Run a real CWL workflow through the whole service on this machine
	@echo "==> stepwes run examples/gene-report/workflow.cwl examples/gene-report/inputs.json"
	@env -u STEPWES_URL -u STEPWES_TOKEN -u STEPWES_USER PATH="$(CURDIR)/.venv/bin:$$PATH" \
	  "$(TARGET)/debug/stepwes" run --dir "$(TARGET)/demo-server" --outdir "$(TARGET)/demo" \
	  examples/gene-report/workflow.cwl examples/gene-report/inputs.json
	@echo "==> $(TARGET)/demo/report/report.md"
	@cat "$(TARGET)/demo/report/report.md"

##@ Build
.PHONY: build dist package
build: ## Compile the commands stepwes and stepwes-engine
	@echo "==> cargo build"
	@$(CARGO) build --locked --package stepwes --package stepwes-engine

dist: ## Compile them for use, into target/dist: twice, the second time by what a load showed to be hot
	@scripts/dist

# sam build compiles every function through cargo-lambda, in the one target folder.
package: export SAM_CLI_TELEMETRY := 0
package: .venv-package ## Check template.yaml and build the functions as AWS gets them
	@echo "==> sam validate --lint"
	@PATH="$(CURDIR)/.venv-package/bin:$$PATH" sam validate --lint
	@echo "==> sam build"
	@PATH="$(CURDIR)/.venv-package/bin:$$PATH" sam build
	@.venv-package/bin/python scripts/package-sizes

##@ Check
.PHONY: test chaos lint lint-template bench fuzz conformance
test: .venv-test .venv-toil .venv-package .venv-cloud .venv-lock .venv-crate ## Run all tests, with real engines and clients, and of the stack that `make package` built
	@scripts/test

conformance: .venv-test .venv-conformance build ## Run the conformance tests of CWL through the API: SUITE=/path/to/cwl-v1.2
	@PATH="$(CURDIR)/.venv-test/bin:$$PATH" STEPWES_BIN="$(TARGET)/debug/stepwes" \
	  python tests/conformance/run.py --beside "$(or $(SUITE),$(error SUITE names no checkout of cwl-v1.2))"

chaos: SEED ?= $(shell echo $$RANDOM)
chaos: RUNS ?= 1000
chaos: PERCENT ?= 20
chaos: KILLS ?= 100
chaos: .venv-test build ## Let calls of AWS go wrong, and kill the server and engines: SEED, RUNS, PERCENT, KILLS
	@for what in "--runs $(RUNS) --percent $(PERCENT)" "--runs 200 --percent 0 --kills $(KILLS) --real 10"; do \
	  echo "==> campaign $$what"; \
	  PATH="$(CURDIR)/.venv-test/bin:$$PATH" STEPWES_BIN="$(TARGET)/debug/stepwes" \
	    python tests/chaos/campaign.py --seed $(SEED) $$what; \
	done

lint: .venv-lint node_modules lint-template ## Check formatting, lints, docs, licences, the template and the state machine
	@echo "==> cargo fmt --check"
	@$(CARGO) fmt --all --check
	@echo "==> cargo clippy"
	@$(CARGO) clippy --locked --workspace --all-targets -- --deny warnings
	@echo "==> cargo doc"
	@RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --locked --workspace --no-deps
	@scripts/deny
	@echo "==> infra/run.asl.json: asl-validator, statelint"
	@mkdir -p "$(TARGET)/lint"
	@$(PYTHON) scripts/fill-asl infra/run.asl.json > "$(TARGET)/lint/run.asl.json"
	@node_modules/.bin/asl-validator --json-path "$(TARGET)/lint/run.asl.json"
	@$(PYTHON) scripts/fill-asl --numbers infra/run.asl.json > "$(TARGET)/lint/run.asl.json"
	@.venv-lint/bin/statelint --ignore FLOAT "$(TARGET)/lint/run.asl.json"

lint-template: export SAM_CLI_TELEMETRY := 0
lint-template: .venv-package .venv-iac ## Check template.yaml: against CloudFormation, good practice, IAM, and the code
	@echo "==> template.yaml: sam validate --lint, cfn-lint"
	@PATH="$(CURDIR)/.venv-package/bin:$$PATH" sam validate --lint
	@.venv-package/bin/cfn-lint template.yaml
	@echo "==> template.yaml: checkov, parliament"
	@.venv-iac/bin/python scripts/template/lint.py
	@echo "==> template.yaml: what the code needs"
	@.venv-iac/bin/python scripts/template/contract.py
	@.venv-iac/bin/python scripts/template/parameters.py
	@.venv-iac/bin/python scripts/template/mutants.py

fuzz: ## Let libFuzzer look for inputs that break something, SECONDS=60 for each target
	@scripts/fuzz $(or $(SECONDS),60)

bench: .venv-test .venv-toil dist ## Measure: cold starts, and what else is in tests/bench
	@$(CARGO) build --locked --release --bins --example hello --example seed
	@for script in tests/bench/*.py; do \
	  echo "==> $$script"; \
	  PATH="$(CURDIR)/.venv-test/bin:$$PATH" STEPWES_TOIL="$(CURDIR)/.venv-toil" python "$$script"; \
	done

##@ Upkeep
.PHONY: lock clean-tools
lock: .venv-lock ## Pin requirements/*.in anew, with hashes, for Python 3.11 and later
	@cd requirements && for name in lock lint demo test toil package iac cloud crate conformance engine-{cwltool,miniwdl,toil,snakemake}; do \
	  echo "==> requirements/$$name.txt"; \
	  constraint=(); if [[ "$$name" = @(test|engine-cwltool) ]]; then constraint=(--constraint demo.txt); fi; \
	  ../.venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --custom-compile-command "make lock" "$${constraint[@]}" \
	    "$$name.in" --output-file "$$name.txt"; \
	done

clean-tools: ## Remove the Python environments and node_modules
	rm -rf .venv .venv-* node_modules

# Environments. Each is made from one lock file, and made anew only when that file has changed.
.PHONY: .venv .venv-test .venv-toil .venv-lint .venv-package .venv-iac .venv-cloud .venv-crate .venv-conformance .venv-lock node_modules
.venv:
	@scripts/venv demo .venv
.venv-test .venv-toil .venv-lint .venv-package .venv-iac .venv-cloud .venv-crate .venv-conformance .venv-lock: .venv-%:
	@scripts/venv $* $@
node_modules:
	@if ! cmp -s package-lock.json node_modules/.locked; then \
	  echo "==> node_modules: npm ci"; \
	  npm ci --ignore-scripts --no-audit --no-fund --loglevel=error; \
	  cp package-lock.json node_modules/.locked; \
	fi
