# A thin list of commands. `make demo` shows the main job, `make test` passes the tests; both do their own set-up.

TARGET     := $(shell uname -m)-unknown-linux-musl
BINARY     := target/$(TARGET)/release/coracle
SHIM       := target/$(TARGET)/release/containerd-shim-coracle-v2
PREFIX     ?= /usr/local
SYSCONFDIR ?= $(if $(filter /usr /usr/local,$(PREFIX)),/etc,$(PREFIX)/etc)

.PHONY: build demo test long vm-test check bench install clean setup

build: setup
	cargo build --release --target $(TARGET) -p coracle -p shim

demo: build
	runtime-tests/demo.sh $(BINARY)

test: build
	cargo test --workspace

# The whole of what `make test` has a bounded part of: 200 pods, 10,000 execs.
long: build
	LONG=yes cargo test -p cri-tests many::

# All tests in virtual machines: kernels, cgroup views, drivers, users, engines. Writes docs/PORTABILITY.md. `make test` has a part
# of it; CELLS=6.12-v1 chooses by names.
vm-test: build
	VM_TESTS=all cargo test -p runtime-tests --test vm -- $(CELLS)

check: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	scripts/check-dependencies.sh
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

bench: build
	cargo bench -p runtime-tests --bench peers --bench images --bench cold_start --bench shim

install: $(BINARY) $(SHIM)
	install -D -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/coracle
	install -D -m 755 $(SHIM) $(DESTDIR)$(PREFIX)/bin/containerd-shim-coracle-v2
	install -D -m 644 packaging/containers.conf.d/coracle.conf $(DESTDIR)$(SYSCONFDIR)/containers/containers.conf.d/coracle.conf

$(BINARY) $(SHIM):
	$(MAKE) build

clean:
	cargo clean

setup:
	@scripts/setup.sh
