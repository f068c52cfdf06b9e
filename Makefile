# Every target sets up .venv by itself, at once the second time.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2
# One thread a test process: with two processes on two cores, spinning pools would fight.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: demo test test-all check bench bench-models soak rates fuzz mutants docs gallery reports faults clean format

demo: .venv/ready
	$(BIN)/python examples/demo.py

# Some twelve minutes on two cores. The blocks of a document go on from each other: one process runs them.
test: .venv/ready
	$(TEST) -q README.md docs
	$(TEST) -n $(JOBS) -m "not slow and not fuzz and not faults" tests src

# What takes longer: long grids, whole models, compilers, gigabytes, faults; then what reads and writes files and runs
# loops, without assertions of ours.
WRITES := tests/signals tests/cli/test_apply.py tests/cli/test_apply_stores.py tests/engine/kernels/test_kernels.py
test-all: .venv/ready
	$(TEST) -n $(JOBS) -m "(slow or faults) and not fuzz" tests
	PYTHONOPTIMIZE=1 $(TEST) -W ignore::pytest.PytestConfigWarning -n $(JOBS) -m "not slow and not fuzz and not faults" -k "not pieces" $(WRITES)

# What may break: hostile files, changed models, interrupted steps, full disks, forks; each in a process of its own.
faults: .venv/ready
	$(BIN)/python -m pytest -q -n $(JOBS) tests/faults tests/engine/kernels/test_guard_pages.py

PAGE := 'src/tapwise/explanation/page/*.js'

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/oxfmt --check $(PAGE)
	$(BIN)/mypy

AVX2 := ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=+avx,+avx2,+fma

# An hour or more; report.py writes docs/speed.md and its chart from what they leave.
bench: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/bench_conv1d.py --name conv1d-cpu
	$(BIN)/python benchmarks/bench_conv1d.py --random 200 --name conv1d-cpu-random
	$(BIN)/python benchmarks/bench_conv1d.py --random 60 --tuned --name conv1d-cpu-random-tuned
	$(BIN)/python benchmarks/bench_conv1d.py --dtype bfloat16 --name conv1d-cpu-bfloat16
	$(BIN)/python benchmarks/bench_conv1d.py --threads 1 --no-peers --name conv1d-cpu-1-thread
	$(AVX2) $(BIN)/python benchmarks/bench_conv1d.py --name conv1d-cpu-avx2
	$(AVX2) $(BIN)/python benchmarks/bench_conv1d.py --random 60 --name conv1d-cpu-avx2-random
	$(MAKE) bench-models
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt cached-conv pytorch-tcn
	$(BIN)/python benchmarks/bench_stream.py --name stream-cpu
	$(BIN)/python benchmarks/bench_scale.py --name scale-cpu
	$(BIN)/python benchmarks/scale_model.py --name scale-model
	$(BIN)/python benchmarks/report.py
	$(BIN)/python benchmarks/scale_report.py

# Whole networks: eager, accelerated, frozen, torch.compile, ONNX Runtime; offline and live. Half an hour.
bench-models: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/bench_networks.py --name networks-cpu
	$(BIN)/python benchmarks/bench_networks.py --threads 1 --name networks-cpu-1-thread
	$(BIN)/python benchmarks/bench_networks.py --live --threads 1 --name networks-live-cpu
	$(BIN)/python benchmarks/bench_networks.py --training --name networks-training-cpu
	$(BIN)/python benchmarks/bench_networks.py --bfloat16 --name networks-bfloat16-cpu
	$(BIN)/python benchmarks/report.py

# A recording of a thousand million samples: its rate, and that memory stays flat. Some minutes and 8 GB of disk.
soak: .venv/ready
	$(BIN)/python benchmarks/bench_scale.py --samples 1e6 1e8 1e9 --subjects copy apply --name scale-soak

# The rates by which plans are predicted, measured here; nothing else may run meanwhile.
rates: .venv/ready
	$(BIN)/python benchmarks/fit_rates.py --strided 30 --write

# Break one module in every place (MODULE=geometry.py TESTS=tests/test_geometry.py) and see the tests notice.
MODULE ?= geometry.py
TESTS ?= tests/test_geometry.py
mutants: .venv/ready
	$(BIN)/python tests/mutants.py $(MODULE) $(TESTS)

fuzz: .venv/ready
	TAPWISE_FUZZ=1 $(TEST) -n $(JOBS) --timeout 7200 -m fuzz

# The figures and the page's pictures in docs/gallery.md; the pictures take a Chromium.
gallery: .venv/ready
	$(BIN)/python docs/make_gallery.py --pictures

# docs/networks.md: the operations that can be followed, and reports of well-known models.
reports: .venv/ready
	$(BIN)/python docs/make_reports.py

docs: .venv/ready
	$(BIN)/sphinx-build -W -q -b html docs docs/_build

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/oxfmt $(PAGE)

clean:
	rm -rf .venv build dist demo-output docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Tapwise needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
