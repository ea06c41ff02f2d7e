#!/usr/bin/env bash
# tidy.sh - the conventions that a program can check (.github/CONTRIBUTING.md).
#
#   tests/tidy.sh [--root DIR] [--nm LIBRARY]   check the files git knows (all files where there is no git)
#   tests/tidy.sh --self-test                   plant one violation of each kind; each must be caught by name
#
# --nm: the built library of scheduler/; its objects may import an allow-list only.
# One line per finding, `tidy: RULE: FILE:LINE: words`. Exit 0 when there is none, 1 else.
set -u -o pipefail
export LC_ALL=C

self=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/$(basename "${BASH_SOURCE[0]}")
root=$(dirname "$(dirname "$self")")
library=
mode=check
while [ $# -gt 0 ]; do
    case $1 in
    --root) root=$2 && shift 2 ;;
    --nm) library=$2 && shift 2 ;;
    --self-test) mode='self-test' && shift ;;
    *) echo "usage: tidy.sh [--root DIR] [--nm LIBRARY] | --self-test" >&2 && exit 2 ;;
    esac
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# ---- what is looked at ----

list_files() {
    if [ -e "$root/.git" ] && git -C "$root" rev-parse --git-dir >/dev/null 2>&1; then
        git -C "$root" ls-files
    else
        (cd "$root" && find . -type f | sed 's|^\./||' | sort)
    fi | while IFS= read -r file; do
        [ -e "$root/$file" ] && printf '%s\n' "$file"
    done
}

