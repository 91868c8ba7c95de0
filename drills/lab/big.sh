#!/bin/sh
# /proc/vmcore of a guest whose memory is full of what memory is full of: for figures, not for tests. What fills it is
# this machine's /usr: anonymous memory of a process, page cache of a disk, files of a tmpfs, pages that were freed with
# their content still in them; about a third was never touched, and is zeros.
#
#   cargo run -p drills -- lab make --recipe kdump-vmcore -o /tmp/dumps      # once: the lab's cache has kernel and guest then
#   sh drills/lab/big.sh OUT.vmcore [MIB]
#
# MIB is the guest's memory, 4352 if it is not given, which is an ELF of just over 4 GiB. Under TCG it takes some minutes.
set -eu

[ $# -ge 1 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2; }
out=$1
memory=${2:-4352}
cache=${KDT_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kdt-lab}
# An image has the modules of one kernel.
for kernel in $(find "$cache/kernels" -name 'vmlinuz-6.1*' 2>/dev/null); do
	image=$(grep -la "vermagic=${kernel##*/vmlinuz-} " "$cache"/images/*/initramfs 2>/dev/null | head -n 1)
	[ -z "$image" ] || break
done
[ -n "${image:-}" ] || {
	echo "error: the lab's cache has no guest yet: kdt-drill lab make --recipe kdump-vmcore" >&2
	exit 3
}
work=$(mktemp -d "${TMPDIR:-/tmp}/kdt-big.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
unit=$((memory / 16))

# A process that reads a part of the disk past the page cache, and stays.
cat >"$work/hold.c" <<'C'
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	size_t len = strtoul(argv[3], 0, 0) << 20, got = 0;
	int disk = open(argv[1], O_RDONLY | O_DIRECT);
	char *memory = mmap(0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (argc < 4 || disk < 0 || memory == MAP_FAILED || lseek(disk, strtoul(argv[2], 0, 0) << 20, SEEK_SET) < 0)
		return 1;
	while (got < len) {
		ssize_t now = read(disk, memory + got, len - got < 1 << 20 ? len - got : 1 << 20);
		if (now <= 0)
			return 1;
		got += now;
	}
	puts("lab: held");
	fflush(stdout);
	pause();
	return 0;
}
C
mkdir "$work/root"
gcc -static -Os -s -o "$work/root/hold" "$work/hold.c"
cat >"$work/root/fill.sh" <<SH
fill=\$(disk fill)
for part in 0 1 2 3; do
	/hold "\$fill" \$((part * $unit)) $unit >/tmp/held.\$part &
done
for part in 0 1 2 3; do until grep -q held /tmp/held.\$part; do sleep 1; done; done
dd if="\$fill" of=/dev/null bs=1M skip=\$((4 * $unit)) count=\$((3 * $unit))
mount -t tmpfs -o size=90% tmpfs /mnt
dd if="\$fill" of=/mnt/stays bs=1M skip=\$((7 * $unit)) count=\$((unit = $unit)) iflag=direct
dd if="\$fill" of=/mnt/goes bs=1M skip=\$((8 * $unit)) count=\$((2 * $unit)) iflag=direct
rm /mnt/goes
cat /proc/meminfo
SH
init=$(cd "$(dirname "$0")" && pwd)/init
# shellcheck disable=SC2016 # the words are the guest's
sed '/^case \$(order do) in/i . /fill.sh' "$init" >"$work/root/init"
chmod +x "$work/root/init"
{
	cat "$image"
	(cd "$work/root" && printf 'init\nfill.sh\nhold\n' | cpio -o -H newc --quiet)
} >"$work/initramfs"
(tar -C / -cf - usr/bin usr/lib usr/share usr/local 2>/dev/null || true) | head -c "$((10 * unit))M" >"$work/fill"
truncate -s "$((10 * unit))M" "$work/fill"
truncate -s "$((memory + 64))M" "$work/vmcore"

drive() { # SERIAL FILE ro|rw
	echo "-drive id=$1,file=$2,if=none,format=raw,cache=unsafe,readonly=$([ "$3" = ro ] && echo on || echo off)" \
		"-device virtio-blk-pci,drive=$1,serial=$1"
}
echo "big: the guest runs; its console is $out.console" >&2
# shellcheck disable=SC2046 # each word is an argument
timeout 1500 qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -accel tcg -cpu max \
	-m "${memory}M" -smp 2 -kernel "$kernel" -initrd "$work/initramfs" -serial "file:$out.console" \
	-append "console=ttyS0 no_timer_check panic=-1 crashkernel=128M lab.do=kdump lab.mark=big lab.trigger=sysrq lab.makedumpfile=-l,-d,31" \
	$(drive boot "${image%/*}/boot" ro) $(drive fill "$work/fill" ro) $(drive vmcore "$work/vmcore" rw)
grep -q 'lab: copy ends with 0' "$out.console" || {
	echo "error: the guest ended before its memory was copied: see $out.console" >&2
	exit 1
}
# The copy is the beginning of its disk: the last segment's end is the file's.
len=$(LC_ALL=C readelf -lW "$work/vmcore" | awk '/^  (LOAD|NOTE)/ { print $2, $5 }' |
	while read -r at size; do echo $((at + size)); done | sort -n | tail -n 1)
truncate -s "$len" "$work/vmcore"
mv "$work/vmcore" "$out"
