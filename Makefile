# Each target makes .venv itself; `make demo` and `make test` are all a fresh clone needs.
# Windows: the same commands by hand, with .venv\Scripts in place of .venv/bin.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
MAKEFLAGS += --no-print-directory

# A script of the gallery that fails leaves no half an output.
.DELETE_ON_ERROR:
.PHONY: demo test lint format docs gallery again browser wheel kernels sanitize bench peers features clean

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

# The site, in site/; a warning is an error. To read it while writing: `.venv/bin/mkdocs serve`.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

# The gallery's pictures, and what its scripts print: of those newer than their output, or all with ALL=1.
gallery: $(patsubst examples/gallery/%.py,docs/gallery/%.txt,$(wildcard examples/gallery/*.py))

docs/gallery/%.txt: examples/gallery/%.py $(if $(ALL),again) | $(STAMP)
	mkdir -p $(@D)
	cd $(@D) && env -u DIFFEO_DATA OMP_NUM_THREADS=1 MPLBACKEND=agg $(CURDIR)/$(BIN)/python $(CURDIR)/$< > $(@F)

again:

# A browser, for the tests of the page that plays: Debian's, where there is none. They are skipped without it.
browser:
	command -v chromium > /dev/null || command -v chromium-browser > /dev/null || command -v google-chrome > /dev/null \
	|| { test "$$(id -u)" = 0 || { echo "no browser: install chromium, as root" >&2; exit 1; }; \
	apt-get update -q && apt-get install -y -q --no-install-recommends chromium; }

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

# What the docs say of other libraries, run in the same environments: code side by side, signs, weights carried over.
peers: .bench/torch/.installed .bench/jax/.installed
	for venv in torch jax; do PYTHONPATH=benchmarks OMP_NUM_THREADS=1 \
	.bench/$$venv/bin/python -m pytest -q -p no:cacheprovider tests/libraries || exit 1; done

# The feature table, each cell from a probe that runs there.
features: .bench/torch/.installed .bench/jax/.installed
	PYTHONPATH=benchmarks .bench/torch/bin/python -m peers.features

.bench/torch/.installed: benchmarks/peers/torch.txt constraints.txt pyproject.toml CMakeLists.txt $(shell find src -name '*.py' -o -name '*.?pp')
	test -d .bench/torch || $(PYTHON) -m venv .bench/torch
	.bench/torch/bin/python -m pip install -q -c constraints.txt -r benchmarks/peers/torch.txt
	.bench/torch/bin/python -m pip install -q -c constraints.txt --force-reinstall --no-deps .
	touch $@

.bench/jax/.installed: benchmarks/peers/jax.txt
	test -d .bench/jax || $(PYTHON) -m venv .bench/jax
	.bench/jax/bin/python -m pip install -q -r benchmarks/peers/jax.txt
	touch $@

# Mixed tables: what judges synthetic rows and what they are compared with; the tables that five packages bundle.
.bench/tables/.installed: benchmarks/mixed/tables.txt constraints.txt pyproject.toml CMakeLists.txt $(shell find src -name '*.py' -o -name '*.?pp')
	test -d .bench/tables || $(PYTHON) -m venv .bench/tables
	.bench/tables/bin/python -m pip install -q -c constraints.txt -r benchmarks/mixed/tables.txt
	.bench/tables/bin/python -m pip install -q -c constraints.txt --force-reinstall --no-deps .
	touch $@

.bench/bundled/.installed: benchmarks/bundled.txt
	test -d .bench/bundled || $(PYTHON) -m venv .bench/bundled
	.bench/bundled/bin/python -m pip install -q -r benchmarks/bundled.txt
	touch $@

clean:
	rm -rf .bench .venv build dist site .pytest_cache .ruff_cache .hypothesis src/diffeo/kernels/*.so

# Compiles the kernels too; where there is no compiler, it installs without them.
$(STAMP): pyproject.toml constraints.txt CMakeLists.txt $(wildcard src/diffeo/kernels/cpp/*)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	$(BIN)/python -c 'from diffeo import kernels; print(kernels.describe())'
	touch $@
