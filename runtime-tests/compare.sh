#!/bin/sh
# compare.sh RUNC…: the behaviours with runc in Coracle's place, one after the other, and what they are not asked in docs/RUNC.md. What a test
# checks of both is the same; one that fails is a difference that nobody has explained yet, and the page is not written.
#
#   runtime-tests/compare.sh /usr/bin/runc
set -eu

page=docs/RUNC.md
cd "$(dirname "$0")/.."
log=$(mktemp)
part=$(mktemp)
trap 'rm -f "$log" "$part"' EXIT

cat > "$part" <<'END'
# Where runc differs

Made by `runtime-tests/compare.sh RUNC…`, which runs the tests of `runtime-tests/tests/behaviours` with runc in Coracle's place. What passes is
the same of both. Below is what runc is not asked, in the words of the test. Left out is what the machine lacks, and what Coracle has alone:
commands, flags and sentences of its own. A test that names an older version passes with the newer one.
END
for runc; do
    RUNTIME=$runc cargo test -p runtime-tests --test behaviours >"$log" 2>&1 || {
        grep -E '^test .*FAILED|^test result|^error' "$log" >&2
        exit 1
    }
    version=$("$runc" --version | sed -n 's/^runc version //p')
    passed=$(sed -n 's/^test result: ok\. \([0-9]*\) passed.*/\1/p' "$log")
    # The lines of tests that run side by side are not always whole.
    grep -o '\[skipped: [^]]*: .*\]' "$log" | sed 's/^.skipped: //; s/\]$//' |
        grep ': .*runc' | sort >"$log.skipped"
    printf '\n## runc %s: asked by %s of %s tests\n\n| test | why not |\n|---|---|\n' \
        "$version" $((passed - $(grep -o '\[skipped: ' "$log" | wc -l))) "$passed" >>"$part"
    sed 's/: / | /; s/^/| /; s/$/ |/' "$log.skipped" >>"$part"
    rm "$log.skipped"
done
cp "$part" "$page"
