#!/usr/bin/env bash
# Every net of the study, then their comparison, set-up included; arguments as for
# rice-jax reproduce: scripts/reproduce.sh --config.data.path=rice-image-dataset.zip
set -euo pipefail
unset CDPATH  # with it cd goes elsewhere, or says where it is
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$root/scripts/setup.sh"
exec "$root/.venv/bin/python" -m rice_jax reproduce "$@"
