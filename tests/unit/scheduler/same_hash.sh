#!/bin/sh
# same_hash.sh same|differs PROGRAM: do processes with equal seeds plan the same, to the last id?
first=$("$2" 20001 500) || exit 1
echo "$first"
for _ in 2 3; do
    again=$("$2" 20001 500) || exit 1
    if [ "$first" != "$again" ]; then
        echo "differs: $again"
        [ "$1" = differs ]
        exit
    fi
done
[ "$1" = same ]
