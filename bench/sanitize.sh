#!/bin/sh
# The kernels under compute-sanitizer, on a GPU: out-of-bounds and misaligned access, races in shared memory, reads of what
# nobody wrote, and barriers that some threads miss. Run from the root of the repository; every tool runs, whatever the
# others find.
set -u
if ! command -v compute-sanitizer >/dev/null; then
    echo "compute-sanitizer is not on the path; it is part of the CUDA toolkit" >&2
    exit 2
fi
status=0
for tool in memcheck racecheck initcheck synccheck; do
    echo "== $tool"
    compute-sanitizer --tool "$tool" --error-exitcode 1 "${PYTHON:-python}" tests/kernel_cases.py || status=1
done
exit $status
