#!/bin/sh
# A `kdt` that needs nothing of the machine it runs on: for the initramfs of a capture kernel, and for old or foreign distributions.
#
#   sh drills/lab/static.sh [OUT]          # OUT is target/kdt-static where it is not given
#
# With musl where rustup and the machine have it (rustup target add x86_64-unknown-linux-musl; apt-get install musl-tools),
# else with the C library of this machine, linked in.
set -eu
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
out=${1:-$target/kdt-static}

musl=x86_64-unknown-linux-musl
has_musl() {
	command -v musl-gcc >/dev/null 2>&1 || return 1
	command -v rustup >/dev/null 2>&1 && rustup target add "$musl" >/dev/null 2>&1
	[ -d "$(rustc --print sysroot)/lib/rustlib/$musl" ]
}
if has_musl; then
	triple=$musl
	CC_x86_64_unknown_linux_musl=musl-gcc
	export CC_x86_64_unknown_linux_musl
else
	# A target that is named keeps the flag away from what runs while building.
	triple=x86_64-unknown-linux-gnu
	RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static"
	export RUSTFLAGS
fi
cargo build --release --quiet --locked --target "$triple" -p kdump-tools
cp "$target/$triple/release/kdt" "$out.new"
# Not by a profile of its own, which would build all crates once more.
strip "$out.new" 2>/dev/null || true
if ldd "$out.new" >/dev/null 2>&1 && ldd "$out.new" 2>&1 | grep -q '=>'; then
	echo "error: $out.new still needs libraries of this machine" >&2
	exit 1
fi
mv "$out.new" "$out"
echo "$out: $(stat -c %s "$out") bytes, $triple"
