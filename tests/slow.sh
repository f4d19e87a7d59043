#!/usr/bin/env bash
# The tests that CI leaves out for their time (`slow`), and interrupts of real runs: before a
# release. Arguments are handed to pytest, as in `tests/slow.sh -n 8 tests/faults`.
set -euo pipefail
cd "$(dirname "$0")/.."

python -m pytest -n 2 -m slow "$@"  # of two -n, pytest takes the last
python tests/interrupts.py --count 50 --resume-every 5
