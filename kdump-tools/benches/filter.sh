#!/bin/sh
# How fast `kdt filter` is beside makedumpfile on one vmcore, in each codec, at levels 1 and 31.
#
#   kdump-tools/benches/filter.sh DUMP [RUNS]
#
# By turns, and with a warm page cache. Wall time is the best of RUNS (3), CPU time (user and system) the least, memory the most.
# kdt's time includes decoding and comparing each page, the SHA-256 of the output and the sync to the disk, none of which makedumpfile
# does; a second line is kdt without the first of these. «×» is makedumpfile's figure in kdt's. Each time
# makedumpfile reads the kernel log of both outputs, and it has to be the same.
#   KDT                the built program (else a release build is made)
#   MAKEDUMPFILE       makedumpfile, with its arguments (else drills/lab/peers.sh); `--num-threads` is worth a try with many CPUs
#   KDT_BENCH_OUT      where the outputs go (else a folder in TMPDIR); on a tmpfs no disk is measured
#   CODECS, LEVELS     «c l z p» and «1 31» if not given
# Needs GNU time as /usr/bin/time (apt-get install time).
set -eu
[ $# -ge 1 ] || {
	sed -n '2,14s/^# \{0,1\}//p' "$0"
	exit 2
}
dump=$(realpath "$1") runs=${2:-3}
cd "$(dirname "$0")/../.."
if [ -z "${KDT:-}" ]; then
	cargo build --release -q -p kdump-tools --bin kdt
	KDT=${CARGO_TARGET_DIR:-target}/release/kdt
fi
peer=${MAKEDUMPFILE:-sh drills/lab/peers.sh makedumpfile}
work=$(mktemp -d "${KDT_BENCH_OUT:-${TMPDIR:-/tmp}}/kdt-bench.XXXXXX")
trap 'rm -rf "$work"' EXIT
cat "$dump" >/dev/null

timed() { # NAME COMMAND…
	name=$1
	shift
	/usr/bin/time -q -a -o "$work/$name.times" -f '%e %U %S %M' "$@" >"$work/said" 2>&1 || {
		echo "error: $* ends badly:" >&2
		cat "$work/said" >&2
		exit 1
	}
}

# The best of a file of times: wall, CPU, memory.
best() {
	awk 'NR == 1 || $1 < wall { wall = $1 } NR == 1 || $2 + $3 < cpu { cpu = $2 + $3 } $4 > most { most = $4 }
		END { printf "%.2f %.2f %.1f", wall, cpu, most / 1024 }' "$1"
}

echo "$(basename "$dump"): $(($(wc -c <"$dump") >> 20)) MiB, best of $runs, $(nproc) CPUs, load $(cut -d ' ' -f 1-3 /proc/loadavg)"
printf '%-24s %9s %7s %9s %7s %11s %15s %8s\n' '' wall '×' CPU '×' memory size 'of peer'
for level in ${LEVELS:-1 31}; do
	for codec in ${CODECS:-c l z p}; do
		rm -f "$work"/*.times
		turn=0
		while [ "$turn" -lt "$runs" ]; do
			rm -f "$work"/*.out*
			# shellcheck disable=SC2086 # each word is an argument
			timed peer $peer --message-level 0 "-$codec" -d "$level" "$dump" "$work/peer.out"
			timed kdt "$KDT" -q filter "-$codec" -d "$level" "$dump" "$work/kdt.out"
			timed bare "$KDT" -q filter --no-verify "-$codec" -d "$level" "$dump" "$work/bare.out"
			turn=$((turn + 1))
		done
		size=$(wc -c <"$work/peer.out")
		for who in peer kdt bare; do
			case $who in
			peer) label="makedumpfile" ;;
			kdt) label="kdt filter" ;;
			*) label="  --no-verify" ;;
			esac
			echo "$label -$codec -d $level|$(best "$work/peer.times") $(best "$work/$who.times") $(wc -c <"$work/$who.out") $size" |
				awk -F '|' '{ split($2, n, " "); printf "%-24s %7.2f s %6.2fx %7.2f s %6.2fx %7.1f MiB %15d %7.3f\n",
					$1, n[4], n[1] / (n[4] + 1e-9), n[5], n[2] / (n[5] + 1e-9), n[6], n[7], n[7] / n[8] }'
		done
		# What is not read back is no result.
		for who in peer kdt; do
			# shellcheck disable=SC2086
			$peer --message-level 0 --dump-dmesg "$work/$who.out" "$work/$who.log" >/dev/null
		done
		cmp -s "$work/peer.log" "$work/kdt.log" || echo "error: makedumpfile reads another kernel log in kdt's output"
		rm -f "$work"/*.log
	done
done
