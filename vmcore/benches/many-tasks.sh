#!/bin/sh
# How much longer `kdt triage` takes for a dump with many tasks than for one with few.
#
#   vmcore/benches/many-tasks.sh FEW MANY [RUNS]
#
# By turns, with a warm page cache. Least and median wall time of RUNS (25), as text and as JSON.
# `kdt-drill lab make --kernel 6.1 --recipe kdump-zstd --recipe many-tasks -o DIR` makes two such dumps of one kernel.
#   KDT   the built program (else a release build is made)
set -eu
[ $# -ge 2 ] || {
	sed -n '2,8s/^# \{0,1\}//p' "$0"
	exit 2
}
few=$(realpath "$1") many=$(realpath "$2") runs=${3:-25}
cd "$(dirname "$0")/../.."
if [ -z "${KDT:-}" ]; then
	cargo build --release -q -p kdump-tools --bin kdt
	KDT=${CARGO_TARGET_DIR:-target}/release/kdt
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
turn=-1
while [ "$turn" -lt "$runs" ]; do
	for format in human json; do
		for which in few many; do
			[ "$which" = few ] && dump=$few || dump=$many
			start=$(date +%s%N)
			"$KDT" triage --format "$format" "$dump" >/dev/null 2>&1
			end=$(date +%s%N)
			# The first turn fills the page cache.
			[ "$turn" -lt 0 ] || echo $((end - start)) >>"$work/$format.$which"
		done
	done
	turn=$((turn + 1))
done
figures() { # FILE: least and median in ms
	sort -n "$1" | awk '{ t[NR] = $1 / 1e6 } END { print t[1], t[int((NR + 1) / 2)] }'
}
echo "$runs runs by turns, $(nproc) CPUs, load $(cut -d ' ' -f 1-3 /proc/loadavg)"
printf '%-8s %18s %18s %8s %8s\n' '' 'few: least, median' 'many: least, median' 'least ×' 'median ×'
for format in human json; do
	echo "$(figures "$work/$format.few") $(figures "$work/$format.many")" |
		awk -v name="$format" '{ printf "%-8s %8.0f ms %5.0f ms %9.0f ms %5.0f ms %8.2f %8.2f\n", name, $1, $2, $3, $4, $3 / $1, $4 / $2 }'
done
