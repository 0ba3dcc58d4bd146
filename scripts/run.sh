#!/usr/bin/env bash
# The main job, set-up included: scripts/run.sh --config=configs/final.py [--workdir=DIR ...]
set -euo pipefail
unset CDPATH  # with it cd goes elsewhere, or says where it is
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$root/scripts/setup.sh"
unset PYTHONDONTWRITEBYTECODE  # what set-up has not compiled is compiled once
exec "$root/.venv/bin/python" -m rice_jax.main "$@"
