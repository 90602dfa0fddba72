#!/usr/bin/env bash
# Runs every check and every test. Installs what they need beside Rust: a C compiler for the bundled SQLite and
# the TLS library, npm for the payloads of the end-to-end test, and what PostgreSQL, RabbitMQ and Kubernetes are made
# with. Go, where it is missing or too old, is fetched by e2e/cluster/go.sh.
# Servers that run already are used instead when HARBORHOOK_TEST_DATABASE_URL, HARBORHOOK_TEST_AMQP_URL and
# HARBORHOOK_E2E_KUBECONFIG name them.
set -euo pipefail
cd "$(dirname "$0")/.."

# Debian packages whose command is missing.
missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v cmake >/dev/null || missing+=(cmake make)
command -v npm >/dev/null || missing+=(npm)
command -v unshare >/dev/null || missing+=(util-linux)
command -v mmdebstrap >/dev/null || missing+=(mmdebstrap debian-archive-keyring)
command -v strip >/dev/null || missing+=(binutils)
command -v ip >/dev/null || missing+=(iproute2)
command -v nft >/dev/null || missing+=(nftables)
for program in containerd runc buildah iptables; do
    command -v "$program" >/dev/null || missing+=("$program")
done
[ -e /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)
if [ "${#missing[@]}" -gt 0 ]; then
    if command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
        apt-get update --quiet
        DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends "${missing[@]}"
    else
        echo "not installed: ${missing[*]} (needs root and apt-get); tests that need them say that they were skipped" >&2
    fi
fi
# As root nothing may be skipped: the servers can be made.
if [ "$(id -u)" -eq 0 ]; then
    export HARBORHOOK_REQUIRE_SERVERS="${HARBORHOOK_REQUIRE_SERVERS:-1}"
fi

cargo fmt --all --check

# The first time on a machine, Kubernetes compiles beside cargo. What the test bed builds afterwards is only linked.
report="$(mktemp)"
warmed="$(mktemp --directory)"
compiling=
trap 'if [ -n "$compiling" ]; then kill -- "-$compiling" 2>/dev/null || true; fi; rm -rf "$report" "$warmed"' EXIT
built="${XDG_CACHE_HOME:-$HOME/.cache}/harborhook/go-kubernetes-"
if [ -z "${HARBORHOOK_E2E_KUBECONFIG:-}" ] && command -v mmdebstrap >/dev/null && ! compgen -G "$built*/kubelet" >/dev/null; then
    # In a group of its own, which ends as one.
    setsid bash e2e/cluster/build.sh "$warmed" kubernetes etcd tools gitops >/dev/null &
    compiling=$!
fi

cargo clippy --workspace --all-targets --locked -- --deny warnings
cargo test --workspace --locked --no-run
# The binaries that were just built: cargo would build them once more with other features.
HARBORHOOK_BINARIES="$(realpath "${CARGO_TARGET_DIR:-target}")/debug"
export HARBORHOOK_BINARIES
if [ -n "$compiling" ]; then
    # Whatever went wrong there goes wrong again where it is reported.
    wait "$compiling" || true
    compiling=
fi
status=0
"$HARBORHOOK_BINARIES/testbed" run cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$report" || status=$?
# One closing line for all test binaries.
awk '/^test result: / { passed += $4; failed += $6; ignored += $8 }
     END { print passed " passed, " failed " failed, " ignored " skipped" }' "$report"
exit "$status"
