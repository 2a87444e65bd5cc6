#!/bin/sh
# Licences, sources and bans of all dependencies; advisories too where their database can be reached.
set -eu

command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
cargo deny --all-features check bans licenses sources
if timeout 60 cargo deny fetch db >/dev/null 2>&1; then
    cargo deny --all-features check advisories
else
    echo "advisories: not checked, their database cannot be reached from here"
fi
