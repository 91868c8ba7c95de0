#!/bin/sh
# Makes the small real dumps in fixtures/data/failures again: one of each failure that the lab can make, and a healthy guest's, distilled.
# They are of 6.1, but for those whose name begins with another kernel or flavour.
# A new dump is another crash: addresses, times and pids differ, what it shows must not. Takes some 15 minutes.
#
#   drills/lab/fixtures.sh [NAME…]
set -eu
cd "$(dirname "$0")/../.."
out=fixtures/data/failures
bin=${CARGO_TARGET_DIR:-target}/debug
all="sysrq null-deref bug warn divide general-protection soft-lockup hard-lockup rcu-stall mutex-abba mutex-held kdump-oom
	stack-overflow slab-leak frozen healthy host-hung dm-suspended multipath md-degraded host-io-stuck waits ipi earlier 6.12-mce
	null-call lock-twice module-exit cgroup-oom net rt-waits"
cargo build --quiet --workspace
work=$(mktemp -d "${TMPDIR:-/tmp}/kdt-fixtures.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"

for name in ${*:-$all}; do
	kernel=6.1
	case $name in
	6.12-*) kernel=6.12 name=${name#6.12-} recipe=$name ;;
	rt-*) kernel=6.1-rt name=${name#rt-} recipe=$name ;;
	sysrq) recipe=kdump-zstd ;;
	healthy) recipe=host-running-elf ;;
	host-hung) recipe=host-hung-elf ;;
	host-io-stuck) recipe=host-io-stuck-elf ;;
	*) recipe=$name ;;
	esac
	"$bin/kdt-drill" lab make --kernel "$kernel" --recipe "$recipe" -o "$work"
	for dump in "$work/$kernel-$recipe".*; do
		case $dump in *.console | *.dmesg) continue ;; esac
		# The end of the trace as the guest itself read it, in the same order as kdt is to.
		[ "$name" = earlier ] && tr -d '\r' <"$work/$kernel-$recipe.console" |
			sed -n '/^lab: the trace ends/,/sysrq/{/ \[[0-9][0-9]*\] .*: /p}' >"$out/$kernel-$name.trace"
		# What a guest's host dumps has all memory: what is not the kernel's goes first.
		"$bin/kdt" -q filter -z -d 31 "$dump" "$work/filtered"
		"$bin/kdt" -q distill -f --level minimal "$work/filtered" "$out/$kernel-$name.kdump"
		rm -f "$out/$kernel-$name.kdump.sha256" "$work"/filtered* "$dump"
	done
done
(cd "$out" && sha256sum ./*.kdump >SHA256SUMS)
ls -l "$out"
