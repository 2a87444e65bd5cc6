#!/bin/sh
# The inventory of `unsafe`: how much each crate has, all of it in its module `sys`. The compiler holds each crate to that by what its root
# says, and clippy each block to a SAFETY comment; here is seen that the roots say so.
set -eu
cd "$(dirname "$0")/.."

# Blocks, functions and implementations, without comments and without the lints' names.
count() { cat "$@" | sed 's;//.*;;' | grep -cE '\bunsafe (\{|fn|impl|extern)' || true; }

status=0
complain() {
    echo "unsafe: $1" >&2
    status=1
}

for crate in crates/*; do
    root=$crate/src/lib.rs
    [ -f "$root" ] || root=$crate/src/main.rs
    inside=$(find "$crate/src" -name '*.rs' \( -path '*/src/sys/*' -o -path '*/src/sys.rs' \))
    outside=$(find "$crate/src" "$crate/tests" "$crate/build" "$crate/build.rs" -name '*.rs' ! -path '*/src/sys/*' ! -path '*/src/sys.rs' 2>/dev/null || true)
    # shellcheck disable=SC2086 # lists of paths
    blocks=$([ -z "$inside" ] || count $inside)
    # shellcheck disable=SC2086
    [ "$(count $outside)" = 0 ] || complain "$crate: outside of sys: $(grep -lE '\bunsafe (\{|fn|impl|extern)' $outside | tr '\n' ' ')"
    wanted=deny
    [ "${blocks:-0}" != 0 ] || wanted=forbid
    grep -q "^#!\[$wanted(unsafe_code)\]" "$root" || complain "$root has to say #![$wanted(unsafe_code)]"
    # shellcheck disable=SC2086
    allowed=$(grep -l 'allow(unsafe_code)' $outside || true)
    for file in $allowed; do
        grep -A1 'allow(unsafe_code)' "$file" | grep -q '^mod sys;' || complain "$file allows it for something else than sys"
    done
    echo "unsafe: $(basename "$crate"): ${blocks:-0}"
done
# Nothing of these is in a release.
# shellcheck disable=SC2046
echo "unsafe: runtime-tests: $(count $(find runtime-tests -name '*.rs'))"
grep -q '^undocumented_unsafe_blocks = "deny"' Cargo.toml || complain "Cargo.toml: clippy no longer asks for SAFETY comments"
for manifest in crates/*/Cargo.toml; do
    grep -A1 '^\[lints\]' "$manifest" | grep -q '^workspace = true' || complain "$manifest does not take the workspace's lints"
done
exit $status
