#!/bin/sh
# Nothing of a deployment stays in shared memory, neither after a normal end nor after kill -9.
# Other programs may use shared memory meanwhile, so what is new gets some time to go away.
set -eu
mpirun=$1
ranks=$2

shared() {
    ls /dev/shm
    awk 'NR > 1 { print "sysv", $2 }' /proc/sysvipc/shm
}

before=$(mktemp)
trap 'rm -f "$before"' EXIT
shared >"$before"
for case in coll kill; do
    "$mpirun" --allow-run-as-root --oversubscribe --bind-to none --enable-recovery -np 4 "$ranks" "$case"
done
for second in 1 2 3 4 5 6 7 8 9 10; do
    left=$(shared | grep -vxF -f "$before" || true)
    [ -n "$left" ] || exit 0
    sleep "$second"
done
echo "left in shared memory:"
echo "$left"
exit 1
