#!/bin/sh
# All tests, on a machine with only Rust and apt: installs what they need, then runs them. A test that cannot
# have what it needs fails here, instead of being skipped.
set -eu
cd "$(dirname "$0")/../.."
started=$(date +%s)
cache=${KDT_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kdt-lab}

echo "test: what the tests need"
sh drills/lab/setup.sh
# drgn, with libkdumpfile in it, is on PyPI only. Where that can't be reached its checks are skipped, by name.
drgn=$cache/drgn/bin/python3
if [ ! -x "$drgn" ] || ! "$drgn" -c 'import drgn' 2>/dev/null; then
	rm -rf "$cache/drgn"
	mkdir -p "$cache"
	{ python3 -m venv "$cache/drgn" && "$cache/drgn/bin/pip" install --quiet drgn; } ||
		echo "test: drgn can't be installed, what compares with it is skipped"
fi
if [ -x "$drgn" ]; then
	KDT_FOREIGN_PYTHON=$drgn
	export KDT_FOREIGN_PYTHON
fi

echo "test: all crates"
KDT_REQUIRE_LAB=1 cargo test --workspace --locked "$@"

# The lab's dumps, from the crashes that the tests above have left in the cache: no guest is booted again.
echo "test: the lab's dumps, as kdt and its peers read them"
dumps=$(mktemp -d "${TMPDIR:-/tmp}/kdt-dumps.XXXXXX")
trap 'rm -rf "$dumps"' EXIT
recipes="--recipe kdump-flattened --recipe kdump-lzo --recipe kdump-zlib --recipe kdump-zstd --recipe kdump-elf --recipe kdump-vmcore"
# The built programs, and --workspace again: another selection of crates would build them all anew.
lab=${CARGO_TARGET_DIR:-target}/debug/kdt-drill
for kernel in 6.1 6.12; do
	# shellcheck disable=SC2086 # each word of $recipes is one argument
	"$lab" lab make --kernel "$kernel" $recipes -o "$dumps"
done
"$lab" lab make --kernel 6.1 --recipe host-elf --recipe host-kdump-zlib --recipe host-elf-no-vmcoreinfo \
	--recipe host-kdump-zlib-no-vmcoreinfo -o "$dumps"
KDT_FOREIGN_DUMPS=$dumps cargo test --workspace --locked --test foreign -- --nocapture

echo "test: all passed in $(($(date +%s) - started)) s"
