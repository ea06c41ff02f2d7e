#!/bin/sh
# same_hash.sh same|differs PROGRAM [COUNT]: do processes with equal seeds plan the same, to the last id?
count=${3:-500}
first=$("$2" 20001 "$count") || exit 1
echo "$first"
for _ in 2 3; do
    again=$("$2" 20001 "$count") || exit 1
    if [ "$first" != "$again" ]; then
        echo "differs: $again"
        [ "$1" = differs ]
        exit
    fi
done
[ "$1" = same ]
