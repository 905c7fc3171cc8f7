#!/bin/sh
# Make the virtual environment given as $1 and install the locked packages and Tunewright itself into it.
set -eu
venv=${1:-.venv}

fail() {
    echo "set-up: $1" >&2
    exit 3
}

supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))'
python=
for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c "$supported" 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || fail "no Python 3.11 to 3.14 found as ${PYTHON:-python3 or python3.1x}; install one, or name it: make PYTHON=/path/to/python3.11"
"$python" -c 'import venv, ensurepip' 2>/dev/null \
    || fail "$python has no venv module with pip; run: apt install python3-venv"

if ! "$venv/bin/python" -c "$supported" 2>/dev/null || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    "$python" -m venv --clear "$venv" || fail "$python could not make the environment $venv"
fi
echo "set-up: installing the locked packages into $venv ($("$venv/bin/python" --version); about a minute, only once) ..."
# --no-deps: the lock is complete. --no-compile: most of the 1.5 GB of Python packages are never imported.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --require-hashes \
    -r requirements.lock || fail "pip could not install requirements.lock (network, disk?); the message stands above"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index \
    --editable . || fail "Tunewright itself could not be installed into $venv; the message stands above"
echo "set-up: done"
