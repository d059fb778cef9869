# Everything a person runs; the first command of each kind sets up its own environment under .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test coverage check lint types docs pictures bench quality progress compare grids peers ablations gpu fuzz roofline train model opponents clean

demo: $(VENV)/demo.stamp  ## reconstruct frames of a simulated scanner: a table, and demo.png
	$(BIN)/mpi-fast demo --output demo.png

test: $(VENV)/dev.stamp  ## all tests that need no GPU, a process for each core
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

coverage: $(VENV)/dev.stamp  ## tests, and the lines that none of them runs
	$(BIN)/python -m pytest --cov --cov-report=term-missing

check: lint types docs test  ## what CI runs

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.stamp
	$(BIN)/mypy

docs: $(VENV)/dev.stamp  ## the pages and the API as a site, build/site/index.html; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

pictures: $(VENV)/dev.stamp  ## draw those of README and pages anew, and run the examples
	$(BIN)/python docs/draw.py

bench: $(VENV)/dev.stamp  ## latency and throughput on this machine
	$(BIN)/python -m pytest bench/test_speed.py --benchmark-only --benchmark-columns=min,median,iqr,max,rounds

quality: $(VENV)/dev.stamp  ## PSNR and SSIM on held-out scanners and phantoms, beside tuned ART
	$(BIN)/python bench/quality.py

progress: $(VENV)/dev.stamp  ## release 0.1, out of git's history, beside what stands here: quality and speed
	$(BIN)/python bench/release.py --json bench/results/release.json --markdown bench/results/release.md

compare: $(VENV)/demo.stamp  ## every method, tuned, at every noise level: a figure and tables; some minutes
	$(BIN)/mpi-fast compare -o compare.png --json compare.json --csv compare.csv

grids: $(VENV)/dev.stamp  ## the same on planes of other grids and on volumes
	$(BIN)/python bench/compare_grids.py --json bench/results/grids.json --markdown bench/results/grids.md

peers: $(VENV)/peers.stamp  ## the network as a denoiser in deepinv's samplers, beside ours
	$(BIN)/python bench/peers.py --snr 15 25 --json bench/results/peers.json --markdown bench/results/peers.md

ablations: $(VENV)/dev.stamp  ## one thing changed at a time: what each part is worth; ten minutes
	$(BIN)/python bench/ablations.py --json bench/results/ablations.json --markdown bench/results/ablations.md

gpu:  ## tests, sanitizers and benchmarks on a GPU, in a PYTHON that has torch and CuPy; without one, what can be done
	$(PYTHON) bench/on_gpu.py

fuzz: $(VENV)/dev.stamp  ## 10 000 damaged files: only the package's errors, no crash, no hang; half an hour
	$(BIN)/python bench/fuzz.py --files $(or $(FILES),10000)

roofline: $(VENV)/dev.stamp  ## what a frame should take on four GPUs, of a plane and of a volume
	$(BIN)/python bench/roofline.py
	$(BIN)/python bench/roofline.py --grid 19x19x19 --rank 1000 --rows 3000 --frames 1 8 64

train: $(VENV)/dev.stamp  ## a new network, by default for as long as the bundled one took
	$(BIN)/mpi-fast train --minutes $(or $(MINUTES),608) --finish $(or $(FINISH),35) --output mpi_fast/models/default.pt

model: $(VENV)/dev.stamp  ## the bundled model from its checkpoint
	$(BIN)/python -m mpi_fast.export mpi_fast/models/default.pt --output mpi_fast/models/default

opponents: $(VENV)/dev.stamp  ## DERnet and DEQ-MPI, MINUTES each in one run; 187 unless told otherwise
	$(BIN)/mpi-fast train --method dernet --minutes $(or $(MINUTES),187) --output dernet.pt
	$(BIN)/mpi-fast train --method deq --minutes $(or $(MINUTES),187) --output deq.pt
	$(BIN)/python -m mpi_fast.export.learned dernet.pt --output mpi_fast/models/dernet.onnx
	$(BIN)/python -m mpi_fast.export.learned deq.pt --output mpi_fast/models/deq.onnx

$(VENV)/python.stamp:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mpi-fast needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(VENV)/python.stamp
	$(PIP) --editable '.[cpu,plots]'
	touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(VENV)/python.stamp
	$(PIP) --editable '.[dev]'
	touch $@ $(VENV)/demo.stamp

$(VENV)/peers.stamp: bench/peers-requirements.txt | $(VENV)/dev.stamp
	$(PIP) --requirement bench/peers-requirements.txt
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .benchmarks .hypothesis build *.egg-info demo.png compare.*
