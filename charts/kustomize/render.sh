#!/usr/bin/env bash
# Makes the files of these bases and components from the chart: `charts/kustomize/render.sh [FOLDER]`, with helm 3.18 or
# newer. What is written by hand here (`kustomization.yaml`, `values.yaml`, `namespace.yaml`) is left alone.
set -euo pipefail
here="$(dirname "$(realpath "$0")")"
folder="${1:-$here}"
helm="${HARBORHOOK_HELM:-helm}"

# Renders with the values of a folder; further arguments are helm's. What only helm reads goes.
render() {
    echo "# Made from charts/harborhook by charts/kustomize/render.sh."
    "$helm" template harborhook "$here/../harborhook" --namespace harborhook --values "$here/$1/values.yaml" "${@:2}" |
        sed -e '/^ *helm\.sh\/chart:/d' -e '/^ *app\.kubernetes\.io\/managed-by:/d' -e '/^# Source:/d'
}

for base in embedded distributed; do
    mkdir -p "$folder/$base"
    render "$base" >"$folder/$base/harborhook.yaml"
done
for component in tenant-watch tenant-secrets; do
    mkdir -p "$folder/components/$component"
    render "components/$component" --show-only templates/rbac-tenants.yaml >"$folder/components/$component/role.yaml"
done
