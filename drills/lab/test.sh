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

# For capture kernels, whose memory is small: the built program without what only debuggers read.
if [ -z "${KDT_LAB_KDT:-}" ]; then
	cargo build --workspace --locked
	KDT_LAB_KDT=${CARGO_TARGET_DIR:-target}/kdt-small
	strip -o "$KDT_LAB_KDT" "${CARGO_TARGET_DIR:-target}/debug/kdt"
	KDT_LAB_KDT=$(realpath "$KDT_LAB_KDT")
	export KDT_LAB_KDT
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
# A crash in an interrupt, whose stack is that of a CPU.
"$lab" lab make --kernel 6.1 --recipe soft-lockup -o "$dumps"
# What kdt itself collects in a capture kernel.
"$lab" lab make --kernel 6.1 --recipe kdump-kdt --recipe kdump-kdt-flattened \
	--recipe kdump-kdt-makedumpfile -o "$dumps"
# The debuginfo of one kernel, for the peers that can't do without: what kdt reads from the dump alone has to be the same.
# Where the mirror can't be reached (any more), the check that needs it is skipped, by name.
kdt=${CARGO_TARGET_DIR:-target}/debug/kdt
release=$("$kdt" info --format json "$dumps"/6.1-kdump-zlib.* | sed -n 's/.*"release": *"\([^"]*\)".*/\1/p' | head -n 1)
debug=$cache/debug
if [ -n "$release" ] && [ ! -e "$debug/$release" ]; then
	echo "test: taking the debuginfo of $release"
	rm -rf "$debug"
	mkdir -p "$debug"
	if (cd "$debug" && apt-get -q download "linux-image-$release-dbg" >/dev/null 2>&1 && dpkg-deb -x ./*.deb .); then
		: >"$debug/$release"
	else
		echo "test: it can't be had, what needs it is skipped"
	fi
	rm -f "$debug"/*.deb
fi
if [ -e "$debug/$release" ]; then
	KDT_FOREIGN_DEBUG=$debug
	export KDT_FOREIGN_DEBUG
	# The newest crash, where the mirror has it.
	if sh drills/lab/peers.sh versions >/dev/null 2>&1; then
		KDT_FOREIGN_CRASH_COMMAND="sh drills/lab/peers.sh crash"
		KDT_FOREIGN_MAKEDUMPFILE_COMMAND="sh drills/lab/peers.sh makedumpfile"
		export KDT_FOREIGN_CRASH_COMMAND KDT_FOREIGN_MAKEDUMPFILE_COMMAND
	fi
fi
# A guest with something to hide.
"$lab" lab make --kernel 6.1 --recipe secrets -o "$dumps/secrets"
KDT_LAB_SECRETS=$dumps/secrets cargo test --workspace --locked --test cli scrub:: -- --nocapture
KDT_FOREIGN_DUMPS=$dumps cargo test --workspace --locked --test foreign -- --nocapture

echo "test: all passed in $(($(date +%s) - started)) s"
