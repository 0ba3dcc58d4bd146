#!/usr/bin/env bash
# Makes .venv with the package in it; `scripts/setup.sh test` adds what the tests need. Does nothing
# where that is done already and neither pyproject.toml nor the versions have changed since.
#   PYTHON=python3.12     the Python to take; otherwise .venv's own, or the newest there is
#   CONSTRAINTS=FILE      versions other than those of constraints.txt; empty: the newest of all
set -euo pipefail
unset CDPATH  # with it cd goes elsewhere, or says where it is
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
extras=${1:-}
constraints=${CONSTRAINTS-$root/constraints.txt}
venv="$root/.venv"
log="$venv/install.log"
say() { echo "$*" >&2; }

usable() { "$1" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

identity() { "$1" -c 'import sys; print(sys.version, sys.base_prefix)'; }

# Those that the pins are tried on, newest first; then what is newer still. pyenv's versions stand
# beside the path, since its own commands answer only for the one that is chosen.
newest() {
  local name python
  for name in python3.13 python3.12 python3.11 python3; do
    for python in "$name" "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/*/bin/"$name"; do
      if usable "$python"; then
        command -v "$python"
        return
      fi
    done
  done
}

venv_works() { usable "$venv/bin/python" && "$venv/bin/python" -c 'import pip' 2>/dev/null; }

# Whether .venv is of the Python that is asked for.
venv_fits() { [ -z "${PYTHON:-}" ] || [ "$(identity "$venv/bin/python")" = "$(identity "$PYTHON")" ]; }

# What there is to install, and where: an editable install does not survive being moved.
wanted() { { echo "$root" && cat "$root/pyproject.toml" ${constraints:+"$constraints"}; } | cksum; }

installed() {
  local stamp
  for stamp in "$venv/.installed-${extras:-base}" ${extras:-"$venv/.installed-test"}; do
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(wanted)" ] && return
  done
  return 1
}

ready() { installed && venv_works && venv_fits; }

# The open script itself is the lock: the system gives it back whenever this process ends.
lock() {
  exec 9<"${BASH_SOURCE[0]}"
  "$1" -c '
import fcntl, sys
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("Waiting for another set-up in this folder ...", file=sys.stderr)
    fcntl.flock(9, fcntl.LOCK_EX)
except OSError:
    pass  # there are none here: NFS locks nothing that is open for reading alone
'
}

packages() {
  { find "$venv"/lib/python*/site-packages -maxdepth 1 -name '*.dist-info' 2>/dev/null || true; } | wc -l
}

# How far it is: what the log says last, or how many packages came to those that were there.
progress() {
  local line total said='Making|Collecting|Resolved|Using cached|Download(ing|ed)|Buil(ding|t)|Prepared|Installing|Compiling'
  line=$(sed -nE "s/^ *(($said) .*)/\1/p" "$log" | tail -n 1)
  if [[ $line == "Installing collected"* ]]; then
    total=$(tr -dc , <<<"$line" | wc -c)
    line="Installing: $(($(packages) - $1)) of $((total + 1)) packages"
  fi
  printf '%4d s  %.90s\n' "$SECONDS" "${line:-Starting}" >&2
}

ticking() { while sleep 4 >/dev/null 2>&1 9<&- && kill -0 "$1" 2>/dev/null; do progress "$2"; done; }

# Ended with this script, by whatever ends it.
in_background() {
  "$@" &
  trap "kill $(jobs -p | tr '\n' ' ') 2>/dev/null || true" EXIT
}

# watched WHAT COMMAND: says how far the command is while it runs; what it prints goes into the log.
watched() {
  in_background "$2" >>"$log" 2>&1
  local command=$!
  in_background ticking "$command" "$(packages)"
  if ! wait "$command"; then
    tail -n 15 "$log" >&2
    say "error: $1; all that was said is in .venv/install.log"
    exit 1
  fi
}

make_venv() { echo "Making .venv" && "$python" -m venv "$venv"; }

pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

# uv reads none of pip's settings, so that it would ask the wrong index.
has_own_index() { [[ $(pip config list) =~ \.(index-url|no-index)= ]]; }

by_uv() {
  pip install --no-compile --progress-bar off 'uv>=0.9,<1' &&
    "$venv/bin/python" -m uv pip install --python "$venv/bin/python" "$@"
}

# uv takes a third of pip's time. Not compiled by pip: most of these files are never imported.
install() {
  local what=(${constraints:+--constraint "$constraints"} --editable "$root${extras:+[$extras]}")
  if has_own_index || ! by_uv "${what[@]}"; then
    echo "Installing by pip"
    pip install --no-compile --progress-bar off "${what[@]}"
  fi
}

# By one import, so that the first run does not spend its first ten seconds on that.
compile() {
  echo "Compiling what a run imports"
  env -u PYTHONDONTWRITEBYTECODE "$venv/bin/python" -c 'import orbax.checkpoint, rice_jax.stages'
}

if ready; then exit 0; fi

python=${PYTHON:-$(newest)}
[ -n "$python" ] || { say "error: no Python 3.11 or newer; name one in PYTHON"; exit 1; }
usable "$python" || { say "error: PYTHON=$python is no Python 3.11 or newer with pip and venv"; exit 1; }
lock "$python"
if ready; then exit 0; fi  # by the set-up that this one waited for

if [ -e "$venv" ] && ! venv_works; then
  say "The Python of .venv is gone or broken: making .venv anew."
  rm -rf "$venv"
elif [ -e "$venv" ] && ! venv_fits; then
  say "PYTHON=$PYTHON is another Python than .venv's: making .venv anew."
  rm -rf "$venv"
fi
if [ ! -e "$venv" ]; then
  say "Setting up .venv with $("$python" --version) ($python); once, a minute or two ..."
  mkdir -p "$venv"
  : >"$log"
  watched "Python could not make .venv" make_venv
else
  say "Bringing .venv up to date ..."
  : >"$log"
fi
watched "the packages could not be installed" install
watched "what was installed does not work" compile
wanted >"$venv/.installed-${extras:-base}"
say "Set up in $SECONDS s."
