#!/usr/bin/env bash
# All GPU tests and benchmarks, in under eight minutes: bash benchmarks/on_a_gpu.sh [FOLDER]
# Needs a CUDA GPU, and a Python (python, or the variable PYTHON) with warmstart-sim and pytest installed. Writes
# tests.txt and speed.md to FOLDER (default gpu_results). The benchmarks run even if a test fails; the exit status is
# then 1.
set -uo pipefail

python=${PYTHON:-python}
if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "no CUDA GPU: torch finds none on this machine, so nothing was run" >&2
    exit 2
fi
mkdir -p "${1:-gpu_results}" || exit 1
out=$(cd "${1:-gpu_results}" && pwd)
cd "$(dirname "$0")/.."

timeout 100 "$python" -m pytest -m gpu -q tests/test_gpu.py 2>&1 | tee "$out/tests.txt"
tests=${PIPESTATUS[0]}

# It ends by itself; the timeout is for a hanging measurement. Results written before it are kept.
timeout 375 "$python" benchmarks/speed.py --device cuda --minutes 6 --out "$out/speed.md"
benchmarks=$?

[ "$tests" -eq 0 ] || echo "tests failed (exit status $tests, 124: out of time): see $out/tests.txt" >&2
[ "$benchmarks" -eq 0 ] || echo "benchmarks failed (exit status $benchmarks): see the end of each table in $out/speed.md" >&2
[ "$tests" -eq 0 ] && [ "$benchmarks" -eq 0 ]
