#!/bin/sh
# Everything that needs a GPU, in one go and without internet: `make gpu`, or `PYTHON=... bench/gpu.sh [FOLDER]`.
#
# Into a Python that already has torch and CuPy: tests marked gpu, benchmarks, the kernels under compute-sanitizer; then
# one JSON, one Markdown table and one picture named after the GPU in FOLDER (default bench/results). Without a GPU it
# does what can be done, and says what it left out and why.
#
# 8 minutes at most, figures first. What it should take, which nobody has measured yet: the compile check 20 s, tests 60,
# kernels 15, quality and time 60, everything that torch does not compile 90, what it does 120, the sanitizer 60. A step
# that takes longer than its limit is interrupted; benchmarks then keep what they have measured until there.
set -u
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
OUTPUT=${1:-bench/results}
SCRATCH=$(mktemp -d)
trap 'rm -rf "$SCRATCH"' EXIT
export PYTHONPATH="$PWD" PYTHONUNBUFFERED=1 MPI_FAST_CACHE="$SCRATCH/cache"  # nothing is installed
BEGAN=$(date +%s) WHOLE=480 REPORT=25  # seconds, the last kept for the report
status=0

step() { printf '\n== %s\n' "$1"; }
skip() { printf 'SKIPPED: %s\n' "$1"; }
failed() { printf 'FAILED: %s\n' "$1"; status=1; }
limited() {  # limited SECONDS COMMAND...: at most so long, and no longer than is left
    seconds=$1 left=$((BEGAN + WHOLE - REPORT - $(date +%s))); shift
    [ "$left" -ge "$seconds" ] || seconds=$left
    [ "$seconds" -ge 5 ] || { skip "nothing is left of the 8 minutes"; return 0; }
    timeout --signal=INT --kill-after=10 "$seconds" "$@"
    code=$?
    case $code in 124 | 137) printf 'INTERRUPTED after %s s\n' "$seconds" ;; esac  # 137: killed 10 s later
    return $code
}
benchmarks() {  # benchmarks SECONDS NAME ARGUMENTS...: by pytest, into NAME.json
    limit=$1 name=$2; shift 2
    limited "$limit" "$PYTHON" -m pytest -q -rs --benchmark-json="$SCRATCH/$name.json" \
        --benchmark-columns=median,iqr,max,rounds "$@" || failed "$name: $*"
}

step "this machine"
"$PYTHON" bench/gpu_check.py; gpu=$?  # 0: ready, 3: no GPU, else: something is missing

step "kernels compiled for every architecture"
"$PYTHON" -m pytest -q tests/test_kernel_compile.py || failed "a kernel does not compile"

if [ $gpu -ne 0 ]; then
    step "everything that runs on a GPU can be imported"
    for place in tests bench; do
        "$PYTHON" -m pytest -q --collect-only -m gpu "$place" >"$SCRATCH/collected" || failed "an import"
        awk -F': ' -v place="$place" '{ n += $2 } END { print n + 0 " of them in " place }' "$SCRATCH/collected"
    done
    step "quality and time, rehearsed on the CPU"
    benchmarks 200 rehearsal bench/test_tradeoff.py -m "not gpu"
    "$PYTHON" bench/gpu_report.py "$SCRATCH/rehearsal.json" -o "$SCRATCH/report" || failed "the report"
    echo "nothing of this is kept"
    step "tests on the GPU"
    skip "no GPU, or a library is missing: see above"
    step "benchmarks on the GPU"
    skip "no GPU: kernels, quality and time, latency (ONNX Runtime's CUDA graph, too), throughput, stages, compiled ones"
    step "compute-sanitizer"
    skip "no GPU"
    [ $gpu -eq 3 ] || failed "something that the GPU needs is missing"
    exit $status
fi

step "tests on the GPU"
limited 180 "$PYTHON" -m pytest -q -m gpu tests -ra || failed "tests"

step "benchmarks on the GPU"
benchmarks 40 kernels bench/test_kernels.py -m gpu
benchmarks 100 tradeoff bench/test_tradeoff.py -m gpu
benchmarks 130 gpu bench/test_gpu.py -m gpu -k "not compile"
benchmarks 150 compiled bench/test_gpu.py -m gpu -k compile
"$PYTHON" bench/gpu_report.py "$SCRATCH"/*.json -o "$OUTPUT" || failed "the report"

step "compute-sanitizer"
if command -v compute-sanitizer >/dev/null; then
    limited 120 bench/sanitize.sh || failed "compute-sanitizer"
else
    skip "compute-sanitizer is not on the path"
fi
exit $status
