#!/usr/bin/env bash
# Formatting, lint, types and tests, set-up included; arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh test
export PATH="$PWD/.venv/bin:$PATH" KERAS_BACKEND=jax
ruff format --check .
ruff check .
mypy
pytest --numprocesses=auto --cov --cov-report=term:skip-covered --cov-fail-under=90 "$@"
