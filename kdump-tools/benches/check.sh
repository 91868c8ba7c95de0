#!/bin/sh
# How many pages `kdt check` decodes in a second, without and with the digest of all pages.
#
#   kdump-tools/benches/check.sh DUMP [RUNS]
#
# Best of RUNS (3), with a warm page cache. KDT names another kdt than target/release/kdt. Needs GNU time and python3.
set -eu
dump=${1:?"usage: $0 DUMP [RUNS]"}
runs=${2:-3}
here=$(cd "$(dirname "$0")/../.." && pwd)
kdt=${KDT:-$here/target/release/kdt}
times=$(mktemp)
trap 'rm -f "$times"' EXIT
cat "$dump" >/dev/null
pages=$("$kdt" check --format json "$dump" | python3 -c 'import json, sys; print(json.load(sys.stdin)["pages"]["decoded"])')
for how in "" --digest; do
	: >"$times"
	for _ in $(seq "$runs"); do
		# shellcheck disable=SC2086 # none or one word
		/usr/bin/time -q -a -o "$times" -f '%e %U %S %M' "$kdt" -q check $how "$dump" >/dev/null
	done
	awk -v pages="$pages" -v how="kdt check $how" 'NR == 1 || $1 < wall { wall = $1 } NR == 1 || $2 + $3 < cpu { cpu = $2 + $3 } $4 > most { most = $4 }
		END { gb = pages * 4096 / 1e9; printf "%-20s %.2f GB of pages, %.2f s wall (%.2f GB/s), %.2f s CPU (%.2f GB/s for one core), %.1f MiB\n",
			how, gb, wall, gb / wall, cpu, gb / cpu, most / 1024 }' "$times"
done
