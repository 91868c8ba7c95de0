#!/bin/sh
# kdt beside makedumpfile on dumps of growing size: time, and the most memory held. Give real dumps as arguments, or none:
# then ELF vmcores of 4 and 16 GiB are made, which take a few hundred KiB on disk.
#   vmcore/benches/side-by-side.sh [DUMP…]
set -eu
cd "$(dirname "$0")/../.."
cargo build --release -q -p kdump-tools --bin kdt
kdt=${CARGO_TARGET_DIR:-target}/release/kdt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ $# -eq 0 ]; then
    for size in 4 16; do
        cargo run -q -p fixtures --example big $size "$work/$size-gib.elf"
    done
    set -- "$work/4-gib.elf" "$work/16-gib.elf"
fi

# Best of five, so that the page cache is warm for both. Memory is GNU time's (apt-get install time): a process started
# by Python would inherit the high-water mark of Python itself.
measure() {
    name=$1
    shift
    rm -f "$work/dmesg.out"
    held=$(/usr/bin/time -f %M -o /dev/fd/3 "$@" 3>&1 >/dev/null 2>/dev/null | tail -n 1) || held=0
    python3 - "$name" "${held:-0}" "$@" <<'PYTHON'
import os, subprocess, sys, time
name, held, command = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
best = None
for _ in range(5):
    for argument in command:
        if argument.endswith("dmesg.out") and os.path.exists(argument):
            os.unlink(argument)
    start = time.monotonic()
    code = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
    best = min(best or 1e9, time.monotonic() - start)
print(f"  {name:28} {best * 1000:8.1f} ms {held / 1024:8.1f} MiB   exit {code}")
PYTHON
}

for dump in "$@"; do
    echo "$(basename "$dump"): $(stat -c %s "$dump") bytes"
    measure "kdt info" "$kdt" info "$dump"
    measure "kdt log" "$kdt" log "$dump"
    if command -v makedumpfile >/dev/null; then
        measure "makedumpfile --dump-dmesg" makedumpfile --dump-dmesg "$dump" "$work/dmesg.out"
    else
        echo "  SKIP makedumpfile: not installed"
    fi
done
