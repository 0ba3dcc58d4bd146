#!/usr/bin/env bash
# Formatting, lint and types, set-up included.
set -euo pipefail
unset CDPATH  # with it cd goes elsewhere, or says where it is
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh test
.venv/bin/python -m ruff format --check .
.venv/bin/python -m ruff check .
MYPY_NUM_WORKERS=2 .venv/bin/python -m mypy
