# `vm test`: the tests of this checkout, unchanged, in a guest.

vm_test() {
    local runtime='' threads='' suite=behaviours environment=() workspace target messages tests inside
    while [ $# -gt 0 ]; do
        case $1 in
            --) shift; break ;;
            --no-snapshot) SNAPSHOT=no; shift ;;
            --*) [ $# -ge 2 ] || die "$1 needs a value" ;;&
            --runtime) runtime=$2; shift 2 ;;
            --suite) suite=$2; shift 2 ;;
            --env) environment+=("$2"); shift 2 ;;
            --threads) threads=$2; shift 2 ;;
            --*) machine_flag "$@"; shift 2 ;;
            *) break ;;
        esac
    done
    case $suite in behaviours | engines) ;; *) die "--suite is behaviours or engines, not $suite" ;; esac
    vm_build --kernel "$KERNEL"

    workspace=$(dirname -- "$(dirname -- "$HERE")")
    target=${CARGO_TARGET_DIR:-$workspace/target}
    # Cargo tells where it put the test program, and where that will look for the test init.
    messages=$(cd "$workspace" && gently cargo test --quiet -p runtime-tests --test "$suite" --no-run --message-format=json)
    tests=$(sed -n "s/.*\"executable\":\"\([^\"]*$suite[^\"]*\)\".*/\1/p" <<<"$messages")
    inside=$(sed -n 's/.*"INSIDE","\([^"]*\)".*/\1/p' <<<"$messages")
    [ -x "$tests" ] && [ -x "$inside" ] || die "test: cargo did not say where the tests are"

    make_scratch
    local stage=$SCRATCH/stage
    mkdir -p "$stage"/{bin,inside}
    cp "$tests" "$stage/bin/$suite"
    cp "$inside" "$stage/inside/"
    if [ -z "$runtime" ]; then
        local binary=${RUNTIME:-$target/$(uname -m)-unknown-linux-musl/release/coracle}
        [ -x "$binary" ] || die "test: no $binary: run \`make build\`"
        cp "$binary" "$stage/bin/coracle"
        [ ! -x "${binary%/*}/containerd-shim-coracle-v2" ] || cp "${binary%/*}/containerd-shim-coracle-v2" "$stage/bin/"
        runtime=/opt/coracle/coracle
    fi
    SHARES+=("$stage/bin:/opt/coracle" "$stage/inside:$(dirname -- "$inside")" "$workspace/packaging")
    in_guest "$(printf '%q ' env "${environment[@]}" "RUNTIME=$runtime" "/opt/coracle/$suite" "--test-threads=${threads:-$((CPUS + 1))}" "$@")"
}
