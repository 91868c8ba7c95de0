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

# Best of five, so that the page cache is warm for both; memory of the last run.
measure() {
    name=$1
    shift
    python3 - "$name" "$@" <<'PYTHON'
import os, subprocess, sys, time
name, command = sys.argv[1], sys.argv[2:]
best, held, code = None, 0, 0
for _ in range(5):
    for argument in command:
        if argument.endswith("dmesg.out") and os.path.exists(argument):
            os.unlink(argument)
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    took = time.monotonic() - start
    process.returncode = code = os.waitstatus_to_exitcode(status)
    best, held = min(best or took, took), max(held, usage.ru_maxrss)
print(f"  {name:34} {best * 1000:8.1f} ms {held / 1024:8.1f} MiB   exit {code}")
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
