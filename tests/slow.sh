#!/usr/bin/env bash
# What CI leaves out for its time, before a release: the tests marked `slow`, then interrupts of
# real runs. Arguments are handed to pytest and choose a part, without the interrupts:
# `tests/slow.sh tests/faults`, `tests/slow.sh -k published`.
set -uo pipefail
cd "$(dirname "$0")/.."

status=0  # what fails or hangs does not keep the rest from running
timeout 4h python -m pytest -n auto --maxprocesses 8 -m slow "$@" || status=$?
if (($# == 0)); then
  timeout 2h python tests/interrupts.py --count 50 --resume-every 5 || status=$?
fi
exit "$status"
