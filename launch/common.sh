# shellcheck shell=bash
# What the scripts of this folder share. Sourced, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
name=${0##*/}
jobs=$(nproc)

say() {
    printf '%s\n' "$*"
}

fail() {
    printf '\n%s: %s\n' "$name" "$*" >&2
    exit 1
}

# Run a command with its output in a file; on failure show the end of it and where it is.
# run_logged FILE WORDS COMMAND...
run_logged() {
    local log=$1 words=$2
    shift 2
    if ! "$@" >>"$log" 2>&1; then
        tail -n 30 "$log" >&2
        fail "$words failed; everything it said is in $log"
    fi
}

# configure_preset PRESET: in build/PRESET, log in build/log.
configure_preset() {
    local preset=$1 log=$root/build/log/$1.log
    mkdir -p "$root/build/log"
    : >"$log"
    if ! command -v cmake >/dev/null || ! command -v ninja >/dev/null; then
        fail "cmake or ninja is missing; run launch/install-packages first"
    fi
    run_logged "$log" "configuring build/$preset" cmake -S "$root" --preset "$preset"
}

# build_preset PRESET [TARGET...]: configure and build.
build_preset() {
    local preset=$1 log=$root/build/log/$1.log started=$SECONDS
    shift
    configure_preset "$preset"
    say "building build/$preset with $jobs jobs (the first time takes minutes) ..."
    local build=(cmake --build "$root/build/$preset" -j "$jobs")
    [[ $# == 0 ]] || build+=(--target "$@")
    if [[ -t 1 ]]; then
        # on a terminal ninja shows its progress in one line
        "${build[@]}" || fail "building build/$preset failed, see above"
    else
        run_logged "$log" "building build/$preset" "${build[@]}"
    fi
    say "built build/$preset in $((SECONDS - started)) s"
}

# take_jobs VALUE: the argument of -j.
take_jobs() {
    [[ ${1:-} =~ ^[1-9][0-9]*$ ]] || fail "-j needs a number of jobs"
    jobs=$1
}
