#!/bin/sh
# How much two CPUs help with several dumps: kdt triage of all of them, one after the other and beside each other, by turns.
#   vmcore/benches/several.sh DUMP…        # ten different ones; fixtures/data/failures has them
# Best of RUNS (5). KDT is the built program (else a release build is made).
set -eu
[ $# -ge 2 ] || {
	echo "usage: several.sh DUMP DUMP…" >&2
	exit 2
}
if [ -z "${KDT:-}" ]; then
	(cd "$(dirname "$0")/../.." && cargo build --release -q -p kdump-tools --bin kdt)
	KDT=$(dirname "$0")/../../${CARGO_TARGET_DIR:-target}/release/kdt
fi
one=999999999 two=999999999
for _ in $(seq "${RUNS:-5}"); do
	for jobs in 1 2; do
		began=$(date +%s%N)
		"$KDT" -q triage --jobs "$jobs" "$@" >/dev/null
		took=$((($(date +%s%N) - began) / 1000000))
		if [ "$jobs" = 1 ]; then
			[ "$took" -ge "$one" ] || one=$took
		else
			[ "$took" -ge "$two" ] || two=$took
		fi
	done
done
echo "$# dumps: one after the other $one ms, two at a time $two ms, $(awk "BEGIN { printf \"%.2f\", $one / $two }") times as fast"
