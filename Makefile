PYTHON ?= python3
OLDEST ?= python3.10
NEWEST ?= python3.13
TORCH ?=
BIN := .venv/bin
READY := .venv/.ready
PARALLEL := -n 2 --dist loadfile
# threads of each of the two processes that share the tests
THREADS ?= 1
TESTS := OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -c tests/pytest.ini tests $(PARALLEL)

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-full test-browser test-oldest test-newest bench bench-learned bench-parsing bench-encoding gpu-check peers results families workflows thumbnails mutants mutants-table lint dist clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

ifneq ($(filter-out cpu,$(TORCH)),)
$(error TORCH is '$(TORCH)'; write TORCH=cpu for the small PyTorch without CUDA, or leave it out)
endif

$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
ifeq ($(TORCH),cpu)
	$(BIN)/python -m pip install --quiet torch torchvision --index-url https://download.pytorch.org/whl/cpu
endif
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@

demo: $(READY) ## erase three concepts from the embedded model, as a picture; TORCH=cpu for the small PyTorch
	$(BIN)/python -m erasure_core demo

test: $(READY) ## every tier but the browser's and the longest tests; fetches a ComfyUI if COMFYUI_PATH names none
	$(BIN)/python tools/get_comfyui.py
	$(TESTS) -m "not full and not browser"

test-browser: $(READY) ## the templates and nodes in Chromium; screenshots are in build/screenshots
	$(BIN)/python -m pip install --quiet -e '.[browser]'
	$(BIN)/python tools/get_comfyui.py
	$(BIN)/python tools/get_chromium.py
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -c tests/pytest.ini tests/browser $(PARALLEL)

test-fast: $(READY) ## the pure tier: no model, no ComfyUI, under 30 seconds
	$(TESTS) -m "not toy and not host and not full"

test-full: $(READY) ## everything, the longest tests too
	$(BIN)/python tools/get_comfyui.py
	$(TESTS) -m "not browser"
	$(MAKE) test-browser

test-oldest: ## the fast and the toy tier on Python 3.10 with the lowest versions that pyproject.toml allows; gigabytes
	$(OLDEST) -m venv build/oldest
	$(OLDEST) tools/lowest_versions.py > build/oldest/lowest.txt
	build/oldest/bin/python -m pip install --quiet -e '.[dev]' -c build/oldest/lowest.txt
	OMP_NUM_THREADS=$(THREADS) build/oldest/bin/python -m pytest -c tests/pytest.ini tests $(PARALLEL) -m "not host and not full"

test-newest: ## the same tiers on Python 3.13 with the newest versions; gigabytes
	$(NEWEST) -m venv build/newest
	build/newest/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager -e '.[dev]'
	OMP_NUM_THREADS=$(THREADS) build/newest/bin/python -m pytest -c tests/pytest.ini tests $(PARALLEL) -m "not host and not full"

bench: $(READY) ## speed and memory of RECE on full-size SD1.5, SD2.1 and SDXL; hours, but resumes
	$(BIN)/python benchmarks/rece_speed.py

bench-learned: $(READY) ## cost of a training step on a full-size SD1.5, as ratios; takes most of an hour
	$(BIN)/python benchmarks/learned_cost.py

bench-parsing: $(READY) ## how the time to parse concepts grows with their text; seconds
	$(BIN)/python benchmarks/parsing.py

bench-encoding: $(READY) ## reading concepts by this code and by an earlier commit's, from a cache, in ComfyUI; an hour, but resumes
	$(BIN)/python tools/get_comfyui.py
	PYTHONPATH=. $(BIN)/python benchmarks/context_cache.py
	PYTHONPATH=. $(BIN)/python benchmarks/comfy_encoding.py --comfyui $${COMFYUI_PATH:-build/comfyui}
	PYTHONPATH=. $(BIN)/python benchmarks/encoding.py

gpu-check: $(READY) ## all that only a GPU can show, in six minutes; writes build/gpu.json and docs/gpu.md
	@mkdir -p build
	$(BIN)/python benchmarks/gpu_check.py --out build/gpu.json
	$(BIN)/python benchmarks/gpu_page.py build/gpu.json

peers: $(READY) ## other projects' erasing beside ours; CLONES=folder with clones; hours, but resumes
	@test -n "$(CLONES)" || { echo "make peers CLONES=FOLDER: the folder that holds clones (docs/peers.md)"; exit 1; }
	$(BIN)/python -m pip install --quiet -e '.[peers]'
	$(BIN)/python benchmarks/peers.py --clones $(CLONES)

results: $(READY) ## measure again what docs/results.md says
	$(BIN)/python -m pip install --quiet -e '.[results]'
	$(BIN)/python tools/make_results.py

families: $(READY) ## the table of families and precisions, from what the host tests have found
	$(BIN)/python tools/families_table.py

workflows: $(READY) ## lay the workflows out anew, from tools/workflow_templates.py and tools/workflow_notes.txt
	$(BIN)/python tools/get_comfyui.py
	$(BIN)/python tools/make_workflows.py

thumbnails: $(READY) ## draw the workflows' thumbnails anew, in a real ComfyUI
	$(BIN)/python tools/get_comfyui.py
	$(BIN)/python tools/make_thumbnails.py

mutants: $(READY) ## mutants of the core against the pure tier, in the background; an hour or two, but resumes
	$(BIN)/python -m pip install --quiet -e '.[mutants]'
	@mkdir -p build
	nohup $(BIN)/python tools/mutants.py run > build/mutants.log 2>&1 & echo "follows in build/mutants.log"

mutants-table: $(READY) ## write docs/testing.md's score, and list the mutants that live without a reason
	$(BIN)/python tools/mutants.py table
	$(BIN)/python tools/mutants.py survivors

lint: $(READY) ## ruff (rules, format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p build/types && ln -sfn ../.. build/types/pack
	$(BIN)/mypy

dist: $(READY) ## build what pip installs, the library and the command without the nodes, into dist/, and check it
	$(BIN)/python -m pip install --quiet build twine
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python tools/check_dist.py
	$(BIN)/python -m twine check --strict dist/*

clean: ## remove what the other targets made (build/toy, hours of training, stays)
	rm -rf .venv build/comfyui mutants *.egg-info out dist tests/.pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './build/*' -prune -exec rm -rf {} +
