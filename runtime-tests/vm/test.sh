# `vm test`: the behaviour tests of this checkout, unchanged, in a guest.

vm_test() {
    local runtime='' threads='' arguments=() workspace target messages tests inside
    while [ $# -gt 0 ]; do
        case $1 in
            --) shift; break ;;
            --runtime) runtime=$2; shift 2 ;;
            --threads) threads=$2; shift 2 ;;
            --no-snapshot) SNAPSHOT=no; shift ;;
            --*) machine_flag "$@"; shift 2 ;;
            *) break ;;
        esac
    done
    arguments=("$@")
    vm_build --kernel "$KERNEL"

    workspace=$(dirname -- "$(dirname -- "$HERE")")
    target=${CARGO_TARGET_DIR:-$workspace/target}
    # Cargo tells where it put the test program, and where that will look for the test init.
    messages=$(cd "$workspace" && gently cargo test --quiet -p runtime-tests --test behaviours --no-run --message-format=json)
    tests=$(sed -n 's/.*"executable":"\([^"]*behaviours[^"]*\)".*/\1/p' <<<"$messages")
    inside=$(sed -n 's/.*"INSIDE","\([^"]*\)".*/\1/p' <<<"$messages")
    [ -x "$tests" ] && [ -x "$inside" ] || die "test: cargo did not say where the tests are"

    make_scratch
    local stage=$SCRATCH/stage
    mkdir -p "$stage"/{bin,inside}
    cp "$tests" "$stage/bin/behaviours"
    cp "$inside" "$stage/inside/"
    if [ -z "$runtime" ]; then
        local binary=${RUNTIME:-$target/$(uname -m)-unknown-linux-musl/release/coracle}
        [ -x "$binary" ] || die "test: no $binary: run \`make build\`"
        cp "$binary" "$stage/bin/coracle"
        runtime=/opt/coracle/coracle
    fi
    SHARES+=("$stage/bin:/opt/coracle" "$stage/inside:$(dirname -- "$inside")")
    in_guest "RUNTIME=$(printf %q "$runtime") /opt/coracle/behaviours --test-threads=${threads:-$((CPUS + 1))} \
$(printf '%q ' ${arguments+"${arguments[@]}"})"
}
