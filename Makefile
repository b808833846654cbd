# Every target is one command; `make help` lists them.

SHOTS ?=
METHODS ?=
SEEDS ?=
RECIPE ?= demo
DEVICES ?= auto
DTYPE ?=
DATA ?= data
RUN ?=
STORE ?= store
CLUSTER ?=
CLIPOOD = target/release/clipood

OVERRIDES = $(if $(SHOTS),--shots $(SHOTS)) $(if $(METHODS),--methods $(METHODS)) $(if $(SEEDS),--seeds $(SEEDS)) \
	$(if $(RUN),--run $(RUN)) $(if $(DTYPE),--dtype $(DTYPE))

# Every target with a description.
.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*## .*/\1/p' $(firstword $(MAKEFILE_LIST)))

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the command in release mode
	cargo build --release --locked -p clipood

pipeline: build ## run a recipe: RECIPE, SHOTS, METHODS, SEEDS, DEVICES, DTYPE, DATA, STORE, RUN override it
	$(CLIPOOD) run $(RECIPE) --devices $(DEVICES) --data $(DATA) --store $(STORE) $(OVERRIDES)

submit: build ## queue a run on a cluster: CLUSTER=slurm-example, and the variables of `pipeline`; DRY=1 prints the scripts
	$(if $(CLUSTER),,$(error make submit: give CLUSTER, the name of a manifest in manifests/clusters))
	$(CLIPOOD) submit $(RECIPE) --cluster $(CLUSTER) --data $(DATA) --store $(STORE) $(filter-out --dtype $(DTYPE),$(OVERRIDES)) $(if $(DRY),--dry-run)

test: ## all tests: crates, command, tables in pandas and polars
	cargo test --release --locked --workspace --features clipood-demo/train
	scripts/check-tables.sh # with the command that the tests have built

test-crash: ## kill runs and workers N times (100) at random moments and compare what they finish with
	CLIPOOD_TEST_KILLS=$(or $(N),100) cargo test --release --locked --workspace --features clipood-demo/train \
		--test crash --test faults --test full_disk --test slices -- --nocapture
	@command -v strace >/dev/null || { echo "make test-crash: strace is not installed, and the order of writes cannot be checked without it"; exit 1; }
	cargo test --release --locked --workspace --features clipood-demo/train --test power -- --ignored --nocapture

test-rot: ## flip N random bits (20) in each kind of file of a run and its store, one at a time: named and mended, or refused
	CLIPOOD_TEST_FLIPS=$(or $(N),20) cargo test --release --locked --workspace --features clipood-demo/train \
		--test rot -- --nocapture

test-cloud: ## S3 and Azure: conformance and runs with killed workers on two real servers (installs them below target/)
	scripts/test-cloud.sh

test-slurm: ## submit runs to a real Slurm of one controller and three nodes on this machine (as root; installs it)
	scripts/test-slurm.sh

check-kubernetes: ## validate the rendered manifests strictly against the schemas of Kubernetes, and lint the Dockerfile
	scripts/check-kubernetes.sh

wheel: ## a wheel with the command for pip, installed into a fresh environment where it runs the demo; GLIBC=2.28 is its oldest C library
	scripts/wheel.sh

test-fuzz: ## read N mutated images and N mutated checkpoint archives (100000): each is read or rejected by name
	CLIPOOD_TEST_MUTATIONS=$(or $(N),100000) cargo test --release --locked --workspace --features clipood-demo/train \
		--lib every_mutated -- --nocapture

lint: ## formatting and clippy, warnings denied
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --features clipood-demo/train --all-targets -- -D warnings

docs: ## API documentation, broken links denied
	RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps

detectors-page: ## write docs/DETECTORS.md from the detectors' entries
	cargo build --release --locked -p clipood
	$(CLIPOOD) detectors --markdown > docs/DETECTORS.md

check-cuda: ## compile the feature `cuda` and, by NVRTC from pip, every kernel; neither CUDA nor a GPU is needed
	cargo clippy --release --locked -p clipood --features cuda -- -D warnings
	scripts/check-kernels.sh

check-arm: ## tests of the kernels compiled for 64-bit ARM and run under emulation (installs the target, Debian's compiler and QEMU)
	scripts/check-arm.sh

gpu-check: ## on a machine with a GPU and PyTorch: correctness, then speed beside PyTorch; OUT, CPU=1 for a dry run
	scripts/gpu-check.sh $(if $(CPU),--cpu) $(or $(OUT),target/gpu-check)

test-notebooks: build ## execute the notebooks on a small run (installs Jupyter's kernel and libraries into .venv-notebooks)
	scripts/test-notebooks.sh

test-report: build ## open pages of reports in headless Chromium (installs Debian's); screenshots in target/report-screenshots
	scripts/test-report.sh

check-tables: build ## open the tables of a small run with pandas, polars, DuckDB (installs them into .venv)
	scripts/check-tables.sh

bench-peers: ## images per second beside PyTorch and onnxruntime (in .venv-peers or PEERS_VENV); MODELS, BATCHES, ROUNDS
	cargo build --release --locked -p clipood-clip --example encode_speed
	scripts/bench-peers.sh

bench-start: build ## from the start of a process to the similarity of one image, beside open_clip and onnxruntime; ROUNDS
	scripts/bench-start.sh

bench-prompts: build ## a prompt training step beside PyTorch; CLASSES, ROUNDS
	scripts/bench-prompts.sh

bench-scores: ## detectors and metrics beside numpy, PyTorch, faiss and scikit-learn; SIZES, ROUNDS
	cargo build --release --locked -p clipood-ood --examples
	scripts/bench-scores.sh

bench-search: ## exact search over a million features beside faiss; ROWS, ROUNDS
	cargo build --release --locked -p clipood-pipeline --example search_speed
	scripts/bench-search.sh

bench-engine: build ## memory at 1 and 10 times the data, resume, flow and scaling on simulated devices; IMAGES, FACTOR
	cargo build --release --locked -p clipood-data --example decode_alone
	python3 benches/engine.py $(if $(IMAGES),--images $(IMAGES)) $(if $(FACTOR),--factor $(FACTOR))
	cargo run --release --locked -p clipood-pipeline --example flow_scaling

bench-layouts: build ## time and memory of a plan of IMAGES (1300000) tiny images, in folders and in ARCHIVES (1024) tar files
	python3 benches/layouts.py --images $(or $(IMAGES),1300000) --archives $(or $(ARCHIVES),1024)

bench-flagship: build ## ImageNet-1K's 1,000 classes against the MOS sets, made-up pictures: time, memory, disk of each stage; PHOTOGRAPHS=1
	python3 -m venv .venv-flagship
	.venv-flagship/bin/pip install --quiet --disable-pip-version-check -r benches/flagship/requirements.txt
	.venv-flagship/bin/python benches/flagship/run.py $(if $(PHOTOGRAPHS),--photographs)

train-demo: ## train the demo CLIP from nothing (about an hour on 2 cores); it goes on where it was interrupted
	scripts/train-demo.sh

clean: ## remove builds, runs, the store and drawn images
	rm -rf target runs store data/demo/images .venv .venv-flagship .venv-notebooks .venv-peers
