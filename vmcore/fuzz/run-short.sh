#!/bin/sh
# Runs each fuzz target of vmcore for SECONDS (10 where it is not given). Needs a nightly compiler and a C++ compiler for
# libFuzzer; cargo-fuzz is used where it is installed, and not needed. Where the nightly compiler is missing, the corpus
# and mutations of it run through the same functions on the stable one.
# KDT_FUZZ_SEED chooses other mutations; the short run of every day has the same.
set -eu
seconds=${1:-10}
here=$(cd "$(dirname "$0")" && pwd)
targets="open notes flattened page log vmcoreinfo panic_text"
triple=x86_64-unknown-linux-gnu

replay() {
    echo "run-short.sh: $1; replaying the corpus and mutations of it on the stable compiler instead" >&2
    cd "$here/.."
    KDT_REPLAY_MUTATIONS=$((seconds * 40)) exec cargo test --test replay
}

cargo +nightly --version >/dev/null 2>&1 || replay "there is no nightly toolchain (rustup toolchain install nightly)"
command -v c++ >/dev/null 2>&1 || replay "there is no C++ compiler, which libFuzzer needs (apt-get install g++)"

cd "$here"
export CARGO_TARGET_DIR="$here/target"
if cargo +nightly fuzz --version >/dev/null 2>&1; then
    cargo +nightly fuzz build
    binaries="target/$triple/release"
else
    echo "run-short.sh: cargo-fuzz is not installed; building with its flags" >&2
    # What cargo-fuzz 0.13 passes, but for AddressSanitizer: vmcore has no unsafe code outside the map of a file.
    RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks" \
        cargo +nightly build --release --target "$triple"
    binaries="target/$triple/release"
fi
failed=
for target in $targets; do
    mkdir -p "artifacts/$target" "target/grown/$target"
    # What is found grows in target/, the committed corpus stays as it is.
    if "$binaries/$target" "target/grown/$target" "corpus/$target" -seed="${KDT_FUZZ_SEED:-1}" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 \
        -max_len=65536 -artifact_prefix="artifacts/$target/" >"target/$target.log" 2>&1; then
        echo "$target: $(tail -n 1 "target/$target.log")"
    else
        failed="$failed $target"
        echo "$target: FAILED"
        tail -n 40 "target/$target.log"
    fi
done
[ -z "$failed" ] || { echo "run-short.sh: these targets found something:$failed (see vmcore/fuzz/artifacts)" >&2; exit 1; }
