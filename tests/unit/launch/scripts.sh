#!/usr/bin/env bash
# scripts.sh ROOT: the scripts parse, refuse what they do not know, and packages.debian is in order.
set -euo pipefail
cd "$1"

for script in launch/common.sh launch/install-packages launch/quickstart launch/test launch/fuzz .ci/run; do
    bash -n "$script"
done
if command -v shellcheck >/dev/null; then
    shellcheck -x launch/common.sh launch/install-packages launch/quickstart launch/test launch/fuzz .ci/run
fi

# expect CODE COMMAND...: it ends with that exit code.
expect() {
    local want=$1 code=0
    shift
    "$@" >/dev/null 2>&1 || code=$?
    [[ $code == "$want" ]] || {
        echo "$* ended with $code instead of $want"
        exit 1
    }
}
for script in launch/install-packages launch/quickstart launch/test launch/fuzz; do
    expect 0 "$script" --help
    expect 2 "$script" --no-such-flag
done
expect 1 launch/install-packages no_such_group
expect 1 launch/quickstart -j none

# Every package has its reason, and none is there twice.
words=$(grep -vE '^(#|\[|$)' launch/packages.debian)
[[ $(grep -cvE '^[a-z0-9.+-]+ +# .+' <<<"$words") == 0 ]]
[[ $(cut -d ' ' -f 1 <<<"$words" | sort | uniq -d) == '' ]]
