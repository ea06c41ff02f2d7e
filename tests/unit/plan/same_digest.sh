#!/usr/bin/env bash
# same_digest.sh PROGRAM - one seed gives one replay in two processes, another seed another one.
set -eu
first=$("$1" 1)
second=$(env -i LOCALE=C PADDING="$(head -c 5000 /dev/zero | tr '\0' x)" "$1" 1)
other=$("$1" 2)
echo "seed 1: $first and $second, seed 2: $other"
[ -n "$first" ] && [ "$first" = "$second" ] && [ "$first" != "$other" ]
