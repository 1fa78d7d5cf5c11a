# Each target makes .venv itself; `make demo` and `make test` are all a fresh clone needs.
# Windows: the same commands by hand, with .venv\Scripts in place of .venv/bin.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
MAKEFLAGS += --no-print-directory

.PHONY: demo test lint format wheel kernels sanitize bench clean

demo: $(STAMP)
	$(BIN)/diffeo demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build --outdir dist .

# The loop of who works on the C++: compiles what changed and shows what the compiler says. Needs cmake.
kernels:
	test -e $(STAMP) || $(MAKE) $(STAMP)
	cmake -S . -B build/kernels -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python
	cmake --build build/kernels --parallel 4

# Their tests under the address and undefined-behavior sanitizers, in a copy of the package.
sanitize: $(STAMP)
	cmake -S . -B build/sanitize -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python -DDIFFEO_SANITIZE=ON
	cmake --build build/sanitize --parallel 4
	rm -rf build/sanitize/site
	cp -r src build/sanitize/site
	rm -f build/sanitize/site/diffeo/kernels/*.so
	cmake --install build/sanitize --prefix build/sanitize/site
	LD_PRELOAD="$$(c++ -print-file-name=libasan.so) $$(c++ -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=2 PYTHONPATH=build/sanitize/site \
	$(BIN)/python -m pytest -q -o pythonpath=build/sanitize/site tests/kernels

# diffeo beside other libraries, in environments of its own: `make bench ARGS="--models NSF --features 8"`.
bench: .bench/torch/.installed .bench/jax/.installed
	PYTHONPATH=benchmarks .bench/torch/bin/python -m peers $(ARGS)

.bench/torch/.installed: benchmarks/peers/torch.txt constraints.txt pyproject.toml CMakeLists.txt $(shell find src -name '*.py' -o -name '*.?pp')
	test -d .bench/torch || $(PYTHON) -m venv .bench/torch
	.bench/torch/bin/python -m pip install -q -c constraints.txt -r benchmarks/peers/torch.txt
	.bench/torch/bin/python -m pip install -q -c constraints.txt --force-reinstall --no-deps .
	touch $@

.bench/jax/.installed: benchmarks/peers/jax.txt
	test -d .bench/jax || $(PYTHON) -m venv .bench/jax
	.bench/jax/bin/python -m pip install -q -r benchmarks/peers/jax.txt
	touch $@

clean:
	rm -rf .bench .venv build dist .pytest_cache .ruff_cache .hypothesis src/diffeo/kernels/*.so

# Compiles the kernels too; where there is no compiler, it installs without them.
$(STAMP): pyproject.toml constraints.txt CMakeLists.txt $(wildcard src/diffeo/kernels/cpp/*)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	$(BIN)/python -c 'from diffeo import kernels; print(kernels.describe())'
	touch $@
