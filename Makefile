# A thin list of commands. `make demo` shows the main job, `make test` passes the tests; both do their own set-up.

TARGET     := $(shell uname -m)-unknown-linux-musl
BINARY     ?= target/$(TARGET)/release/coracle
SHIM       ?= target/$(TARGET)/release/containerd-shim-coracle-v2
PREFIX     ?= /usr/local
SHARE       = $(DESTDIR)$(PREFIX)/share
ZSH        := site-functions
SYSCONFDIR ?= $(if $(filter /usr /usr/local,$(PREFIX)),/etc,$(PREFIX)/etc)

# No path of this machine in what is built.
CARGO_HOME ?= $(HOME)/.cargo
REMAP      := --remap-path-prefix=$(CURDIR)=. --remap-path-prefix=$(CARGO_HOME)/registry/src=

# As crates/coracle/order.txt has them: without hashes of what a function does.
NAMES := -C symbol-mangling-version=v0

.PHONY: build demo test faults fuzz long vm-test check bench dist install clean setup

build: setup
	RUSTFLAGS="$(RUSTFLAGS) $(REMAP) $(NAMES)" CFLAGS="$(CFLAGS) -ffile-prefix-map=$(CARGO_HOME)=." \
	cargo build --release --target $(TARGET) -p coracle -p shim

demo: build
	runtime-tests/demo.sh $(BINARY)

# The program's size is kept, for x86_64: docs/PERFORMANCE.md tells what it is made of.
SIZE_MAX := 4500000
test: build
	[ $(TARGET) != x86_64-unknown-linux-musl ] || [ $$(stat -c %s $(BINARY)) -le $(SIZE_MAX) ]
	cargo test --workspace
	cargo test -p seccomp --features libseccomp-oracle oracle
	fuzz/run 4

# A fault at each system call of each command, and the whole of what else the suite has a part of in `make test`.
faults: build
	FAULTS=all cargo test -p runtime-tests --test faults

# Each parser of what others write, an hour long; SECONDS= for another time.
SECONDS ?= 3600
fuzz: setup
	fuzz/run $(SECONDS)

# The whole of what `make test` has a bounded part of: 200 pods, 10,000 execs and attaches, races of 100,000 swaps, and at last 10,000
# containers side by side, with 20 GB of memory; docs/RELIABILITY.md says what the kernel keeps of them.
long: build
	LONG=yes cargo test -p cri-tests many::
	LONG=yes cargo test -p runtime-tests --test security
	LONG=yes cargo test -p runtime-tests --test faults side_by_side

# All tests in virtual machines: kernels, cgroup views, drivers, users, engines. Writes docs/PORTABILITY.md. `make test` has a part
# of it; CELLS=6.12-v1 chooses by names.
vm-test: build
	VM_TESTS=all cargo test -p runtime-tests --test vm -- $(CELLS)

check: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cd fuzz && cargo fmt --check && RUSTFLAGS="--cfg fuzzing" CARGO_TARGET_DIR=../target/fuzz cargo clippy -- -D warnings
	scripts/check-dependencies.sh
	scripts/check-unsafe.sh
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Beside crun and runc, also Debian's newest; docs/benchmarks gets the results. For a look only: ROUNDS=3 LARGEST=10 RESULTS=/tmp/bench.
# YOUKI= is another peer's path. Measured is the program as it is installed, as the peers are: of a file that a linker has written, piece by piece,
# the page cache has small pieces. The second build is the tool without images and network, for its size.
ROUNDS  ?= 30
LARGEST ?= 1000
RESULTS ?= docs/benchmarks
INSTALLED := $(abspath target/bench/coracle)
bench: build
	cargo build --release --target $(TARGET) -p coracle --no-default-features --target-dir target/small
	install -D -m 755 $(BINARY) $(INSTALLED)
	RUNTIME=$(INSTALLED) cargo bench -p runtime-tests --bench peers -- --rounds $(ROUNDS) --largest $(LARGEST) --write $(abspath $(RESULTS)) \
	    --small $(abspath target/small/$(TARGET)/release/coracle) $(if $(YOUKI),--youki $(YOUKI))
	cargo bench -p runtime-tests --bench images --bench cold_start --bench shim

# A static tarball and a .deb below target/dist.
dist: build
	scripts/dist.sh

install: $(BINARY) $(SHIM)
	install -D -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/coracle
	install -D -m 755 $(SHIM) $(DESTDIR)$(PREFIX)/bin/containerd-shim-coracle-v2
	install -D -m 644 packaging/containers.conf.d/coracle.conf $(DESTDIR)$(SYSCONFDIR)/containers/containers.conf.d/coracle.conf
	install -D -m 644 packaging/sysctl.d/50-coracle.conf $(DESTDIR)$(PREFIX)/lib/sysctl.d/50-coracle.conf
	install -d $(SHARE)/man/man8 $(SHARE)/bash-completion/completions $(SHARE)/zsh/$(ZSH) $(SHARE)/fish/vendor_completions.d
	$(BINARY) completion bash > $(SHARE)/bash-completion/completions/coracle
	$(BINARY) completion zsh > $(SHARE)/zsh/$(ZSH)/_coracle
	$(BINARY) completion fish > $(SHARE)/fish/vendor_completions.d/coracle.fish
	$(BINARY) man | gzip -9n > $(SHARE)/man/man8/coracle.8.gz
	for command in $$($(BINARY) completion of "" | cut -f 1); do \
	    $(BINARY) man $$command | gzip -9n > $(SHARE)/man/man8/coracle-$$command.8.gz || exit; done

$(BINARY) $(SHIM):
	$(MAKE) build

clean:
	cargo clean

setup:
	@scripts/setup.sh
