#!/usr/bin/env bash
# Make an empty virtual environment: virtual_environment.sh PYTHON DIRECTORY
# Debian's python3 lacks ensurepip: root installs the package for it, other users are told its name.
set -euo pipefail
python=$1 directory=$2

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "DSPex needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    package="$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "$python cannot make virtual environments; on Debian or Ubuntu: apt-get install $package" >&2
        exit 1
    fi
    echo "Installing $package"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update </dev/null
    apt-get -qq install -y --no-install-recommends "$package" </dev/null >/dev/null
fi
rm -rf "$directory"
"$python" -m venv "$directory"
