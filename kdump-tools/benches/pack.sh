#!/bin/sh
# How fast `kdt pack` is against `zstd -T0 | split` with `sha256sum` after it, side by side on the same files.
#
#   kdump-tools/benches/pack.sh FILE [PART_SIZE_MIB]
#
# Needs zstd, split, sha256sum, and GNU time as /usr/bin/time (apt-get install zstd time). Each way runs three times,
# in turn; the best of each counts. KDT names another kdt than target/release/kdt.
set -eu
file=${1:?"usage: $0 FILE [PART_SIZE_MIB]"}
mib=${2:-64}
here=$(cd "$(dirname "$0")/../.." && pwd)
kdt=${KDT:-$here/target/release/kdt}
work=$(mktemp -d "${TMPDIR:-/tmp}/kdt-bench.XXXXXX")
trap 'rm -rf "$work"' EXIT
cat "$file" > /dev/null # both find it in the page cache

timed() { # name: seconds, CPU, peak memory
    /usr/bin/time -o "$work/time" -f '%e s elapsed  %U s user  %S s system  %M KiB at most' env WORK="$work" sh -c "$2"
    printf '%-36s %s\n' "$1" "$(cat "$work/time")"
}
export file mib work kdt
for turn in 1 2 3; do
    rm -rf "$work/peer" "$work/ours"
    timed "zstd -3 -T0 | split; sha256sum" 'mkdir "$work/peer"; zstd -q -3 -T0 -c "$file" | split -b "${mib}M" -d -a 4 - "$work/peer/part-"; cd "$work/peer" && sha256sum part-* > SHA256SUMS'
    timed "kdt pack" '"$kdt" pack -q "$file" -o "$work/ours" --case bench --part-size "${mib}MiB" > /dev/null'
done
echo "sizes: $(du -bc "$work"/peer/part-* | tail -1 | cut -f1) bytes by zstd, $(du -bc "$work"/ours/bench.part-* | tail -1 | cut -f1) bytes by kdt"
