#!/usr/bin/env bash
# Runs the Go that the modules of this folder are built with: `go.sh ARGUMENT…`, as `go ARGUMENT…`.
set -euo pipefail
shopt -s inherit_errexit
modules="$(dirname "$(realpath "$0")")"

# Compiles where the machine has no Go, or one that is older than a go.mod asks for. The Go that is there fetches it, and
# compares it with Go's checksum database.
readonly toolchain=go1.27.3
# The oldest Go that fetches another.
readonly fetching=1.21
# Debian's, for machines that have none which could. It is unpacked in the cache and not installed.
readonly suite=trixie debian=1.24

version_of() {
    (cd / && GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) | grep -oP '^go\K[0-9.]+' || echo 0
}

is_older() {
    [ "$1" != "$2" ] && [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]
}

unpack_debians() {
    local cache="${XDG_CACHE_HOME:-$HOME/.cache}/harborhook"
    local unpacked="$cache/golang-$suite-$debian"
    mkdir -p "$cache"
    (
        flock 9
        [ ! -e "$unpacked" ] || exit 0
        rm -rf "$unpacked.partial"
        mmdebstrap --quiet --variant=extract --include="golang-$debian-go" "$suite" "$unpacked.partial" >&2
        mv "$unpacked.partial" "$unpacked"
    ) 9>"$unpacked.lock"
    echo "$unpacked/usr/lib/go-$debian/bin/go"
}

go=go
needed="$(grep -ohP '^go \K\S+' "$modules"/*/go.mod | sort -V | tail -n 1)"
version="$(version_of go)"
if is_older "$version" "$needed"; then
    if is_older "$version" "$fetching"; then go="$(unpack_debians)"; fi
    export GOTOOLCHAIN="$toolchain"
fi

exec "$go" "$@"
