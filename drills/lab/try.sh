#!/bin/sh
# The main job on the real crash that comes with the sources, from nothing: a linker where there is none, the
# build, then what an admin would type on the night, and what the support center would type the day after.
set -eu
cd "$(dirname "$0")/../.."
dump=fixtures/data/panic-6.1.kdump
out=${1:-$(mktemp -d /tmp/kdt-try.XXXXXX)}

# cargo needs a linker, and the zstd library a C compiler.
if ! command -v cc >/dev/null 2>&1; then
	as_root=
	[ "$(id -u)" = 0 ] || as_root=sudo
	echo "try: installing gcc"
	$as_root apt-get -q update
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install gcc libc6-dev
fi
if ! command -v cargo >/dev/null 2>&1; then
	echo "error: there is no cargo in PATH" >&2
	echo "hint: install Rust (rustup, or apt-get install cargo of a release that has 1.95)" >&2
	exit 3
fi

echo "try: building kdt (some minutes the first time)"
cargo build --release --quiet --locked -p kdump-tools
kdt=${CARGO_TARGET_DIR:-target}/release/kdt

# Exit code 4 says «done in part»: a host collection often names something it could not have. That is no failure here.
run() {
	echo
	echo "\$ kdt $*"
	code=0
	"$kdt" "$@" || code=$?
	case $code in 0 | 4) ;; *) exit "$code" ;; esac
}
run escalate --case try --dump "$dump" -o "$out/outbox" --part-size 8MiB --send "file:$out/inbox"
run verify "$out/inbox"
run unpack "$out/inbox" -o "$out/received"
echo
find "$out/received" -name "$(basename "$dump")" -exec cmp "$dump" {} \; -print | grep -q . || {
	echo "error: the vmcore that came out is not the one that went in" >&2
	exit 5
}
echo "try: the vmcore came out as it went in. All of it is in $out"
