#!/usr/bin/env bash
# Runs every check and every test. Installs what they need beside Rust: a C compiler for the bundled SQLite and
# the TLS library, and npm for the payloads of the end-to-end test. Nothing else must be there.
set -euo pipefail
cd "$(dirname "$0")/.."

# Names of Debian packages whose command is missing.
missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v cmake >/dev/null || missing+=(cmake make)
command -v npm >/dev/null || missing+=(npm)
if [ "${#missing[@]}" -gt 0 ]; then
    if command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
        apt-get update --quiet
        DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends "${missing[@]}"
    else
        echo "not installed: ${missing[*]} (needs root and apt-get); tests that need them say that they were skipped" >&2
    fi
fi

cargo fmt --all --check
cargo clippy --workspace --all-targets --locked -- --deny warnings
cargo test --workspace --locked
