#!/bin/sh
# Runs the OCI distribution conformance suite against the registry on loopback.
# Needs Go 1.24 or later and the Go module proxy; without Go it says so and leaves with status 0.
# A first argument names an `oci-distribution conformance` program that is built already.
set -eu

# A commit, not a branch: the same suite every time.
suite=github.com/opencontainers/distribution-spec/conformance@v0.0.0-20260831232431-97274622c111

here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
server=
trap 'test -z "$server" || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT INT TERM

program=${1:-}
if [ -z "$program" ]; then
    command -v go >/dev/null || { echo "skipped: the conformance suite needs Go"; exit 0; }
    GOBIN=$work go install -buildvcs=false "$suite"
    program=$work/conformance
fi

cd "$here"
cargo build --quiet --example serve
"${CARGO_TARGET_DIR:-$here/../target}/debug/examples/serve" "$work/registry" >"$work/address" &
server=$!
tries=0
while [ ! -s "$work/address" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || { echo "the registry did not start"; exit 1; }
    sleep 0.1
done

# sha512 is optional in the specification, and neap's digests are sha256 only. Mounting without naming the
# source repository is optional too; it would tell one tenant what others have.
cd "$work"
OCI_REGISTRY=$(cat "$work/address") OCI_TLS=disabled OCI_REPO1=team/one OCI_REPO2=team/two OCI_VERSION=1.1 \
    OCI_API_BLOBS_DIGEST_HEADER=true OCI_API_MANIFESTS_DIGEST_HEADER=true OCI_API_BLOBS_UPLOAD_CANCEL=true \
    OCI_API_BLOBS_MOUNT_ANONYMOUS=false OCI_DATA_SHA512=false OCI_DATA_SPARSE="${OCI_DATA_SPARSE:-false}" "$program"
