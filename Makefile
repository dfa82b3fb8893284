PYTHON ?= python3
BIN := .venv/bin
# One worker more than cores, because tests of killed processes wait most of their time.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --dist worksteal -n $$($(BIN)/python -c "import os; print(os.cpu_count() + 1)")
# Where this is set, every process compiles torch's sources anew: ten seconds each.
unexport PYTHONDONTWRITEBYTECODE
FASHION_MNIST ?= /usr/share/datasets/fashion-mnist

.PHONY: install demo test test-long lint format pocket-backbone pocket-scales pocket19-scales readme clean help

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 18

install: .venv/installed ## make .venv with everything in it

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python .venv -c constraints.txt -e '.[dev]'
	touch $@

demo: install ## run the demo sweep into ./results and print the report
	$(BIN)/petl-bench sweep sweep=demo --store results
	$(BIN)/petl-bench report --store results

test: install ## run all tests but a few that take long
	$(PYTEST)

test-long: install ## run those too that take long: 200 kills, Ray clusters, a real Slurm
	PETL_BENCH_LONG=1 $(PYTEST)

lint: install ## check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

pocket-backbone: install ## pretrain the bundled backbone again (about half an hour on two cores)
	$(BIN)/python -m petl_bench.dev.pretrain --fashion-mnist $(FASHION_MNIST)

pocket-scales: install ## choose the scales of conf/tuned/pocket.yaml again, on val (about 20 minutes)
	$(BIN)/python -m petl_bench.dev.tune

pocket19-scales: install ## choose those of conf/tuned/pocket19.yaml, on val (about an hour; continues if interrupted)
	$(BIN)/python -m petl_bench.dev.tune --suite pocket19 --seeds 0 --scales 1,3,10 adaptformer lora houlsby fact_tk
	$(BIN)/python -m petl_bench.dev.tune --suite pocket19 --seeds 0 --lrs 0.0005,0.001,0.002 full
	$(BIN)/python -m petl_bench.dev.tune --suite pocket19 --seeds 0 --lrs 0.025,0.05,0.125 linear

readme: install ## fill the generated tables, figures and command outputs of README.md and docs/
	$(BIN)/python -m petl_bench.dev.documentation

clean: ## remove what the other targets made
	rm -rf .venv results dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
