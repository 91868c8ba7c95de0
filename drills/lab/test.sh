#!/bin/sh
# All tests, on a machine with only Rust and apt: installs what they need, then runs them. A test that cannot
# have what it needs fails here, instead of being skipped.
set -eu
cd "$(dirname "$0")/../.."
started=$(date +%s)
echo "test: what the tests need"
sh drills/lab/setup.sh
echo "test: all crates"
KDT_REQUIRE_LAB=1 cargo test --workspace "$@"
echo "test: all passed in $(($(date +%s) - started)) s"
