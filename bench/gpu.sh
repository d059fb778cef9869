#!/bin/sh
# Everything that needs a GPU, in one go and without internet: `make gpu`, or `PYTHON=... bench/gpu.sh [FOLDER]`.
#
# Into a Python that already has torch and CuPy: tests marked gpu, the kernels under compute-sanitizer, benchmarks; then
# one JSON and one Markdown table named after the GPU in FOLDER (default bench/results). Without a GPU it does what can be
# done, and says what it left out and why.
set -u
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
OUTPUT=${1:-bench/results}
SCRATCH=$(mktemp -d)
trap 'rm -rf "$SCRATCH"' EXIT
export PYTHONPATH="$PWD" PYTHONUNBUFFERED=1 MPI_FAST_CACHE="$SCRATCH/cache"  # nothing is installed
status=0

step() { printf '\n== %s\n' "$1"; }
skip() { printf 'SKIPPED: %s\n' "$1"; }
failed() { printf 'FAILED: %s\n' "$1"; status=1; }

step "this machine"
"$PYTHON" bench/gpu_check.py; gpu=$?  # 0: ready, 3: no GPU, else: something is missing

step "kernels compiled for every architecture"
"$PYTHON" -m pytest -q tests/test_kernel_compile.py || failed "a kernel does not compile"

if [ $gpu -ne 0 ]; then
    step "everything that runs on a GPU can be imported"
    for place in tests bench; do
        "$PYTHON" -m pytest -q --collect-only -m gpu "$place" >"$SCRATCH/collected" || failed "an import"
        tail -n 1 "$SCRATCH/collected"
    done
    step "tests on the GPU";        skip "no GPU, or a library is missing: see above"
    step "compute-sanitizer";       skip "no GPU"
    step "benchmarks on the GPU";   skip "no GPU"
    [ $gpu -eq 3 ] || failed "something that the GPU needs is missing"
    exit $status
fi

step "tests on the GPU"
timeout 180 "$PYTHON" -m pytest -q -m gpu tests -ra || failed "tests"

step "compute-sanitizer"
if command -v compute-sanitizer >/dev/null; then
    timeout 120 bench/sanitize.sh || failed "compute-sanitizer"
else
    skip "compute-sanitizer is not on the path"
fi

step "benchmarks on the GPU"
for file in test_kernels test_gpu; do
    timeout 200 "$PYTHON" -m pytest -q -m gpu "bench/$file.py" --benchmark-json="$SCRATCH/$file.json" \
        --benchmark-columns=median,iqr,max,rounds || failed "bench/$file.py"
done
"$PYTHON" bench/gpu_report.py "$SCRATCH"/*.json -o "$OUTPUT" || failed "the report"
exit $status
