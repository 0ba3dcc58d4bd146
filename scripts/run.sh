#!/usr/bin/env bash
# The main job, set-up included: scripts/run.sh --config=configs/final.py [--workdir=DIR ...]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$root/scripts/setup.sh"
unset PYTHONDONTWRITEBYTECODE  # set-up leaves the libraries uncompiled: the first run alone compiles them
if ! compgen -G "$root/.venv/lib/python3*/site-packages/jax/__pycache__" > /dev/null; then
  echo "The first run compiles the libraries; some ten seconds ..." >&2
fi
exec "$root/.venv/bin/python" -m rice_jax.main "$@"
