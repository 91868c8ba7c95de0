#!/bin/sh
# How long the first answer takes: kdt, drgn and crash on one dump, each with the log, all tasks, all stacks and the modules.
#   vmcore/benches/first-answer.sh DUMP VMLINUX [RUNS]
# kdt is given the dump alone, the others the debuginfo that they cannot do without. Wall time is the best of RUNS (5), by turns and
# with a warm page cache; user and system time are of that run; memory is the most that any run held. What each
# prints is counted, so that nothing is measured that has not answered.
#   KDT            the built program (else a release build is made)
#   DRGN_PYTHON    a Python that has drgn (else the lab's, else python3)
#   CRASH          crash, with its arguments (else drills/lab/peers.sh)
# Needs GNU time (apt-get install time): a process started by Python would inherit the high-water mark of Python itself.
set -eu
[ $# -ge 2 ] || {
	echo "usage: first-answer.sh DUMP VMLINUX [RUNS]" >&2
	exit 2
}
dump=$(realpath "$1") vmlinux=$(realpath "$2") runs=${3:-5}
cd "$(dirname "$0")/../.."
if [ -z "${KDT:-}" ]; then
	cargo build --release -q -p kdump-tools --bin kdt
	KDT=${CARGO_TARGET_DIR:-target}/release/kdt
fi
python=${DRGN_PYTHON:-${KDT_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kdt-lab}/drgn/bin/python3}
[ -x "$python" ] || python=python3
crash=${CRASH:-sh drills/lab/peers.sh crash}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat >"$work/answer.py" <<'PYTHON'
import sys

import drgn
from drgn.helpers.linux.module import for_each_module
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.printk import get_dmesg
from drgn.helpers.linux.sched import task_cpu, task_state_to_char

prog = drgn.Program()
prog.set_core_dump(sys.argv[1])
prog.load_debug_info([sys.argv[2]])
sys.stdout.buffer.write(get_dmesg(prog))
for task in for_each_task(prog, idle=True):
    parent = task.real_parent.tgid.value_()
    print("PID:", task.pid.value_(), parent, task_cpu(task), task_state_to_char(task), task.comm.string_().decode(errors="replace"))
    try:
        print(prog.stack_trace(task))
    except (ValueError, LookupError, drgn.FaultError) as why:
        print(why)
for module in for_each_module(prog):
    print(module.name.string_().decode(), hex(module.value_()), module.refcnt.counter.value_() - 1)
PYTHON
printf 'set scroll off\nsys\nlog\nps\nforeach bt\nmod\nq\n' >"$work/commands"
cat >"$work/crash.sh" <<SHELL
exec $crash -s "\$2" "\$1" <"$work/commands"
SHELL

python3 - "$work" "$runs" "$dump" "$vmlinux" "$KDT" "$python" <<'PYTHON'
import os, re, subprocess, sys, time

work, runs, dump, vmlinux, kdt, python = sys.argv[1:]
contenders = {
    "kdt triage": [kdt, "triage", dump],
    "kdt triage --format json": [kdt, "triage", "--format", "json", dump],
    "drgn": [python, f"{work}/answer.py", dump, vmlinux],
    "crash": ["sh", f"{work}/crash.sh", dump, vmlinux],
}
held, best, said = {}, {}, {}
for turn in range(int(runs)):
    for name, command in contenders.items():
        timed = ["/usr/bin/time", "-f", "%U %S %M", "-o", f"{work}/time", *command]
        with open(f"{work}/out", "wb") as out:
            start = time.monotonic()
            code = subprocess.run(timed, stdout=out, stderr=subprocess.DEVNULL).returncode
            took = time.monotonic() - start
        user, system, memory = open(f"{work}/time").read().split()[-3:]
        held[name] = max(held.get(name, 0), int(memory))
        best[name] = min(best.get(name, (1e9,)), (took, float(user), float(system), code))
        said[name] = os.path.getsize(f"{work}/out"), open(f"{work}/out", "rb").read()
quick = best["kdt triage"][0]
print(f"{os.path.basename(dump)}: {os.path.getsize(dump) / 2**20:.1f} MiB, best of {runs}")
print(f"{'':26} {'wall':>9} {'':>7} {'user':>8} {'system':>8} {'memory':>11} {'answer':>11}  exit")
for name, (took, user, system, code) in best.items():
    size, _ = said[name]
    print(f"{name:26} {took:7.2f} s {took / quick:6.1f}x {user:6.2f} s {system:6.2f} s {held[name] / 1024:7.1f} MiB {size / 1024:7.0f} KiB  {code}")
tasks = {
    "kdt": len(re.findall(rb'"backtrace_end"', said["kdt triage --format json"][1])),
    "drgn": len(re.findall(rb"^PID: ", said["drgn"][1], re.M)),
    "crash": len(re.findall(rb"^PID: ", said["crash"][1], re.M)),
}
print("stacks told: " + ", ".join(f"{name} {count}" for name, count in tasks.items()))
PYTHON
