#!/usr/bin/env bash
# Builds the programs of Go modules of this folder: `build.sh FOLDER MODULE…` leaves those of MODULE in FOLDER/MODULE.
# A module is described by its go.mod alone: its own main packages are built, and those that it names as tools.
set -euo pipefail
shopt -s inherit_errexit
modules="$(dirname "$(realpath "$0")")"
folder="$(realpath "$1")"
shift

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
    CGO_ENABLED=0 nice bash "$modules/go.sh" build -mod=readonly -buildvcs=false -trimpath -ldflags "$linked" -o "$folder/$module/" "${packages[@]}"
    if [ "$module" = kubernetes ]; then
        for program in kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl kubelet; do
            ln -sf kubernetes "$folder/$module/$program"
        done
    fi
done
