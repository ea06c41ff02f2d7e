#!/bin/sh
# expect_caught.sh PROGRAM TEXT: the property program with a planted bug must abort and name it.
program=$1
text=$2
limit=$(command -v timeout >/dev/null && echo "timeout 60")
message=$($limit "$program" 1 2000 2>&1 >/dev/null)
status=$?
if [ "$status" -ne 134 ]; then # 128 + SIGABRT
    echo "not caught (exit $status): $message"
    exit 1
fi
case $message in
*"$text"*) echo "caught: $message" ;;
*)
    echo "caught as something else, expected '$text': $message"
    exit 1
    ;;
esac
