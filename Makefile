# SPDX-License-Identifier: Apache-2.0
# Every target prepares the environment first (`make setup`, which does nothing when nothing changed).
# A sourced ROS installation must not mix with the one in .venv. `demo` and `test` see it, to say that they ignore it.
ROS_PATHS := PYTHONPATH AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH
unexport PYTHONHOME $(ROS_PATHS)
$(foreach name,$(ROS_PATHS),$(eval demo test: export $(name) := $($(name))))

BIN := .venv/bin
ARGS ?=
ROBOT ?=
DEVICE ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format data ablations reproduce results benchmark-libero benchmark-metaworld benchmark-simpler docs clips lock clean distclean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-19s %s\n' "$$name" "$$text"; done

setup: ## Install and build everything into .venv, build/ and install/ (ROS_DISTRO=jazzy|kilted)
	@scripts/setup.sh

demo: setup ## Three instructions to each simulated robot over ROS 2, video in out/demo (ROBOT=widowx|aloha|mobile_base)
	@$(BIN)/qwen-vla demo $(if $(ROBOT),--robot $(ROBOT)) $(ARGS)

test: setup ## Run the tests (ARGS="-m slow" for the long ones, ARGS="src/qwen_vla" for a part)
	@$(BIN)/python scripts/run_tests.py $(ARGS)

lint: setup ## Check style, likely mistakes and types
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --check --quiet . && $(BIN)/pyright --warnings && echo "lint: clean"

format: setup ## Reformat the sources and mend what can be mended automatically
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

data: export OMP_NUM_THREADS = 1
data: setup ## Make the data of the tiny training recipes, in out/data/tiny (minutes)
	@for recipe in $$(grep -l '^collect:' config/training/*_tiny.yaml); do $(BIN)/qwen-vla collect $$recipe $(ARGS) || exit; done

benchmark-libero: setup ## Measure a policy on LIBERO by its protocol (ARGS="--policy … --tasks libero_object --episodes 10")
	@$(BIN)/python -m benchmarks.public.libero evaluate $(ARGS)

benchmark-metaworld: setup ## Measure a policy on Meta-World MT50 by its protocol (ARGS="--policy … --episodes 10")
	@$(BIN)/python -m benchmarks.public.metaworld evaluate $(ARGS)

ablations: setup ## Train, evaluate and tabulate what docs/explanation/ablations.md compares (hours)
	@$(BIN)/python scripts/ablations.py $(ARGS)

reproduce: setup ## Collect the data and train the model of all three robots, from nothing (hours; DEVICE=cuda on a GPU)
	@$(BIN)/python scripts/reproduce.py $(if $(DEVICE),--device $(DEVICE)) $(ARGS)

results: setup ## Measure what docs/results.md reports, by its own commands, and print the rows (hours)
	@$(BIN)/python scripts/measure_results.py

benchmark-simpler: setup ## Simpler-WidowX by its official protocol (ARGS="--policy PATH --episodes 24"), in out/benchmarks
	@$(BIN)/python -m benchmarks.public.simpler_widowx evaluate $(ARGS)

docs: setup .venv/docs/.stamp ## Write the pages that are generated from the code, and build the site into build/site
	@$(BIN)/python scripts/generate_docs.py $(ARGS)
	@NO_MKDOCS_2_WARNING=1 .venv/docs/bin/mkdocs build --strict && echo "docs: build/site/index.html"

.venv/docs/.stamp: requirements-docs.lock
	@$(BIN)/python -m venv --clear .venv/docs && .venv/docs/bin/pip install --quiet -r $< && touch $@

clips: setup ## Make the clips of README and pages anew, from episodes of the shipped model (ARGS="widowx --again")
	@$(BIN)/python scripts/clips.py $(ARGS)

lock: setup ## Resolve requirements*.in into the lock files (ARGS=--upgrade for newer versions)
	@$(BIN)/python scripts/lock.py $(ARGS)

clean: ## Remove build outputs and caches; results in out/ stay
	@rm -rf build install log .pytest_cache .ruff_cache .hypothesis .venv/.stamp_messages .venv/.stamp_workspace
	@find src test scripts launch -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean ## Remove the virtual environment, too
	@rm -rf .venv
