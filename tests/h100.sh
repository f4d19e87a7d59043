#!/usr/bin/env bash
# Compiles the engine's programs for an NVIDIA H100 on a machine without one, and counts what they
# would launch (tests/evaluate/test_h100.py). CI leaves it out: JAX's CUDA compiler and what it wants
# beside it are 4.4 GB to download, in an environment of their own.
#
#   tests/h100.sh              in an environment that is removed again
#   tests/h100.sh FOLDER       in this one, made if it is not there, and kept
#   tests/h100.sh FOLDER ARGS  with more arguments for pytest
#
# JAX_VERSION chooses another JAX than the one that this Python has.
set -euo pipefail
cd "$(dirname "$0")/.."

find='from importlib.metadata import version; print(version("jax"))'
version=${JAX_VERSION:-$(python3 -c "$find" 2>/dev/null || true)}
environment=${1:-}
if (($#)); then
  shift
else
  environment=$(mktemp -d)/venv
  trap 'rm -rf "${environment%/venv}"' EXIT
fi

if [[ ! -x $environment/bin/python ]]; then
  echo "h100: 4.4 GB for JAX's CUDA compiler (jax ${version:-as pyproject.toml allows})"
  python3 -m venv "$environment"
fi
export PIP_DISABLE_PIP_VERSION_CHECK=1
"$environment/bin/python" -m pip install --quiet \
  "jax[cuda12]${version:+==$version}" pytest pytest-xdist beartype -e .

# Nothing runs on a GPU, not even where there is one.
JAX_PLATFORMS=cpu "$environment/bin/python" -m pytest -n 0 -rs tests/evaluate/test_h100.py "$@"