# FILE:LINE:code, without comments and without what stands in quotes; include lines stay whole.
strip_code() {
    (cd "$root" && xargs -r awk '
    FNR == 1 { comment = 0 }
    {
        line = $0; code = ""
        if (!comment && line ~ /^[ \t]*#[ \t]*include/) { print FILENAME ":" FNR ":" line; next }
        while (line != "") {
            if (comment) {
                at = index(line, "*/")
                if (at == 0) { line = ""; break }
                line = substr(line, at + 2); comment = 0; code = code " "; continue
            }
            if (!match(line, /\/\*|\/\/|"|\047/)) { code = code line; break }
            token = substr(line, RSTART, 2); quote = substr(line, RSTART, 1)
            code = code substr(line, 1, RSTART - 1)
            line = substr(line, RSTART)
            if (token == "/*") { comment = 1; line = substr(line, 3); continue }
            if (token == "//") break
            line = substr(line, 2); code = code quote quote
            while (line != "" && substr(line, 1, 1) != quote)
                line = substr(line, substr(line, 1, 1) == "\\" ? 3 : 2)
            line = substr(line, 2)
        }
        print FILENAME ":" FNR ":" code
    }') <"$work/code" >"$work/stripped"
}

find_in() { # RULE WORDS FILES(regex) PATTERN(extended) [EXCEPT(regex of files)]
    grep -E "^($3)" "$work/stripped" | grep -Ev "^(${5:-\$})" |
        grep -E "^[^:]*:[0-9]+:.*$4" | while IFS=: read -r file line code; do
        echo "tidy: $1: $file:$line: $2: $(printf '%s' "$code" | sed 's/^[ \t]*//')"
    done
}

# ---- rules ----

# Arrows between rooms, includes by path from the root, private headers.
check_includes() {
    awk -F: '
    function room(path,   part, n) {
        n = split(path, part, "/")
        if (part[1] == "runtime" && n > 2) return "runtime/" part[2]
        return n > 1 ? part[1] : "."
    }
    function say(rule, words) { print "tidy: " rule ": " $1 ":" $2 ": " words }
    {
        line = $0; sub(/^[^:]*:[^:]*:/, "", line)
        if (line !~ /^[ \t]*#[ \t]*include[ \t]*["<]/) next
        system_header = line ~ /^[^"]*</
        name = line; sub(/^[^"<]*["<]/, "", name); sub(/[">].*$/, "", name)
        from = room($1); to = room(name); top = from; sub(/\/.*/, "", top)
        if (system_header) {
            if (from == "scheduler" && name !~ /^(assert|limits|stdalign|stdbool|stddef|stdint|stdnoreturn|string)\.h$/)
                say("arrow", "scheduler/ may not use <" name ">")
            next
        }
        if (name !~ /\//) { say("include-path", "\"" name "\" is not a path from the root"); next }
        if (name ~ /\.\./) say("include-path", "\"" name "\" leaves its folder")
        if (top == "tests") next
        if (name ~ /_int\.h$/ && from != to && index(from, to "/") != 1 && index(to, from "/") != 1)
            say("private-header", "\"" name "\" belongs to " to)
        else if (name ~ /_int\.h$/ && top == "runtime" && from != to)
            say("private-header", "\"" name "\" belongs to " to)
        ok = 1
        if (to == "tests") ok = 0
        else if (from == "scheduler") ok = to == "scheduler"
        else if (from == "runtime/base") ok = to == "runtime/base"
        else if (from == "proto") ok = to == "proto" || to == "runtime/base"
        else if (from == "transport") ok = to == "transport" || to == "runtime/base"
        else if (top == "runtime")
            ok = to == "scheduler" || to == "proto" || to == "transport" || to ~ /^runtime/
        if (!ok) say("arrow", from "/ may not use \"" name "\"")
    }' "$work/stripped"
}

word='(^|[^A-Za-z0-9_>.])' # before a call; methods of our own structs are not meant

check_calls() {
    find_in banned-call "has no bound, no error or is not safe here" '.*' \
        "$word(gets|strcpy|strcat|sprintf|vsprintf|stpcpy|atoi|atol|atoll|atof|rand|srand|random|srandom|rand_r|drand48|system|popen|tmpnam|mktemp|strtok|alloca|asctime|ctime|gmtime|localtime)[ ]*\\("
    find_in banned-call "the pure room reads no clock and allocates nothing" 'scheduler/' \
        "$word(time|clock|clock_gettime|gettimeofday|timespec_get|malloc|calloc|realloc|free|aligned_alloc|printf|fprintf|abort|exit|getenv)[ ]*\\("
    find_in banned-call "clocks are read in runtime/base (and in tests)" 'proto/|transport/|runtime/' \
        "$word(time|clock|clock_gettime|gettimeofday|timespec_get)[ ]*\\(" 'runtime/base/'
    find_in log "this room never logs" 'scheduler/|proto/' "$word(spw_log_[a-z]+|perror|syslog)[ ]*\\("
    find_in ndebug "asserts stay on" '.*' 'define[ ]+NDEBUG'
    find_in name "no _t typedefs" '.*' 'typedef .*[ *][a-z0-9_]+_t;' 'tests/'
}

# Foreign libraries, each with its address in the tree (tests may use what they like).
check_addresses() {
    address() { # LIBRARY PATTERN FILES
        find_in address "$1 belongs to $3" '.*' "$2" "tests/|$3"
    }
    address "MPI" "(<mpi\\.h>|${word}MPI_[A-Z])" 'transport/bootstrap_mpi\.c'
    address "UCX" "(<uc[pst]/|$word(ucp|ucs|uct)_[a-z]+[ ]*\\()" 'transport/tp_ucx[a-z_]*\.[ch]'
    address "NCCL" "(<nccl[a-z_]*\\.h>|${word}nccl[A-Z])" 'transport/coll_nccl[a-z_]*\.c|runtime/engine/cuda/'
    address "CUDA" "(<cu[a-z_]*(runtime|blas|Lt|da)[a-zA-Z_]*\\.h>|${word}cuda[A-Z][A-Za-z]+[ ]*\\()" \
        'transport/coll_nccl[a-z_]*\.c|runtime/engine/'
    address "nghttp2" "(<nghttp2/|${word}nghttp2_)" 'proto/grpc_[a-z0-9_]*\.[ch]'
    address "protobuf-c" "(<protobuf-c/|${word}protobuf_c_)" 'proto/|runtime/door_grpc[a-z_]*\.[ch]'
    address "libmicrohttpd" "(<microhttpd\\.h>|${word}MHD_)" 'runtime/door_http[a-z_]*\.[ch]'
    address "libcurl" "(<curl/|${word}curl_[a-z])" 'proto/(client|openai)[a-z_]*\.[ch]|runtime/gateway/'
    address "OpenSSL" "(<openssl/|$word(SSL|EVP|HMAC|BIO)_[A-Za-z])" \
        'runtime/base/hash\.c|proto/grpc_[a-z0-9_]*\.[ch]|runtime/gateway/'
    address "libyaml" "(<yaml\\.h>|${word}yaml_[a-z])" 'runtime/config[a-z_]*\.[ch]|runtime/plan/cluster\.c'
    address "GnuTLS" "(<gnutls/|${word}gnutls_[a-z])" 'runtime/door_http[a-z_]*\.[ch]'
    address "PCRE2" "(<pcre2\\.h>|${word}pcre2_)" 'runtime/model/tokenizer[a-z_]*\.[ch]'
    address "hwloc" "(<hwloc|${word}hwloc_)" 'runtime/engine/|runtime/layout[a-z_]*\.c'
    address "munge" "(<munge\\.h>|${word}munge_)" 'transport/|runtime/auth[a-z_]*\.[ch]'
    address "xxHash" "(<xxhash\\.h>|${word}XXH[0-9]+_)" 'runtime/base/hash\.c'
}

check_shape() {
    local file lines folder
    while IFS= read -r file; do
        lines=$(wc -l <"$root/$file")
        [ "$lines" -le 800 ] || echo "tidy: long-file: $file:$lines: more than 800 lines"
    done <"$work/code"
    { printf '%s\n' runtime transport scheduler proto tests launch &&
        sed -n 's|^\(runtime/[^/]*\)/CMakeLists\.txt$|\1|p' "$work/files"; } | while IFS= read -r folder; do
        grep -q "^$folder/" "$work/files" || continue
        grep -qx "$folder/README.md" "$work/files" || echo "tidy: readme: $folder/README.md:0: is missing"
    done
    grep -E '\.h$' "$work/code" | grep -Ev '^tests/' | while IFS= read -r file; do
        head -20 "$root/$file" | grep -q '^ \* Room: ' ||
            echo "tidy: header-comment: $file:1: does not say its Room, Threads, Ownership, Errors"
    done
}

check_format() {
    local tool=
    for tool in clang-format-14 clang-format; do
        command -v "$tool" >/dev/null && "$tool" --version | grep -q 'version 14\.' && break
        tool=
    done
    if [ -z "$tool" ]; then
        echo "tidy: note: format not checked: clang-format 14 is not installed" >&2
        return
    fi
    (cd "$root" && xargs -r "$tool" --dry-run -Werror --style=file 2>&1 <"$work/code") |
        sed -n 's/^\([^ :]*\):\([0-9]*\):[0-9]*: error: .*/\1:\2/p' | sort -u -t: -k1,1 |
        sed 's|^|tidy: format: |; s|$|: clang-format 14 would change it (and perhaps more)|'
}

# The pure room's objects import nothing but this.
check_imports() {
    [ -n "$library" ] || return
    if ! command -v nm >/dev/null; then
        echo "tidy: note: imports of $library not checked: nm is not installed" >&2
        return
    fi
    if ! nm "$library" >"$work/nm" 2>/dev/null; then
        echo "tidy: imports: $library:0: nm cannot read it"
        return
    fi
    if grep -qE ' __(asan|ubsan|tsan|msan|sanitizer|gcov|llvm_prf)' "$work/nm"; then
        echo "tidy: note: imports of $library not checked: it is built with a sanitizer or for coverage" >&2
        return
    fi
    awk 'NF >= 2 && $(NF-1) ~ /^[TDBRVWtdbr]$/ { print $NF }' "$work/nm" | sort -u >"$work/defined"
    awk '$1 == "U" { print $2 }' "$work/nm" | sort -u | comm -23 - "$work/defined" |
        grep -vxE '(memcpy|memset|memmove|memcmp)|__(memcpy|memset|memmove)_chk|__assert_fail|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_' |
        sed "s|^|tidy: imports: ${library##*/}:0: uses |"
}

check() {
    list_files >"$work/files"
    grep -E '\.(c|h|cu|cuh)$' "$work/files" >"$work/code" || true
    strip_code
    {
        check_includes
        check_calls
        check_addresses
        check_shape
        check_format
        check_imports
    } >"$work/findings"
    cat "$work/findings"
    local count
    count=$(wc -l <"$work/findings")
    echo "tidy: $(wc -l <"$work/code") files, $count findings"
    [ "$count" -eq 0 ]
}

# ---- self-test ----

failures=0
fail() {
    echo "tidy self-test: $*"
    failures=$((failures + 1))
}

plant() { # RULE FILE TEXT: into the tree of violations; % in FILE becomes a number of its own
    planted=$((planted + 1))
    local file=${2//%/$planted}
    if [ "$3" = DELETE ]; then
        rm "$work/bad/$file"
    else
        printf '%b' "$3" >"$work/bad/$file"
    fi
    echo "$1 $file" >>"$work/planted"
}

innocent() { # FILE TEXT: into the tree where nothing may be found
    printf '%b' "$2" >"$work/clean/$1"
}

# Each planted violation is found by its rule in its file, and nothing else is.
expect_planted() {
    local rule file count
    "$self" --root "$work/bad" >"$work/out" && fail "violations, but exit 0"
    while read -r rule file; do
        count=$(grep -c "^tidy: [a-z-]*: $file:" "$work/out")
        if [ "$count" -eq 1 ] && grep -q "^tidy: $rule: $file:" "$work/out"; then
            echo "tidy self-test: caught: $(grep "^tidy: $rule: $file:" "$work/out")"
        else
            fail "$rule in $file: $count findings: $(grep "^tidy: [a-z-]*: $file:" "$work/out")"
        fi
    done <"$work/planted"
    grep -q ", $planted findings$" "$work/out" ||
        fail "$planted planted, but: $(tail -1 "$work/out")"
}

expect_imports() { # FILE WORDS
    if "$self" --root "$work/clean" --nm "$1" >"$work/out"; then
        fail "imports of $1 were not caught"
    elif grep -q "^tidy: imports: .*$2" "$work/out"; then
        echo "tidy self-test: caught: $(grep '^tidy: imports: ' "$work/out")"
    else
        fail "imports of $1 were caught as something else: $(cat "$work/out")"
    fi
}

self_test() {
    local folder call clean=$work/clean planted=0
    for folder in runtime runtime/base runtime/model transport scheduler proto tests launch; do
        mkdir -p "$clean/$folder"
        echo "# $folder" >"$clean/$folder/README.md"
    done
    touch "$clean/runtime/model/CMakeLists.txt"
    cp "$(dirname "$(dirname "$self")")/.clang-format" "$clean/.clang-format"
    for folder in runtime runtime/base runtime/model transport scheduler proto; do
        printf '/* good.h - words.\n *\n * Room:      %s\n */\n' $folder >"$clean/$folder/good.h"
        cp "$clean/$folder/good.h" "$clean/$folder/good_int.h"
        printf '#include "%s/good.h"\n#include "%s/good_int.h"\n' $folder $folder >"$clean/$folder/good.c"
    done
    cp -r "$clean" "$work/bad"

    plant arrow scheduler/bad%.c '#include "runtime/base/good.h"\n'
    plant arrow scheduler/bad%.c '#include <stdio.h>\n'
    plant arrow scheduler/bad%.c '#include <time.h>\n'
    plant arrow proto/bad%.c '#include "scheduler/good.h"\n'
    plant arrow proto/bad%.c '#include "runtime/good.h"\n'
    plant arrow transport/bad%.c '#include "proto/good.h"\n'
    plant arrow transport/bad%.c '#include "runtime/model/good.h"\n'
    plant arrow runtime/base/bad%.c '#include "runtime/good.h"\n'
    plant arrow runtime/bad%.c '#include "tests/good.h"\n'
    plant include-path runtime/bad%.c '#include "good.h"\n'
    plant include-path runtime/bad%.c '#include "runtime/../scheduler/good.h"\n'
    plant private-header runtime/bad%.c '#include "scheduler/good_int.h"\n'
    plant private-header runtime/bad%.c '#include "runtime/model/good_int.h"\n'
    for call in 'gets(s)' 'strcpy(a, b)' 'strcat(a, b)' 'sprintf(a, b)' 'atoi(a)' 'rand()' \
        'system(a)' 'strtok(a, b)'; do
        plant banned-call runtime/bad%.c "void f(void)\n{\n    $call;\n}\n"
        plant banned-call tests/bad%.c "void f(void)\n{\n    g($call);\n}\n"
    done
    for call in 'time(a)' 'clock()' 'malloc(a)' 'printf(a)'; do
        plant banned-call scheduler/bad%.c "void f(void)\n{\n    $call;\n}\n"
    done
    plant banned-call transport/bad%.c 'void f(void)\n{\n    clock_gettime(a, b);\n}\n'
    plant log proto/bad%.c 'void f(void)\n{\n    spw_log_info(a);\n}\n'
    plant ndebug runtime/bad%.c '#define NDEBUG\n'
    plant name runtime/bad%.c 'typedef struct spw_x spw_x_t;\n'
    plant address transport/bad%.c '#include <mpi.h>\n'
    plant address runtime/bad%.c 'void f(void)\n{\n    MPI_Finalize();\n}\n'
    plant address transport/tp_local.c 'void f(void)\n{\n    ucp_cleanup(a);\n}\n'
    plant address runtime/door_grpc_x.c '#include <nghttp2/nghttp2.h>\n'
    plant address runtime/door_grpc.c 'void f(void)\n{\n    MHD_start_daemon();\n}\n'
    plant address runtime/door_http.c '#include <curl/curl.h>\n'
    plant address runtime/loop.c 'void f(void)\n{\n    curl_easy_init();\n}\n'
    plant address runtime/bad%.c '#include <openssl/evp.h>\n'
    plant address runtime/bad%.c '#include <protobuf-c/protobuf-c.h>\n'
    plant address runtime/bad%.c '#include <pcre2.h>\n'
    plant address runtime/bad%.c '#include <nccl.h>\n'
    plant address runtime/bad%.c 'void f(void)\n{\n    cudaMalloc(a, b);\n}\n'
    plant long-file runtime/bad%.c "$(printf 'int a;\\n%.0s' $(seq 801))"
    plant readme scheduler/README.md DELETE
    plant readme runtime/model/README.md DELETE
    plant header-comment runtime/bad%.h '/* bad.h - words. */\n'

    if command -v clang-format-14 >/dev/null; then
        plant format runtime/bad%.c 'int   a ;\n'
    else
        echo "tidy self-test: format not tried: clang-format 14 is not installed"
    fi
    expect_planted

    innocent runtime/comment.c '/* system(a) and\n * strcpy(a, b) */\nint a; // gets(a)\n'
    innocent runtime/quotes.c \
        'const char *a = "say \\"system(1)\\" /* ";\nint quote = \x27\\\x27\x27;\nint b = \x27"\x27;\n'
    innocent runtime/methods.c \
        'void f(void)\n{\n    a->free(b);\n    spw_sprintf(a);\n    my_rand();\n}\n'
    innocent tests/anything.c '#include "scheduler/good_int.h"\n#include <mpi.h>\n'
    innocent transport/bootstrap_mpi.c '#include <mpi.h>\n'
    innocent proto/grpc_server.c '#include <nghttp2/nghttp2.h>\n'
    "$self" --root "$clean" >"$work/out" || fail "false alarm: $(cat "$work/out")"

    if command -v cc >/dev/null && command -v nm >/dev/null; then
        echo 'void *malloc(unsigned long); void *f(void); void *f(void) { return malloc(8); }' |
            cc -O1 -fno-builtin -x c -c -o "$work/bad.o" -
        expect_imports "$work/bad.o" 'uses malloc'
        expect_imports "$work/absent.a" 'cannot read it'
        echo 'int g(int); int f(int); int g(int a) { return a; } int f(int a) { return g(a) + 1; }' |
            cc -O0 -x c -c -o "$work/good.o" -
        "$self" --root "$clean" --nm "$work/good.o" >"$work/out" ||
            fail "false alarm: $(cat "$work/out")"
    else
        echo "tidy self-test: imports not tried: cc or nm is not installed"
    fi
    echo "tidy self-test: $failures failures"
    [ "$failures" -eq 0 ]
}

if [ "$mode" = check ]; then check; else self_test; fi
