#!/usr/bin/env bash
# Makes .venv with the package in it; `scripts/setup.sh test` adds what the tests need.
# Does nothing where that is done already and pyproject.toml has not changed since.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
extras=${1:-}
stamp="$root/.venv/.installed-${extras:-base}"
wanted=$(cksum <"$root/pyproject.toml")

[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0

if [ ! -x "$root/.venv/bin/python" ]; then
  for python in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
    [ -n "$python" ] && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
    python=
  done
  [ -n "$python" ] || { echo "error: no Python 3.11 or newer; name one in PYTHON" >&2; exit 1; }
  "$python" -m venv "$root/.venv"
fi
echo "Installing into .venv (once, about a minute) ..." >&2
# Not compiled beforehand: most of these files are never imported, the rest compiles on import.
"$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile \
  --editable "$root${extras:+[$extras]}"
echo "$wanted" >"$stamp"
