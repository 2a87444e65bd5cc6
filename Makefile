# A thin list of commands. `make demo` shows the main job, `make test` passes the tests; both do their own set-up.

TARGET     := $(shell uname -m)-unknown-linux-musl
BINARY     := target/$(TARGET)/release/coracle
PREFIX     ?= /usr/local
SYSCONFDIR ?= $(if $(filter /usr /usr/local,$(PREFIX)),/etc,$(PREFIX)/etc)

.PHONY: build demo test vm-test check bench install clean setup

build: setup
	cargo build --release --target $(TARGET) -p coracle

demo: build
	runtime-tests/demo.sh $(BINARY)

test: build
	cargo test --workspace

# The behaviour tests in a virtual machine: cgroup v2 alone with all controllers. KERNEL=5.10, INIT=systemd and so on.
vm-test: build
	runtime-tests/vm/vm test --kernel $(or $(KERNEL),6.12) --init $(or $(INIT),minimal)

check: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	scripts/check-dependencies.sh
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

bench: build
	cargo bench -p runtime-tests --bench peers

install: $(BINARY)
	install -D -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/coracle
	install -D -m 644 packaging/containers.conf.d/coracle.conf $(DESTDIR)$(SYSCONFDIR)/containers/containers.conf.d/coracle.conf

$(BINARY):
	$(MAKE) build

clean:
	cargo clean

setup:
	@scripts/setup.sh
