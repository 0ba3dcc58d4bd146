#!/usr/bin/env bash
# Formatting, lint and types, set-up included.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh test
.venv/bin/python -m ruff format --check .
.venv/bin/python -m ruff check .
MYPY_NUM_WORKERS=2 .venv/bin/python -m mypy
