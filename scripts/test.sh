#!/usr/bin/env bash
# The tests, set-up included; arguments go to pytest: scripts/test.sh tests/test_ops.py -k pool
set -euo pipefail
unset CDPATH  # with it cd goes elsewhere, or says where it is
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh test
# Most of the libraries are not compiled yet: without this each of a hundred processes would do that.
unset PYTHONDONTWRITEBYTECODE
# Each process begins with a share in one piece, so that a module's fixtures are made once.
exec .venv/bin/python -m pytest --numprocesses=auto --dist=worksteal "$@"
