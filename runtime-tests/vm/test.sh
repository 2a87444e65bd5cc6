# `vm test`: the tests of this checkout, unchanged, in a guest; or a program that measures.

vm_test() {
    local runtime='' threads='' kind=test suite=behaviours package=runtime-tests environment=() workspace target messages programs tests
    while [ $# -gt 0 ]; do
        case $1 in
            --) shift; break ;;
            --no-snapshot) SNAPSHOT=no; shift ;;
            --reboot) REBOOT=yes; shift ;;
            --*) [ $# -ge 2 ] || die "$1 needs a value" ;;&
            --runtime) runtime=$2; shift 2 ;;
            --suite) suite=$2; shift 2 ;;
            --bench) kind=bench suite=$2; shift 2 ;;
            --env) environment+=("$2"); shift 2 ;;
            --threads) threads=$2; shift 2 ;;
            --*) machine_flag "$@"; shift 2 ;;
            *) break ;;
        esac
    done
    [ "$suite" != cri ] || package=cri-tests
    vm_build --kernel "$KERNEL"

    workspace=$(dirname -- "$(dirname -- "$HERE")")
    target=${CARGO_TARGET_DIR:-$workspace/target}
    # Cargo tells where it put the test program, the programs that this starts by their paths, the test init and the floor.
    messages=$(cd "$workspace" && gently cargo "$kind" --quiet -p "$package" "--$kind" "$suite" --no-run --message-format=json)
    mapfile -t programs < <(grep -oE '"(executable|INSIDE|FLOOR)"[:,]"[^"]*"' <<<"$messages" | sed 's/.*[:,]"//; s/"$//' | sort -u)
    tests=$(printf '%s\n' "${programs[@]}" | grep "/$suite-[0-9a-f]*$") || die "test: cargo did not say where $suite is"
    [ $kind = bench ] || set -- "--test-threads=${threads:-$((CPUS + 1))}" "$@"

    make_scratch
    local stage=$SCRATCH/stage
    mkdir -p "$stage"/{target,runtime}
    (cd "$target" && cp --parents "${programs[@]#"$target/"}" "$stage/target/")
    if [ -z "$runtime" ]; then
        local binary=${RUNTIME:-$target/$(uname -m)-unknown-linux-musl/release/coracle}
        [ -x "$binary" ] || die "test: no $binary: run \`make build\`"
        cp "$binary" "$stage/runtime/coracle"
        [ ! -x "${binary%/*}/containerd-shim-coracle-v2" ] || cp "${binary%/*}/containerd-shim-coracle-v2" "$stage/runtime/"
        runtime=/opt/coracle/coracle
    fi
    SHARES+=("$stage/target:$target" "$stage/runtime:/opt/coracle" "$workspace/packaging" "$workspace/docs")
    in_guest "$(printf '%q ' env "${environment[@]}" "RUNTIME=$runtime" "$tests" "$@")"
}
