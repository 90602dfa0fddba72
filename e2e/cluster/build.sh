#!/usr/bin/env bash
# Builds the programs of Go modules of this folder: `build.sh FOLDER MODULE…` leaves those of MODULE in FOLDER/MODULE.
# A module is described by its go.mod alone: its own main packages are built, and those that it names as tools.
set -euo pipefail
shopt -s inherit_errexit
modules="$(dirname "$(realpath "$0")")"
folder="$(realpath "$1")"
shift

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

for module in "$@"; do
    cd "$modules/$module"
    packages=(./...)
    if grep -q '^tool' go.mod; then packages+=(tool); fi
    linked="-s -w"
    # What Kubernetes' own build does; without it its programs say that they are v0.0.0.
    if version="$(grep -oP '^\s*k8s\.io/kubernetes v\K\S+' go.mod)"; then
        IFS=. read -r major minor _ <<<"$version"
        variables=k8s.io/component-base/version
        linked+=" -X $variables.gitVersion=v$version -X $variables.gitMajor=$major -X $variables.gitMinor=$minor"
    fi
    mkdir -p "$folder/$module"
    CGO_ENABLED=0 nice "$go" build -mod=readonly -buildvcs=false -trimpath -ldflags "$linked" -o "$folder/$module/" "${packages[@]}"
    if [ "$module" = kubernetes ]; then
        for program in kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl kubelet; do
            ln -sf kubernetes "$folder/$module/$program"
        done
    fi
done
