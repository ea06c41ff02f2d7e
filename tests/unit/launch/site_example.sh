#!/usr/bin/env bash
# site_example.sh SPILLWAY ROOT: launch/site.example.yaml has every key that the program has, with the
# default that it has, and no other; as it stands and with every key uncommented it is accepted.
set -euo pipefail
spillway=$1 root=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$root"

# "key default" of the program, without what is a flag only and what the example sets.
"$spillway" up --help | sed -nE 's/^  --([a-z-]+) .*/\1 &/p' | while read -r flag rest; do
    case $flag in site | dry-run | daemon | model | tensor | pipeline) continue ;; esac
    default=$(sed -nE 's/.* \[([^]]*)\]$/\1/p' <<<"$rest")
    printf '%s %s\n' "${flag//-/_}" "$default"
done | sort >"$work/program"

# The same of a file; an empty text and false are what help does not show.
keys_of() {
    sed -nE 's/^#([a-z_]+): (.*)$/\1 \2/p' "$1" | sed -E 's/ ("")$/ /; s/ false$/ /' | sort
}

keys_of launch/site.example.yaml >"$work/example"
diff -u "$work/program" "$work/example" || {
    echo 'launch/site.example.yaml and "spillway up --help" differ'
    exit 1
}

"$spillway" up --site launch/site.example.yaml --dry-run >"$work/plain"
sed -E 's/^#([a-z_]+: )/\1/' launch/site.example.yaml >"$work/all.yaml"
"$spillway" up --site "$work/all.yaml" --dry-run >"$work/all"
cmp "$work/plain" "$work/all"
[[ $(grep -c worker "$work/plain") == 4 ]]

# Planted: a key that is missing, a default that is another. The comparison must notice.
plant() {
    sed "$1" launch/site.example.yaml >"$work/bad.yaml"
    keys_of "$work/bad.yaml" >"$work/bad"
    if cmp -s "$work/program" "$work/bad"; then
        echo "planted and not noticed: $1"
        exit 1
    fi
}
plant '/^#queue:/d'
plant 's/^#slots: .*/#slots: 63/'
