#!/bin/sh
# expect_caught.sh property|THEME PROGRAM TEXT: the program with a planted bug must fail and name it; the
# property program by aborting.
kind=$1
program=$2
text=$3
limit=$(command -v timeout >/dev/null && echo "timeout 100")
if [ "$kind" = property ]; then
    message=$($limit "$program" 1 2000 2>&1 >/dev/null)
    status=$?
    failed=$([ "$status" -eq 134 ] && echo yes) # 128 + SIGABRT
else
    message=$($limit "$program" 2>&1 | grep -E 'ERROR|FAILED|VIOLATION|Assertion')
    failed=$([ -n "$message" ] && echo yes)
fi
if [ -z "$failed" ]; then
    echo "not caught: $message"
    exit 1
fi
case $message in
*"$text"*) echo "caught: $message" ;;
*)
    echo "caught as something else, expected '$text': $message"
    exit 1
    ;;
esac
