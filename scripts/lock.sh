#!/usr/bin/env bash
# Moves the pins of constraints.txt to what PyPI has released since, within pyproject.toml's bounds,
# for each Python and system at once, and those of constraints-oldest.txt to its lower bounds. Then
# run the tests on every Python: PYTHON=python3.11 scripts/test.sh
set -euo pipefail
unset CDPATH  # with it cd goes elsewhere, or says where it is
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tool=$(mktemp -d)
trap 'rm -rf "$tool"' EXIT
"${PYTHON:-python3}" -m venv "$tool"
"$tool/bin/python" -m pip install --quiet --disable-pip-version-check uv
unset "${!UV_@}"  # nothing of this machine's settings in the pins; uv reads none of pip's
lock() {
  "$tool/bin/uv" pip compile --quiet --no-config --default-index https://pypi.org/simple \
    --universal --python-version 3.11 --upgrade --no-annotate \
    --custom-compile-command scripts/lock.sh pyproject.toml "$@"
}
lock --extra test --output-file constraints.txt
lock --resolution lowest-direct --output-file constraints-oldest.txt
